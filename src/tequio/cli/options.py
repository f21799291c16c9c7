"""What the commands share: options, the threads of torch, an orderly end at Ctrl-C, and the report
at the end of a run.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import typer

from tequio.cli import output

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]
Lang = Annotated[
    Literal["en", "es"], typer.Option("--lang", help="Language of report and summary.")
]
Threads = Annotated[int, typer.Option("--threads", help="CPU cores to use; 0 means all.", min=0)]


def set_threads(threads: int) -> None:
    """Cap torch's threads: more threads than cores is many times slower than one."""
    import torch

    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))


@contextmanager
def stoppable(words: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C and SIGTERM close what is open and end the command between two commits;

    `words` say how to go on.
    """

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        output.err.print(f"\n{words()}", markup=False)
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def go_on_with(again: str) -> str:
    """What is said where a command that can go on was stopped."""
    return f"Stopped. What was finished is kept. Go on with: {again}"


def stopped_words(folder: Path) -> str:
    """Say how to resume a run that was stopped."""
    if (folder / "ledger.sqlite").exists():
        return go_on_with(f"tequio run --resume {folder}")
    return "Stopped before the run began; nothing was written."


def finish(
    folder: Path,
    lang: Literal["en", "es"],
    json: bool,
    out: Path | None = None,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write the report and print the summary; with `json` the keys of `more` come first."""
    from tequio.cli.summary import print_summary
    from tequio.report.write import write_report

    path, summary = write_report(folder, lang, out)
    output.emit(
        {**more, "run": str(folder), "report": str(path), "summary": summary},
        json,
        lambda: print_summary(folder, path, summary, lang),
    )


def looks_like_a_file(text: str) -> bool:
    """Whether a text to predict is rather the name of a file: it exists, or it is one word with the
    ending of a data file.
    """
    endings = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".xlsx", ".txt")
    return len(text.split()) == 1 and (text.lower().endswith(endings) or Path(text).is_file())
