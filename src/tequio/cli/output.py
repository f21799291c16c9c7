"""How commands print: tables and words for people, one JSON value for `--json`, one line of
progress on standard error.
"""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.live import Live
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from tequio.cli.progress import ProgressLine
from tequio.cli.terminal import shows_all


def _terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


# Paths and names are printed as they are: brackets are no markup in them, and colons no pictures.
out = Console(
    soft_wrap=True,
    highlight=False,
    markup=False,
    emoji=False,
    width=None if _terminal(sys.stdout) else 140,
)
err = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)

WIDEST = 10_000  # columns that a table may ask for

STAGES = {
    "prepare": "Preparing",
    "rounds": "Rounds",
    "shared": "Shared model",
    "personal": "Personal models",
    "counterfactuals": "Counterfactuals",
    "general": "General capability",
}


def emit(
    value: Mapping[str, Any],
    as_json: bool,
    words: Callable[[], None],
    lang: Literal["en", "es"] = "en",
) -> None:
    """Print `value` as JSON, each reason with its text in this language, or call `words` to say it
    to a person.
    """
    if as_json:
        from tequio.core.texts.words import Words

        value = Words(lang).with_texts(value)
        sys.stdout.write(
            json.dumps(value, ensure_ascii=not shows_all(), indent=1, default=str) + "\n"
        )
    else:
        words()


def say(*lines: str) -> None:
    """Print lines for a person, as they are."""
    for line in lines:
        out.print(line, markup=False)


def tabular(
    heads: Sequence[str],
    rows: Iterable[Sequence[str | Text]],
    left: Collection[int] = (0,),
    title: str | None = None,
    wrapped: Collection[int] = (),
) -> Table:
    """A table with a line for each row. left: places of columns with words; the others hold
    numbers. wrapped: of those that may wrap.
    """
    made = Table(title=title)
    for place, head in enumerate(heads):
        made.add_column(
            head, justify="left" if place in left else "right", no_wrap=place not in wrapped
        )
    for row in rows:
        made.add_row(*row)
    return made


def table(rows: Table, on: Console | None = None) -> None:
    """Print a table so that nothing of it is lost: as wide as it is; on a narrower terminal in
    parts, each with the first column.
    """
    console = on or out
    usual, need = console.width, _width(rows, console)
    if need > usual and console.is_terminal:
        for part in _parts(rows, console):
            console.print(part)
        return
    try:
        console.width = max(usual, need)
        console.print(rows)
    finally:
        console.width = usual


def _width(rows: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(max_width=WIDEST), rows).maximum


def _parts(rows: Table, console: Console) -> list[Table]:
    """What tells the rows apart with as many of the other columns as fit beside it, and so on; a
    cell too wide alone is wrapped.
    """
    columns, key, done = rows.columns, _key(rows), list[Table]()
    while key > 1 and _width(_part(rows, columns[: key + 1]), console) > console.width:
        key -= 1
    first, others = columns[:key], columns[key:]
    while others:
        count = 1
        while (
            count < len(others)
            and _width(_part(rows, [*first, *others[: count + 1]]), console) <= console.width
        ):
            count += 1
        done.append(_part(rows, [*first, *others[:count]]))
        others = others[count:]
    done[0].title = rows.title
    return done


def _key(rows: Table) -> int:
    """How many of the first columns it takes to tell rows apart."""
    cells = list(
        zip(*([str(cell) for cell in column.cells] for column in rows.columns), strict=True)
    )
    several = range(1, len(rows.columns))
    return next((k for k in several if len({row[:k] for row in cells}) == len(cells)), 1)


def _part(rows: Table, columns: Sequence[Column]) -> Table:
    part = Table(expand=False)
    for column in columns:
        part.add_column(column.header, justify=column.justify, overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        part.add_row(*cells)
    return part


NOTE = "note"  # a sentence that stays on screen, not a stage


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str, str, int, int], None]]:
    """A `watch` for runs: one line that moves.

    Silent with `--json`; a line per stage where standard error is no terminal.
    """
    if quiet or not err.is_terminal:
        seen: set[str] = set()

        def tell(stage: str, what: str, done: int, of: int) -> None:
            if stage == NOTE:
                if not quiet:
                    err.print(what, markup=False)
            elif not quiet and stage not in seen:
                seen.add(stage)
                err.print(f"{STAGES[stage]}…")

        yield tell
        return
    line = _Line(STAGES)
    with Live(
        get_renderable=lambda: line.text(err.width),
        console=err,
        refresh_per_second=4,
        transient=True,
    ) as live:
        line.on_stage = live.refresh
        yield line


class _Line(ProgressLine):
    """The line of progress, above which notes are printed."""

    def __call__(self, stage: str, what: str, done: int, of: int) -> None:
        """Print a note, or move the line."""
        if stage == NOTE:
            err.print(what, markup=False)
        else:
            super().__call__(stage, what, done, of)


def points(value: float | None) -> str:
    """A share as percentage points with sign: +2.3."""
    return "–" if value is None else f"{100 * value:+.1f}"


def percent(value: float | None) -> str:
    """A share as a percentage: 72.1 %."""
    return "–" if value is None else f"{100 * value:.1f} %"
