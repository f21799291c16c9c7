"""Read a run's record with SQL: one SELECT, read-only, within bounds of time and rows.

The run's own process may write meanwhile: it waits for a reader at most `BUSY_SECONDS`, so a query
ends sooner. Three views beside the tables hold what is asked for most; they exist only while a
query runs, never in the file.
"""

import re
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tequio.core.bounds import one_line
from tequio.core.errors import LedgerError, TequioError
from tequio.core.texts.words import refusal
from tequio.ledger.store import connect, meaning

SECONDS = 3.0
"""Of a query; less than BUSY_SECONDS of the store, so that no query makes the run's own process
give up.
"""
MOST_ROWS = 100_000
LONGEST_VALUE = 64 << 20  # bytes of one value that a query makes
STEPS = 2000  # of SQLite's machine, between two looks at the clock

VIEWS = {
    "rounds": "SELECT seq, body ->> '$.round' AS round, body ->> '$.accepted' AS accepted,"
    " body ->> '$.mean_validation_loss' AS mean_validation_loss, body ->> '$.seconds' AS seconds,"
    " body ->> '$.energy.joules' AS joules, body ->> '$.reason.code' AS reason"
    " FROM main.record WHERE kind = 'round'",
    "updates": "SELECT record.seq, record.body ->> '$.round' AS round, row.value ->> '$.name' AS "
    "name, row.value ->> '$.rank' AS rank, row.value ->> '$.steps' AS steps, row.value ->> "
    "'$.tokens' AS tokens, row.value ->> '$.examples' AS examples, row.value ->> "
    "'$.loss_first' AS loss_first, row.value ->> '$.loss_last' AS loss_last, row.value ->> "
    "'$.norm' AS norm, row.value ->> '$.weight' AS weight, row.value ->> '$.bytes_up' AS "
    "bytes_up, row.value ->> '$.bytes_down' AS bytes_down, row.value ->> '$.seconds' AS "
    "seconds, row.value ->> '$.joules' AS joules FROM main.record AS record, "
    "json_each(record.body, '$.train') AS row WHERE record.kind = 'round'",
    "personal_models": "SELECT seq, body ->> '$.name' AS name, body ->> '$.chosen' AS chosen,"
    " body ->> '$.test.local.loss' AS local_loss, body ->> '$.test.shared.loss' AS shared_loss,"
    " body ->> '$.test.personal.loss' AS personal_loss,"
    " body ->> '$.gains.personal_over_local.loss.mean' AS gain,"
    " body ->> '$.gains.personal_over_local.loss.low' AS gain_low,"
    " body ->> '$.gains.personal_over_local.loss.high' AS gain_high"
    " FROM main.record WHERE kind = 'personal'",
}

_SPACE = r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)*"
_READS = re.compile(rf"{_SPACE}(?:select|with)\b", re.IGNORECASE | re.DOTALL)
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE)
_OF_THE_FILE = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
)


@dataclass(frozen=True)
class Answer:
    """The names of the columns, and the rows: texts, numbers, bytes and None."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def read_query(path: Path, sql: str, seconds: float = SECONDS, most: int = MOST_ROWS) -> Answer:
    """Answer one SELECT (or WITH … SELECT) over a ledger.

    Args:
        path: the ledger's file.
        sql: one statement, over the tables `record`, `head` and `checkpoint` and the views of
            `VIEWS`.
        seconds: how long it may take.
        most: how many rows it may give.

    Raises:
        LedgerError: with the code query-not-a-read, query-wrong, query-too-long or query-too-many.
    """
    if not _READS.match(sql):
        raise refusal(LedgerError, "query-not-a-read")
    with closing(connect(path, read_only=True)) as connection:
        _confine(connection, seconds)
        try:
            found = connection.execute(sql)
            rows = found.fetchmany(most + 1)
        except (sqlite3.Error, sqlite3.Warning, UnicodeError) as error:
            raise _refused(path, error, seconds) from None
        if len(rows) > most:
            raise refusal(LedgerError, "query-too-many", most=most)
        return Answer(tuple(str(column[0]) for column in found.description), rows)


def _confine(connection: sqlite3.Connection, seconds: float) -> None:
    """Make the views, then leave to this connection nothing but reading, for so many seconds."""
    connection.execute("PRAGMA temp_store = MEMORY")
    for name, sql in VIEWS.items():
        connection.execute(f"CREATE TEMP VIEW {name} AS {sql}")
    for function in (
        "json_each",
        "json_tree",
    ):  # declared at their first use, which the authorizer would deny
        connection.execute(f"SELECT 1 FROM {function}('[]')")
    connection.execute("PRAGMA query_only = ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: time.monotonic() > end, STEPS)
    connection.set_authorizer(_authorize)


def _authorize(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    """Allow what reads, and functions other than the one that loads code."""
    reads = action in _ALLOWED or (action == sqlite3.SQLITE_FUNCTION and second != "load_extension")
    return sqlite3.SQLITE_OK if reads else sqlite3.SQLITE_DENY


def _refused(
    path: Path, error: sqlite3.Error | sqlite3.Warning | UnicodeError, seconds: float
) -> TequioError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if isinstance(error, sqlite3.Error) and code in _OF_THE_FILE:
        return meaning(path, error)
    if code == sqlite3.SQLITE_INTERRUPT:
        return refusal(LedgerError, "query-too-long", seconds=seconds)
    if code == sqlite3.SQLITE_AUTH:
        return refusal(LedgerError, "query-not-a-read")
    return refusal(LedgerError, "query-wrong", error=one_line(str(error))[:300])
