"""The ledger's own promises: what it takes, what it gives back, and what it refuses with which
words.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from builders import refused
from tequio.core.errors import LedgerCorrupt, LedgerError, ResourceError, RunBusy
from tequio.ledger import record, store
from tequio.ledger.chain import RECORD_VERSION
from tequio.ledger.record import Ledger, verify


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def test_entries_last_and_checkpoint(path: Path) -> None:
    with Ledger.create(path, {"name": "demo"}) as ledger:
        assert ledger.checkpoint() is None
        assert ledger.last("round") is None
        ledger.append("round", {"round": 1}, b"first")
        second = ledger.append("round", {"round": 2}, b"")
        ledger.append("gate", {"round": 2})
        assert [entry.seq for entry in ledger.entries()] == [0, 1, 2, 3]
        assert [entry.seq for entry in ledger.entries("round")] == [1, 2]
        assert ledger.last("round") == second
        assert ledger.checkpoint() == (second, b"")
    with Ledger.open(path, read_only=True) as again:
        assert again.checkpoint() == (second, b"")


def test_many_records_come_page_by_page_in_order(path: Path) -> None:
    """150 records are more than two pages of 64."""
    with Ledger.create(path, {}) as ledger:
        for number in range(1, 151):
            ledger.append("odd" if number % 2 else "even", {"number": number})
        assert [entry.seq for entry in ledger.entries()] == list(range(151))
        assert [entry.seq for entry in ledger.entries("odd")] == list(range(1, 151, 2))
    assert verify(path).entries == 151


def test_a_checkpoint_larger_than_one_part(path: Path) -> None:
    """Two parts of 16 MB and one byte; then a short one, which must leave no part of the long
    one.
    """
    long = b"x" * (2 * record.PART_BYTES) + b"y"
    with Ledger.create(path, {}) as ledger:
        entry = ledger.append("round", {}, long)
        assert ledger.checkpoint() == (entry, long)
        assert verify(path).ok
        entry = ledger.append("round", {}, b"short")
        assert ledger.checkpoint() == (entry, b"short")
    assert verify(path).ok


def test_the_run_is_one_file_once_closed(path: Path) -> None:
    with Ledger.create(path, {}) as ledger:
        ledger.append("round", {}, b"s" * 100_000)
    assert os.listdir(path.parent) == ["ledger.sqlite"]
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA application_id").fetchone() == (int.from_bytes(b"TEQU", "big"),)
        assert raw.execute("PRAGMA user_version").fetchone() == (1,)
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_the_file_does_not_grow_with_the_number_of_checkpoints(path: Path) -> None:
    """Forty checkpoints of 200 kB: the last one is kept, so the file stays under three of them."""
    with Ledger.create(path, {}) as ledger:
        for number in range(40):
            ledger.append("round", {"number": number}, bytes([number]) * 200_000)
    assert path.stat().st_size < 600_000


def test_a_reader_in_the_middle_does_not_stop_the_writer(path: Path) -> None:
    with Ledger.create(path, {}) as ledger, Ledger.open(path, read_only=True) as reader:
        entries = reader.entries()
        assert next(entries).kind == "run"
        assert ledger.append("round", {}, b"x" * 3_000_000).seq == 1
        assert list(entries) == []
        assert [entry.seq for entry in reader.entries()] == [0, 1]


@pytest.mark.parametrize(
    ("body", "key", "found"),
    [
        ({"loss": float("nan")}, "loss", "nan"),
        ({"scores": {"anna": [0.5, float("inf")]}}, "scores.anna[1]", "inf"),
        ({"scores": [{"a": float("-inf")}]}, "scores[0].a", "-inf"),
        ({"a": {"b": b"bytes"}}, "a.b", "bytes"),
        ({"a": {1: 2}}, "a", "int: …"),
        ({1: 2}, None, "int: …"),
        ({"a": "\ud800"}, "a", "U+D800 – U+DFFF"),
        ({"a": 2**5000}, "a", "int, 5001 bit"),
    ],
)
def test_a_body_that_is_not_json_is_refused_by_kind_and_key(
    path: Path, body: Any, key: str | None, found: str
) -> None:
    with Ledger.create(path, {}) as ledger:
        with refused(LedgerError, "record-not-json", record="round", key=key, found=found):
            ledger.append("round", body)
        assert ledger.append("round", {"loss": 0.5}).seq == 1
    assert verify(path).ok


def test_the_keys_that_the_ledger_fills_are_reserved(path: Path) -> None:
    with Ledger.create(path, {}) as ledger:
        for key in ("state_digest", "record_version"):
            with refused(LedgerError, "record-key-reserved", record="round", key=key):
                ledger.append("round", {key: "x"})


def test_a_body_nested_without_end_is_refused(path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    with (
        Ledger.create(path, {}) as ledger,
        refused(LedgerError, "record-too-deep", record="round"),
    ):
        ledger.append("round", endless)


@pytest.mark.parametrize("kind", ["", "two words", "x" * 65, "\ud800"])
def test_an_odd_kind_is_refused(path: Path, kind: str) -> None:
    with Ledger.create(path, {}) as ledger, refused(LedgerError, "record-kind", record=kind):
        ledger.append(kind, {})


def test_create_never_overwrites(path: Path) -> None:
    Ledger.create(path, {}).close()
    before = path.read_bytes()
    with refused(LedgerError, "ledger-exists", path=str(path)):
        Ledger.create(path, {})
    assert path.read_bytes() == before
    path.unlink()
    path.with_name("ledger.sqlite-journal").write_bytes(b"of a ledger that is gone")
    with refused(LedgerError, "ledger-exists", path=f"{path}-journal"):
        Ledger.create(path, {})


def test_create_leaves_nothing_when_the_body_is_refused(path: Path) -> None:
    with refused(LedgerError, "record-not-json", key="lr", found="nan"):
        Ledger.create(path, {"lr": float("nan")})
    with refused(LedgerError, "ledger-without-folder", path=str(path / "inner")):
        Ledger.create(path / "inner" / "ledger.sqlite", {})
    assert os.listdir(path.parent) == []


def test_create_goes_on_after_an_earlier_one_was_cut_off(path: Path) -> None:
    path.with_name(".ledger.sqlite.new").write_bytes(b"half a file")
    with Ledger.create(path, {"name": "again"}) as ledger:
        assert next(ledger.entries()).body == {"name": "again", "record_version": RECORD_VERSION}
    assert os.listdir(path.parent) == ["ledger.sqlite"]


def test_open_says_what_the_file_is_instead(path: Path) -> None:
    with refused(LedgerError, "ledger-missing", path=str(path)):
        Ledger.open(path)
    path.write_bytes(b"")
    with refused(LedgerError, "not-a-ledger", path=str(path)):
        Ledger.open(path)
    path.write_text("plain text" * 1000)
    with refused(LedgerError, "not-a-ledger", path=str(path)):
        Ledger.open(path)


def test_a_newer_ledger_asks_for_a_newer_tequio(path: Path) -> None:
    Ledger.create(path, {}).close()
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(f"PRAGMA user_version = {store.SCHEMA_VERSION + 1}")
    with refused(LedgerError, "newer-ledger", newest=1, version=2):
        Ledger.open(path)


def test_a_cut_file_is_corrupt(path: Path) -> None:
    Ledger.create(path, {}).close()
    path.write_bytes(path.read_bytes()[:4096])
    with refused(LedgerCorrupt, "ledger-damaged"):
        Ledger.open(path)


def altered(path: Path, change: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        triggers = [
            sql for (sql,) in raw.execute("SELECT sql FROM sqlite_master WHERE type = 'trigger'")
        ]
        for sql in triggers:
            raw.execute(f"DROP TRIGGER {sql.split()[2]}")
        raw.execute(change)
        for sql in triggers:
            raw.execute(sql)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            "UPDATE checkpoint SET data = x'00'",
            "record 1: its checkpoint does not match its digest",
        ),
        ("DELETE FROM checkpoint", "record 1: its checkpoint is missing"),
        ("UPDATE head SET state_seq = 7", "record 7: the record of the checkpoint is missing"),
        ("DELETE FROM record WHERE seq = 2", "record 1: it is not the one written last"),
        ("DELETE FROM head", "record 0: there are no records"),
    ],
)
def test_a_damaged_checkpoint_is_never_handed_out(path: Path, change: str, named: str) -> None:
    with Ledger.create(path, {}) as ledger:
        ledger.append("round", {}, b"state")
        ledger.append("round", {})
    altered(path, change)
    with Ledger.open(path) as ledger, pytest.raises(LedgerCorrupt) as caught:
        ledger.checkpoint()
    assert named in str(caught.value)


def test_nothing_is_built_upon_a_damaged_record(path: Path) -> None:
    with Ledger.create(path, {}) as ledger:
        ledger.append("round", {"loss": 1.0})
    altered(path, """UPDATE record SET body = '{"loss":0.1}' WHERE seq = 1""")
    wrong = "record 1: the content does not match its hash"
    with Ledger.open(path) as ledger:
        for use in (
            lambda: ledger.append("round", {}),
            lambda: ledger.last("round"),
            lambda: list(ledger.entries()),
        ):
            with pytest.raises(LedgerCorrupt, match=wrong):
                use()


def test_a_read_only_ledger_cannot_be_appended_to(path: Path) -> None:
    Ledger.create(path, {}).close()
    with Ledger.open(path, read_only=True) as ledger, pytest.raises(ResourceError) as caught:
        ledger.append("round", {})
    assert str(path) in str(caught.value)
    assert f"Make it writable, then continue with `tequio run --resume {path.parent}`." in str(
        caught.value
    )
    assert verify(path).entries == 1


def test_a_closed_ledger_is_an_error_of_ours(path: Path) -> None:
    ledger = Ledger.create(path, {})
    ledger.close()
    ledger.close()
    with refused(LedgerError, "ledger-unusable"):
        ledger.append("round", {})


def test_a_file_that_another_holds_is_busy(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BUSY_SECONDS", 0.05)
    Ledger.create(path, {}).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other, Ledger.open(path) as ledger:
        other.execute("BEGIN EXCLUSIVE")
        with refused(RunBusy, "ledger-busy"):
            ledger.append("round", {})
        other.execute("ROLLBACK")
        assert ledger.append("round", {}).seq == 1


def test_an_odd_path_is_only_a_path(tmp_path: Path) -> None:
    path = tmp_path / "50% off?mode=memory#x ñ" / "ledger.sqlite"
    path.parent.mkdir()
    Ledger.create(path, {}).close()
    assert verify(path).ok
