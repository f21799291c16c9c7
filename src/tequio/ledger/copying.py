"""Copy an SQLite file that another process may be writing, so that the copy is of one moment.

A ledger is copied in small steps: between two of them its writer can commit, and then the copy
begins again by itself. A file with a write-ahead log (SuperLink's) is copied at once, for its
readers never keep its writer waiting.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from tequio.core.errors import ResourceError
from tequio.core.texts.words import refusal
from tequio.ledger.folder import LEDGER
from tequio.ledger.store import connect, translated

HEADER = b"SQLite format 3\0"
PAGES, PAUSE = 1024, 0.002  # pages of one step, and seconds between two
RESTARTS = 20  # how often a copy may begin again


def is_database(path: Path) -> bool:
    """Return whether a file is one of SQLite. Raises OSError."""
    with path.open("rb") as stream:
        return stream.read(len(HEADER)) == HEADER


def copy_database(path: Path, target: Path) -> None:
    """Copy a database as it is at one moment to a new file that only its owner can read.

    Raises:
        LedgerError: the file is no sound database; a ledger is checked to be one.
        ResourceError: the copy cannot be written, or began again too often (code backup-outpaced).
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with (
        translated(path),
        closing(_source(path)) as source,
        closing(sqlite3.connect(target)) as fresh,
    ):
        waits = source.execute("PRAGMA journal_mode").fetchone()[0] != "wal"
        source.backup(fresh, pages=PAGES if waits else -1, progress=_Restarts(path), sleep=PAUSE)


def _source(path: Path) -> sqlite3.Connection:
    if path.name == LEDGER:
        return connect(path, read_only=True)
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


class _Restarts:
    """Counts how often a copy begins again, and ends it when that is too often."""

    def __init__(self, path: Path) -> None:
        self.path, self.remaining, self.count = path, -1, 0

    def __call__(self, status: int, remaining: int, total: int) -> None:
        if 0 <= self.remaining < remaining:
            self.count += 1
        if self.count > RESTARTS:
            raise refusal(ResourceError, "backup-outpaced", folder=str(self.path), count=self.count)
        self.remaining = remaining
