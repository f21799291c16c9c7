"""Events as lines: words for a person, or one JSON object a line; on standard error, or appended to
a file.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Annotated, Literal

import typer

from tequio.cli import output
from tequio.core.bounds import one_line
from tequio.core.errors import ConfigError, ResourceError
from tequio.core.events import EventHandler, Level, Value
from tequio.core.texts.words import refusal

Metrics = Annotated[
    str | None,
    typer.Option(
        "--metrics", help="Port on loopback for /metrics (Prometheus) and /health; or host:port."
    ),
]
Log = Annotated[
    Literal["plain", "json"],
    typer.Option("--log", help="Events as words, or one JSON object a line."),
]
LogFile = Annotated[
    Path | None,
    typer.Option("--log-file", help="Append events to this file. Default: standard error."),
]

ENDS = ("ended", "stopped", "failed")  # said by the command itself where it speaks words


def event_handler(
    form: Literal["plain", "json"], path: Path | None, quiet: bool = False
) -> EventHandler:
    """What writes events.

    The file is opened for each line, so that it can be moved away (logrotate). Raises ResourceError
    at once.
    """
    if quiet:
        return lambda words, event="note", level="info", **fields: None
    write = _to_file(path) if path is not None else _to_stderr

    def log(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if form == "json":
            write(
                json.dumps(
                    {"time": time, "level": level, "event": event, "message": words, **fields}
                )
                + "\n"
            )
        elif path is not None:
            write(f"{time} {level} {one_line(words)}\n")
        elif event not in ENDS:
            output.err.print(words, markup=False)

    return log


def _to_stderr(line: str) -> None:
    sys.stderr.write(line)
    sys.stderr.flush()


def _to_file(path: Path) -> Callable[[str], None]:
    lock = Lock()

    def write(line: str) -> None:
        with (
            suppress(OSError),
            lock,
            path.open("a", encoding="utf-8") as stream,
        ):  # a full disk does not end the run here
            stream.write(line)

    try:
        path.open("a").close()
    except OSError as error:
        raise refusal(ResourceError, "folder-unwritable", path=path, error=error.strerror) from None
    return write


def parse_address(text: str | None) -> tuple[str, int] | None:
    """PORT, which means loopback, or HOST:PORT. Raises ConfigError for anything else."""
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise refusal(
            ConfigError, "option-unfit", option="--metrics", value=text, names=["9464", "HOST:9464"]
        )
    return host or "127.0.0.1", int(port)
