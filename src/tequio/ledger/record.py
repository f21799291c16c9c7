"""The ledger of a run: append a record, read records back, keep the last checkpoint, verify the
whole chain.

A record and its checkpoint are one transaction: after kill -9 or a full disk both are there, or
neither is. A chain shows damage and edits; only a copy of the head hash kept elsewhere shows a
history rewritten whole.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from tequio.core.canonical import canonical_json, digest
from tequio.core.errors import LedgerCorrupt, LedgerError, TequioError
from tequio.core.texts.words import refusal
from tequio.ledger.chain import (
    RECORD_VERSION,
    STATE_DIGEST,
    ZEROS,
    Entry,
    link,
    plain_body,
    read_row,
    version_of,
)
from tequio.ledger.folder import replace_durably, written
from tequio.ledger.store import SQLITE_ERRORS, build, connect, meaning, translated

PART_BYTES = (
    2**20
    # SQLite copies a value twice on its way in, and holds at most 1 GB in one; a checkpoint may be
    # larger
)
PAGE_ROWS = 64  # rows read at once: no lock is held while the caller works on them
COLUMNS = "SELECT seq, kind, body, previous, hash FROM record"
READ_ERRORS = (TequioError, *SQLITE_ERRORS, OSError, MemoryError)


class Ledger:
    """An open ledger: one connection, to be used from one thread.

    A context manager that closes it.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path, run_body: Mapping[str, Any]) -> Ledger:
        """A new ledger with entry 0 of kind "run". It appears whole or not at all.

        Raises LedgerError if `path` exists or `run_body` is not JSON, ResourceError if it cannot be
        written.
        """
        _refuse_existing(path)
        body = plain_body("run", run_body)
        fresh = path.with_name(f".{path.name}.new")
        try:
            for leftover in (fresh, fresh.with_name(f"{fresh.name}-journal")):
                with written(leftover):
                    leftover.unlink(missing_ok=True)
            with translated(path), closing(build(fresh)) as connection, _transaction(connection):
                _insert(connection, link(0, "run", body, ZEROS), None)
            replace_durably(fresh, path)
        except BaseException:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, read_only: bool = False) -> Ledger:
        """An existing ledger; `verify` is what checks its chain.

        Raises LedgerError if it is missing, another kind of file or of a newer version;
        LedgerCorrupt if it is damaged or its tables were altered.
        """
        return cls(path, connect(path, read_only))

    def append(self, kind: str, body: Mapping[str, Any], state: bytes | None = None) -> Entry:
        """One transaction: the record and, if `state` is given, the new checkpoint in place of the
        last one.

        The SHA-256 of `state` is added to the body as `state_digest`. Raises LedgerError on a body
        that is no JSON, LedgerCorrupt if the last record is damaged, ResourceError if the disk is
        full or read-only, RunBusy if another process holds the file. After an error the ledger is
        as it was before the call.
        """
        plain = plain_body(kind, body)
        if state is not None:
            plain[STATE_DIGEST] = digest(state)
        with translated(self.path), _transaction(self._connection):
            head, state_seq = self._head()
            entry = link(head.seq + 1, kind, plain, head.hash)
            _insert(self._connection, entry, state_seq if state is None else entry.seq)
            if state is not None:
                _replace_checkpoint(self._connection, state)
        return entry

    def entries(self, kind: str | None = None, after: int = -1) -> Iterator[Entry]:
        """All entries after number `after` in order, or those of one kind, a page at a time.

        Raises LedgerCorrupt at a bad one.
        """
        seen = after
        while True:
            query = f"{COLUMNS} WHERE seq > ?1 AND (?2 IS NULL OR kind = ?2) ORDER BY seq LIMIT ?3"
            with translated(self.path):
                rows = self._connection.execute(query, (seen, kind, PAGE_ROWS)).fetchall()
            for row in rows:
                yield self._checked(row)
            if len(rows) < PAGE_ROWS:
                return
            seen = rows[-1][0]

    def last(self, kind: str) -> Entry | None:
        """The newest entry of a kind, or None.

        Raises LedgerCorrupt if it does not match its hash.
        """
        query = f"{COLUMNS} WHERE kind = ? ORDER BY seq DESC LIMIT 1"
        with translated(self.path):
            row = self._connection.execute(query, (kind,)).fetchone()
        return None if row is None else self._checked(row)

    def checkpoint(self) -> tuple[Entry, bytes] | None:
        """The last checkpoint and the entry it was written with; None if there never was one.

        Raises LedgerCorrupt if its bytes are gone or do not match the digest in that entry.
        """
        with translated(self.path), _transaction(self._connection, "DEFERRED"):
            _, state_seq = self._head()
            if state_seq is None:
                return None
            row = self._connection.execute(f"{COLUMNS} WHERE seq = ?", (state_seq,)).fetchone()
            parts = self._connection.execute("SELECT data FROM checkpoint ORDER BY part").fetchall()
        if row is None:
            raise self._corrupt(state_seq, "the record of the checkpoint is missing")
        entry = self._checked(row)
        if not parts or not all(isinstance(part, bytes) for (part,) in parts):
            raise self._corrupt(state_seq, "its checkpoint is missing")
        state = b"".join(part for (part,) in parts)
        if digest(state) != entry.body.get(STATE_DIGEST):
            raise self._corrupt(state_seq, "its checkpoint does not match its digest")
        return entry, state

    def close(self) -> None:
        """Close the file. Closing twice does nothing."""
        self._connection.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _head(self) -> tuple[Entry, int | None]:
        row = self._connection.execute(f"{COLUMNS} ORDER BY seq DESC LIMIT 1").fetchone()
        head = self._connection.execute("SELECT seq, hash, state_seq FROM head").fetchone()
        if row is None or head is None:
            raise self._corrupt(0, "there are no records")
        entry = self._checked(row)
        if head[:2] != (entry.seq, entry.hash):
            raise self._corrupt(entry.seq, "it is not the one written last")
        return entry, head[2]

    def _checked(self, row: tuple[Any, ...]) -> Entry:
        try:
            entry, wrong = read_row(row)
        except ValueError as error:
            raise self._corrupt(row[0], str(error)) from None
        if wrong:
            raise self._corrupt(row[0], wrong)
        if (version := version_of(entry.body)) > RECORD_VERSION:
            facts = {
                "path": str(self.path),
                "record": row[0],
                "version": version,
                "newest": RECORD_VERSION,
            }
            raise refusal(LedgerError, "newer-record", **facts)
        return entry

    def _corrupt(self, seq: int, wrong: str) -> LedgerCorrupt:
        return refusal(LedgerCorrupt, "record-damaged", path=str(self.path), record=seq, why=wrong)


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a ledger;

    `seq` is the record it concerns, None when it is the file as a whole.
    """

    seq: int | None
    what: str


@dataclass(frozen=True)
class Verification:
    """What `verify` found: how many entries were read, the hash of the last one, and every
    problem.
    """

    entries: int
    head: str
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """True only if nothing at all was wrong."""
        return not self.problems


def verify(path: Path) -> Verification:
    """Read the whole ledger, recompute every hash.

    Never raises for a bad file: each doubt is a problem.
    """
    scan = _Scan()
    problems: list[Problem] = []
    try:
        with closing(connect(path, read_only=True)) as connection:
            connection.execute("BEGIN")
            for found in (_sqlite_problems, scan.chain, scan.end, scan.checkpoint):
                problems.extend(_until_error(path, found(connection)))
    except READ_ERRORS as error:
        problems.append(Problem(None, str(_named(path, error))))
    return Verification(scan.entries, scan.head, tuple(problems))


class _Scan:
    """The state of one pass over a ledger."""

    def __init__(self) -> None:
        self.entries = 0
        self.seq = -1
        self.head = ZEROS
        self.bad: set[int] = set()
        self.accepted = {
            ZEROS
        }  # hashes the next record may name: the stored and the recomputed one
        self.state_known = True
        self.state: tuple[int, Any] | None = (
            None  # the last record with a state digest, and that digest
        )

    def chain(self, connection: sqlite3.Connection) -> Iterator[Problem]:
        for row in connection.execute(f"{COLUMNS} ORDER BY seq"):
            seq = row[0]
            if seq != self.seq + 1:
                lost = f"{self.seq + 1}" if seq == self.seq + 2 else f"{self.seq + 1} to {seq - 1}"
                yield Problem(self.seq + 1, f"record {lost} is missing")
            elif row[3] not in self.accepted:
                yield Problem(seq, "it does not follow the record before it")
            self.entries, self.seq, self.head = self.entries + 1, seq, ascii(row[4])[1:-1]
            self.accepted = {row[4]}
            try:
                entry, wrong = read_row(row)
            except ValueError as error:
                self.bad.add(seq)
                yield Problem(seq, str(error))
                continue
            if seq == 0 and entry.kind != "run":
                yield Problem(0, "the first record is not of kind run")
            if wrong:
                self.bad.add(seq)
                yield Problem(seq, wrong)
            self.accepted.add(link(seq, entry.kind, entry.body, entry.previous).hash)
            if STATE_DIGEST in entry.body:
                self.state = (seq, entry.body[STATE_DIGEST])

    def end(self, connection: sqlite3.Connection) -> Iterator[Problem]:
        heads = connection.execute("SELECT seq, hash, state_seq FROM head").fetchall()
        if len(heads) != 1:
            yield Problem(None, "the note of the last record is missing")
            return
        seq, head, state_seq = heads[0]
        if seq != self.seq:
            yield Problem(
                self.seq + 1,
                f"it is missing: the chain has {self.entries} records, and {seq} was the last",
            )
        elif head != self.head:
            yield Problem(seq, "its hash is not the one noted for the last record")
        if state_seq in self.bad:
            self.state_known = False  # that record is named already; its digest says nothing
        elif state_seq != (self.state[0] if self.state else None):
            yield Problem(
                self.state[0] if self.state else None, f"the checkpoint is of record {state_seq}"
            )

    def checkpoint(self, connection: sqlite3.Connection) -> Iterator[Problem]:
        sha, parts = hashlib.sha256(), 0
        for (data,) in connection.execute("SELECT data FROM checkpoint ORDER BY part"):
            if not isinstance(data, bytes):
                yield Problem(
                    self.state[0] if self.state else None, "its checkpoint does not hold bytes"
                )
                return
            sha.update(data)
            parts += 1
        if not self.state_known:
            return
        if self.state is None:
            if parts:
                yield Problem(None, "there is a checkpoint that no record names")
        elif not parts or sha.hexdigest() != self.state[1]:
            yield Problem(self.state[0], "its checkpoint is missing or does not match its digest")


def _sqlite_problems(connection: sqlite3.Connection) -> Iterator[Problem]:
    for (line,) in connection.execute("PRAGMA integrity_check(5)"):
        if line != "ok":
            yield Problem(None, f"SQLite: {line}")


def _until_error(path: Path, found: Iterator[Problem]) -> Iterator[Problem]:
    """The problems found; an error while looking for them is one more, and the last."""
    try:
        yield from found
    except READ_ERRORS as error:
        yield Problem(None, str(_named(path, error)))


def _named(path: Path, error: BaseException) -> BaseException:
    if isinstance(error, SQLITE_ERRORS):
        return meaning(path, error)
    if isinstance(error, TequioError):
        return error
    return refusal(LedgerCorrupt, "path-unreadable", path=str(path), error=repr(error))


def _refuse_existing(path: Path) -> None:
    if not path.parent.is_dir():
        raise refusal(LedgerError, "ledger-without-folder", path=str(path.parent))
    for taken in (path, path.with_name(f"{path.name}-journal"), path.with_name(f"{path.name}-wal")):
        if taken.exists() or taken.is_symlink():
            raise refusal(LedgerError, "ledger-exists", path=str(taken))


@contextmanager
def _transaction(connection: sqlite3.Connection, mode: str = "IMMEDIATE") -> Iterator[None]:
    connection.execute(f"BEGIN {mode}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(
            sqlite3.Error
        ):  # if this fails too, the journal undoes it at the next opening
            connection.execute("ROLLBACK")
        raise


def _insert(connection: sqlite3.Connection, entry: Entry, state_seq: int | None) -> None:
    row = (
        entry.seq,
        entry.kind,
        canonical_json(entry.body).decode("utf-8"),
        entry.previous,
        entry.hash,
    )
    connection.execute(
        "INSERT INTO record (seq, kind, body, previous, hash) VALUES (?, ?, ?, ?, ?)", row
    )
    head = (entry.seq, entry.hash, state_seq)
    connection.execute(
        "INSERT OR REPLACE INTO head (id, seq, hash, state_seq) VALUES (0, ?, ?, ?)", head
    )


def _replace_checkpoint(connection: sqlite3.Connection, state: bytes) -> None:
    connection.execute("DELETE FROM checkpoint")
    view = memoryview(state)
    for part in range(max(1, -(-len(view) // PART_BYTES))):
        data = view[part * PART_BYTES : (part + 1) * PART_BYTES]
        connection.execute("INSERT INTO checkpoint (part, data) VALUES (?, ?)", (part, data))
