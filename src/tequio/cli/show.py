"""How commands print: tables and words for people, one JSON value for `--json`, progress bars on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

out = Console(soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 140)
err = Console(stderr=True, soft_wrap=True, highlight=False)

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
