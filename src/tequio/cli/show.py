"""How commands print: tables and words for people, one JSON value for `--json`, progress bars on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 140)
err = Console(stderr=True, soft_wrap=True, highlight=False)

WIDEST = 10_000  # columns that a table may ask for

STAGES = {
    "prepare": "Preparing",
    "rounds": "Rounds",
    "shared": "Shared model",
    "personal": "Personal models",
    "counterfactuals": "Counterfactuals",
    "general": "General capability",
}


def emit(value: Mapping[str, Any], as_json: bool, words: Callable[[], None]) -> None:
    """Print `value` as JSON, or call `words` to say it to a person."""
    if as_json:
        sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1, default=str) + "\n")
    else:
        words()


def table(rows: Table, on: Console | None = None) -> None:
    """Print a table so that nothing of it is lost: as wide as it is, but on a terminal that is narrower, as one block a row."""
    console = on or out
    usual = console.width
    need = Measurement.get(console, console.options.update(max_width=WIDEST), rows).maximum
    if need > usual and console.is_terminal:
        _blocks(rows, console)
        return
    try:
        console.width = max(usual, need)
        console.print(rows)
    finally:
        console.width = usual


def _blocks(rows: Table, console: Console) -> None:
    """Each row by its first words, and under them what the other columns say."""
    names = [str(column.header) for column in rows.columns]
    if rows.title:
        console.print(rows.title, style="italic")
    for cells in zip(*(column.cells for column in rows.columns), strict=True):
        texts = [cell if isinstance(cell, Text) else console.render_str(str(cell)) for cell in cells]
        first, *others = [(name, text) for name, text in zip(names, texts, strict=True) if text.plain]
        console.print(first[1], style="bold")
        for name, text in others:
            console.print(Text.assemble(f"  {name:<{max(map(len, names))}}  ", text))


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, str, int, int], None]]:
    """A `watch` for runs: one bar a stage with time left. Silent with `--json` or where standard error is no terminal."""
    if quiet or not err.is_terminal:
        seen: set[str] = set()

        def tell(stage: str, what: str, done: int, of: int) -> None:
            if not quiet and stage not in seen:
                seen.add(stage)
                err.print(f"{STAGES[stage]}…")

        yield tell
        return
    columns = (
        TextColumn("{task.description:<19}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("[dim]{task.fields[what]}"),
    )
    with Progress(*columns, console=err) as bars:
        tasks: dict[str, TaskID] = {}

        def move(stage: str, what: str, done: int, of: int) -> None:
            if stage not in tasks:
                for finished in tasks.values():
                    bars.update(finished, completed=bars.tasks[finished].total)
                tasks[stage] = bars.add_task(STAGES[stage], total=of, what=what)
            bars.update(tasks[stage], completed=done, total=of, what=what)

        yield move
        for finished in tasks.values():
            bars.update(finished, completed=bars.tasks[finished].total, what="")


def points(value: float | None) -> str:
    """A share as percentage points with sign: +2.3."""
    return "–" if value is None else f"{100 * value:+.1f}"


def percent(value: float | None) -> str:
    """A share as a percentage: 72.1 %."""
    return "–" if value is None else f"{100 * value:.1f} %"
