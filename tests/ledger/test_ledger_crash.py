"""kill -9, a full disk and a read-only folder: what was committed stays, and the file verifies."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ledger_workers import (
    MEGABYTE,
    append_for_ever,
    append_until_full,
    child,
    received,
    state_of,
    use_read_only,
)

from builders import refused
from tequio.core.errors import ResourceError
from tequio.ledger.record import Ledger, verify


def test_kill_9_at_ten_random_moments(tmp_path: Path) -> None:
    """One ledger, ten writers in turn; each is killed while it appends checkpoints of 1 MB."""
    path = tmp_path / "ledger.sqlite"
    Ledger.create(path, {"name": "kill"}).close()
    moments = random.Random(20240917)
    committed = 0
    for _ in range(10):
        with child(append_for_ever, path) as (process, connection):
            assert connection.poll(60)
            time.sleep(moments.uniform(0.0, 0.12))
            process.kill()
            process.join()
            committed = max([committed, *received(connection)])
        found = verify(path)
        assert found.problems == ()
        assert (
            committed + 1 <= found.entries <= committed + 2
        )  # at most one was committed and not yet said
        with Ledger.open(path) as ledger:
            rounds = list(ledger.entries("round"))
            assert [entry.body["number"] for entry in rounds] == list(range(1, len(rounds) + 1))
            newest = next(entry for entry in reversed(rounds) if entry.body["number"] % 2)
            assert ledger.checkpoint() == (newest, state_of(newest.body["number"]))
    assert committed >= 10


@pytest.fixture
def cut_off(tmp_path: Path) -> Path:
    """A ledger as a crash leaves it: half of a transaction in the file, the way back in the
    journal.
    """
    live = tmp_path / "live"
    live.mkdir()
    with Ledger.create(live / "ledger.sqlite", {}) as ledger:
        ledger.append("round", {}, b"a" * 500_000)
    with closing(sqlite3.connect(live / "ledger.sqlite", isolation_level=None)) as raw:
        raw.execute("PRAGMA cache_size = 5")
        raw.execute("BEGIN IMMEDIATE")
        raw.execute("UPDATE checkpoint SET data = zeroblob(500000)")
        shutil.copytree(live, tmp_path / "crashed")
    crashed = tmp_path / "crashed" / "ledger.sqlite"
    assert crashed.with_name("ledger.sqlite-journal").stat().st_size > 100_000
    assert b"a" * 100_000 not in crashed.read_bytes()
    return crashed


@pytest.mark.parametrize("how", ["verify", "reader", "writer"])
def test_half_a_transaction_is_undone_by_whoever_comes_first(cut_off: Path, how: str) -> None:
    if how == "verify":
        assert verify(cut_off).problems == ()
    with Ledger.open(cut_off, read_only=how == "reader") as ledger:
        found = ledger.checkpoint()
    assert found is not None
    assert found[1] == b"a" * 500_000
    assert not cut_off.with_name("ledger.sqlite-journal").exists()
    assert verify(cut_off).entries == 2


def test_a_full_disk_loses_only_what_was_not_committed(tmp_path: Path) -> None:
    """Checkpoints of 1, 2, 3...

    MB under a real limit of 6 MB a file; later, with room, the run goes on.
    """
    path = tmp_path / "ledger.sqlite"
    Ledger.create(path, {}).close()
    with child(append_until_full, path) as (process, connection):
        assert connection.poll(60)
        committed, error = connection.recv()
        process.join()
    assert 1 <= committed <= 5
    assert error["error"] == "ResourceError"
    assert str(path) in error["what"]
    assert error["fix"] == f"Free space, then continue with `tequio run --resume {tmp_path}`."
    found = verify(path)
    assert found.problems == ()
    assert found.entries == committed + 1
    with Ledger.open(path) as ledger:
        checkpoint = ledger.checkpoint()
        assert checkpoint is not None
        assert checkpoint[1] == state_of(committed, committed * MEGABYTE)
        assert ledger.append("round", {}, state_of(9, 9 * MEGABYTE)).seq == committed + 1
    assert verify(path).ok


def test_sqlite_saying_that_the_disk_is_full(tmp_path: Path) -> None:
    """SQLite's words on a real ENOSPC, called forth by its limit of pages; the same connection goes
    on.
    """
    path = tmp_path / "ledger.sqlite"
    with Ledger.create(path, {}) as ledger:
        ledger.append("round", {}, b"a" * 100_000)
        ledger._connection.execute("PRAGMA max_page_count = 60")
        with refused(ResourceError, "ledger-full", error="database or disk is full") as caught:
            ledger.append("round", {}, b"b" * 400_000)
        assert "Free space" in caught.value.fix
        assert verify(path).entries == 2
        assert ledger.append("round", {}, b"c" * 100_000).seq == 2
    assert verify(path).ok


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every account may reach: pytest's own is private to the one running the
    tests.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


def test_a_read_only_folder(open_folder: Path) -> None:
    path = open_folder / "ledger.sqlite"
    Ledger.create(path, {}).close()
    path.chmod(0o444)
    open_folder.chmod(0o555)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with child(use_read_only, open_folder) as (process, connection):
        process.join(60)
        said = received(connection)
    if isinstance(said[0], str):
        pytest.skip(said[0])
    results = dict(said)
    assert set(results) == {"append", "create", "write", "lock", "mkdir", "read"}
    assert results.pop("read") == ["run"]
    for error in results.values():
        assert error["error"] == "ResourceError"
        assert str(open_folder) in error["what"]
        assert (
            error["fix"]
            == f"Make it writable, then continue with `tequio run --resume {open_folder}`."
        )
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
