"""The SQLite file itself: its tables, how a connection is opened, and what SQLite's errors mean in
our tree.

Rollback journal in DELETE mode: a closed run is one file. `synchronous=EXTRA` is FULL plus a folder
sync.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tequio.core.errors import LedgerCorrupt, LedgerError, ResourceError, RunBusy, TequioError
from tequio.core.texts.words import refusal, refuse_first
from tequio.ledger.folder import go_on

APPLICATION_ID = 0x54455155  # "TEQU"
SCHEMA_VERSION = 1
BUSY_SECONDS = 5.0

SCHEMA = {
    "record": "CREATE TABLE record (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, body TEXT NOT "
    "NULL, previous TEXT NOT NULL, hash TEXT NOT NULL)",
    "head": "CREATE TABLE head (id INTEGER PRIMARY KEY CHECK (id = 0), seq INTEGER NOT NULL,"
    " hash TEXT NOT NULL, state_seq INTEGER)",
    "checkpoint": "CREATE TABLE checkpoint (part INTEGER PRIMARY KEY, data BLOB NOT NULL)",
    "record_no_update": "CREATE TRIGGER record_no_update BEFORE UPDATE ON record"
    " BEGIN SELECT RAISE(ABORT, 'records are append-only'); END",
    "record_no_delete": "CREATE TRIGGER record_no_delete BEFORE DELETE ON record"
    " BEGIN SELECT RAISE(ABORT, 'records are append-only'); END",
    "record_in_order": "CREATE TRIGGER record_in_order BEFORE INSERT ON record"
    " WHEN NEW.seq IS NOT (SELECT coalesce(max(seq) + 1, 0) FROM record)"
    " BEGIN SELECT RAISE(ABORT, 'records follow each other without gaps'); END",
}

SQLITE_ERRORS = (sqlite3.Error, UnicodeError)  # the second from messages that quote damaged names
_NO_SPACE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_NOT_WRITABLE = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)
_HOT_JOURNAL = (sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY)


def build(path: Path) -> sqlite3.Connection:
    """A connection to a new ledger file with empty tables. Raises sqlite3.Error."""
    return _connection(path, "rwc", _make_tables)


def connect(path: Path, read_only: bool) -> sqlite3.Connection:
    """A connection to an existing ledger.

    Raises LedgerError or LedgerCorrupt if the file is not a sound one.

    A transaction that was cut off is rolled back first, also for a reader: its journal is there for
    that.
    """
    if not os.path.isfile(path):
        raise refusal(LedgerError, "ledger-missing", path=str(path))
    with translated(path):
        try:
            return _connection(path, "ro" if read_only else "rw", _check_identity)
        except sqlite3.OperationalError as error:
            if not read_only or error.sqlite_errorcode not in _HOT_JOURNAL:
                raise
        with closing(_connection(path, "rw", _check_identity)):
            pass
        return _connection(path, "ro", _check_identity)


def copy(path: Path, target: Path) -> None:
    """A whole copy of a ledger as a new file, even where a transaction was cut off.

    Raises LedgerError or ResourceError.
    """
    with (
        translated(path),
        closing(connect(path, read_only=True)) as source,
        closing(sqlite3.connect(target)) as fresh,
    ):
        source.backup(fresh)


def _connection(
    path: Path, mode: str, prepare: Callable[[sqlite3.Connection, Path], None]
) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS)
    try:
        # bytes that are not UTF-8 become surrogates: the row can still be read, named and refused
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        prepare(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    for statement in SCHEMA.values():
        connection.execute(statement)


def _check_identity(connection: sqlite3.Connection, path: Path) -> None:
    found = {
        str(name): sql for name, sql in connection.execute("SELECT name, sql FROM sqlite_master")
    }
    identity: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    other = {"not-a-ledger": identity != APPLICATION_ID, "newer-ledger": version > SCHEMA_VERSION}
    refuse_first(LedgerError, other, path=str(path), version=version, newest=SCHEMA_VERSION)
    if version < 1 or found != SCHEMA:
        wrong = sorted(n for n in found.keys() | SCHEMA.keys() if found.get(n) != SCHEMA.get(n))
        raise refusal(
            LedgerCorrupt, "ledger-altered", path=str(path), tables=[*wrong] or ["version"]
        )


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns SQLite's errors within into ours, naming `path`."""
    try:
        yield
    except SQLITE_ERRORS as error:
        raise meaning(path, error) from error


def meaning(path: Path, error: sqlite3.Error | UnicodeError) -> TequioError:
    """What an error of SQLite means for the user."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _NO_SPACE:
        return refusal(
            ResourceError, "ledger-full", path=str(path), error=str(error), next=go_on(path)
        )
    if code in _NOT_WRITABLE:
        return refusal(
            ResourceError, "ledger-read-only", path=str(path), error=str(error), next=go_on(path)
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return refusal(RunBusy, "ledger-busy", path=str(path), seconds=BUSY_SECONDS)
    if code == sqlite3.SQLITE_NOTADB:
        return refusal(LedgerError, "not-a-ledger", path=str(path))
    if code == sqlite3.SQLITE_CORRUPT or isinstance(error, UnicodeError):
        return refusal(LedgerCorrupt, "ledger-damaged", path=str(path), error=str(error))
    return refusal(LedgerError, "ledger-unusable", path=str(path), error=str(error))
