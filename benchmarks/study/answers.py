"""An answer: tables, targets met or missed, and notes; as markdown and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows of words, as they are shown."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""


@dataclass(frozen=True)
class Target:
    """What was to be shown, the measured figure in words, and whether that meets it."""

    claim: str
    measured: str
    met: bool


@dataclass(frozen=True)
class Answer:
    """What a question found. `figures`: the numbers behind the tables, JSON. `pictures`:

    SVG by file name.
    """

    tables: Sequence[Table]
    targets: Sequence[Target] = ()
    notes: Sequence[str] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)


def markdown(name: str, question: str, answer: Answer, seconds: float, quick: bool) -> str:
    """One page."""
    parts = [
        f"# {name}: {question}",
        f"`python -m benchmarks.study {name}`, {seconds / 60:.1f} CPU minutes.",
    ]
    if quick:
        parts.append("**Quick: a toy that shows that all works. Its figures mean nothing.**")
    parts += [_table(table) for table in answer.tables]
    if answer.targets:
        verdicts = [
            f"- {'met' if t.met else '**missed**'}: {t.claim}: {t.measured}" for t in answer.targets
        ]
        parts.append("\n".join(verdicts))
    parts += [f"![{file}]({file})" for file in answer.pictures]
    if answer.notes:
        parts.append("\n".join(f"- {note}" for note in answer.notes))
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *table.rows]
    drawn = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"{table.title}\n\n{drawn}" if table.title else drawn
