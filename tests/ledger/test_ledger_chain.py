"""The chain law: what was appended verifies; any change of it is found, and named by its record."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tequio.core.errors import TequioError
from tequio.ledger.chain import RECORD_VERSION
from tequio.ledger.record import Ledger, Verification, verify

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.text().filter(lambda key: key != "state_digest")
bodies = st.dictionaries(keys, json_values, max_size=4)

ROUNDS = 6  # records 1 to 6 follow record 0; 3 and 5 carry a checkpoint


@pytest.fixture(scope="module")
def whole() -> Iterator[Path]:
    """One sound ledger of seven records, which the tests copy."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        with Ledger.create(path, {"name": "España", "seed": 7}) as ledger:
            for number in range(1, ROUNDS + 1):
                body = {
                    "loss": 1.5 / number,
                    "cohort": [f"p{number}", "centre"],
                    "accepted": number != 4,
                }
                state = bytes([number]) * 5000 if number in (3, 5) else None
                ledger.append("round" if number != 4 else "gate", body, state)
        yield path


@pytest.fixture
def spot() -> Iterator[Path]:
    """Where a test puts its ledger (in a folder of its own, also for hypothesis)."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "ledger.sqlite"


def content(path: Path) -> tuple[Any, Any]:
    with Ledger.open(path, read_only=True) as ledger:
        return list(ledger.entries()), ledger.checkpoint()


def tampered(
    whole: Path, path: Path, change: Callable[[sqlite3.Connection], object]
) -> Verification:
    """Change a copy with the triggers out of the way, put them back, and verify."""
    shutil.copy(whole, path)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        triggers = raw.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall()
        for name, _ in triggers:
            raw.execute(f"DROP TRIGGER {name}")
        change(raw)
        for _, sql in triggers:
            raw.execute(sql)
    return verify(path)


def seqs(verification: Verification) -> set[int | None]:
    return {problem.seq for problem in verification.problems}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(bodies, st.none() | st.binary(max_size=200)), max_size=5))
def test_any_sequence_of_bodies_verifies_and_comes_back(
    written: list[tuple[Any, bytes | None]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        with Ledger.create(path, {"seed": 1}) as ledger:
            appended = [ledger.append("round", body, state) for body, state in written]
        found = verify(path)
        assert found.problems == ()
        assert found.entries == len(written) + 1
        entries, checkpoint = content(path)
        assert found.head == entries[-1].hash
        assert entries[1:] == appended
        for entry, (body, state) in zip(entries[1:], written, strict=True):
            extra = {} if state is None else {"state_digest": hashlib.sha256(state).hexdigest()}
            assert entry.body == body | extra | {"record_version": RECORD_VERSION}
        last = next(
            (
                pair
                for pair in reversed(list(zip(appended, written, strict=True)))
                if pair[1][1] is not None
            ),
            None,
        )
        assert checkpoint == (None if last is None else (last[0], last[1][1]))


def test_the_hash_is_the_published_formula(spot: Path) -> None:
    """Recomputed here with json and hashlib alone: keys sorted, no spaces, UTF-8."""
    with Ledger.create(spot, {"name": "Oaxaca ñ", "rank": 8}) as ledger:
        first = next(ledger.entries())
        second = ledger.append("round", {"loss": 0.5})
    zeros = "0" * 64
    text = (
        '{"body":{"name":"Oaxaca ñ","rank":8,"record_version":2},"kind":"run","previous":"'
        + zeros
        + '","seq":0}'
    )
    assert first.previous == zeros
    assert first.hash == hashlib.sha256(text.encode()).hexdigest()
    text = (
        '{"body":{"loss":0.5,"record_version":2},"kind":"round","previous":"'
        + first.hash
        + '","seq":1}'
    )
    assert second.hash == hashlib.sha256(text.encode()).hexdigest()


@settings(max_examples=100, deadline=None)
@given(
    seq=st.integers(0, ROUNDS),
    column=st.sampled_from(["kind", "body", "previous", "hash"]),
    place=st.integers(0, 10_000),
    mask=st.integers(1, 255),
)
@example(seq=2, column="body", place=8, mask=0x20)
@example(seq=ROUNDS, column="hash", place=0, mask=1)
@example(seq=0, column="previous", place=63, mask=0x80)
def test_one_flipped_byte_is_found_and_named(
    whole: Path, seq: int, column: str, place: int, mask: int
) -> None:
    def flip(raw: sqlite3.Connection) -> None:
        query = f"SELECT CAST({column} AS BLOB) FROM record WHERE seq = ?"
        data = bytearray(raw.execute(query, (seq,)).fetchone()[0])
        data[place % len(data)] ^= mask
        raw.execute(
            f"UPDATE record SET {column} = CAST(? AS TEXT) WHERE seq = ?", (bytes(data), seq)
        )

    with tempfile.TemporaryDirectory() as folder:
        assert seqs(tampered(whole, Path(folder) / "l", flip)) == {seq}


@pytest.mark.parametrize("column", ["kind", "body", "previous", "hash"])
def test_text_turned_into_a_blob_is_found(whole: Path, spot: Path, column: str) -> None:
    """The same bytes with another type would no longer match `kind = ?`."""
    change = f"UPDATE record SET {column} = CAST({column} AS BLOB) WHERE seq = 2"
    assert 2 in seqs(tampered(whole, spot, lambda raw: raw.execute(change)))


@pytest.mark.parametrize("disguise", ["'{\"loss\":0,' || substr(body, 2)", "' ' || body"])
def test_a_body_written_another_way_is_found(whole: Path, spot: Path, disguise: str) -> None:
    """JSON reads both as the old value (of two equal keys the last counts), so the hash alone would
    agree.
    """
    found = tampered(
        whole, spot, lambda raw: raw.execute(f"UPDATE record SET body = {disguise} WHERE seq = 2")
    )
    assert [(problem.seq, problem.what) for problem in found.problems] == [
        (2, "it is not canonical JSON")
    ]


@pytest.mark.parametrize("gone", range(ROUNDS + 1))
def test_a_deleted_record_is_named(whole: Path, spot: Path, gone: int) -> None:
    found = tampered(
        whole, spot, lambda raw: raw.execute("DELETE FROM record WHERE seq = ?", (gone,))
    )
    assert gone in seqs(found)
    assert found.entries == ROUNDS


def test_a_deleted_record_with_the_rest_moved_up_is_found(whole: Path, spot: Path) -> None:
    def close_gap(raw: sqlite3.Connection) -> None:
        raw.execute("DELETE FROM record WHERE seq = 2")
        for seq in range(3, ROUNDS + 1):
            raw.execute("UPDATE record SET seq = ? WHERE seq = ?", (seq - 1, seq))

    found = tampered(whole, spot, close_gap)
    assert {2, 3, 4, 5} <= seqs(found)


def test_two_records_exchanged_are_both_named(whole: Path, spot: Path) -> None:
    def exchange(raw: sqlite3.Connection) -> None:
        for old, new in ((1, 100), (2, 1), (100, 2)):
            raw.execute("UPDATE record SET seq = ? WHERE seq = ?", (new, old))

    assert {1, 2} <= seqs(tampered(whole, spot, exchange))


def test_a_record_forged_with_a_right_hash_breaks_the_link_after_it(
    whole: Path, spot: Path
) -> None:
    def forge(raw: sqlite3.Connection) -> None:
        kind, previous = raw.execute("SELECT kind, previous FROM record WHERE seq = 2").fetchone()
        sealed = {"body": {"loss": 0.0}, "kind": kind, "previous": previous, "seq": 2}
        text = json.dumps(sealed, sort_keys=True, separators=(",", ":"))
        row = ('{"loss":0.0}', hashlib.sha256(text.encode()).hexdigest())
        raw.execute("UPDATE record SET body = ?, hash = ? WHERE seq = 2", row)

    assert seqs(tampered(whole, spot, forge)) == {3}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE checkpoint SET data = zeroblob(5000)", 5),
        ("UPDATE checkpoint SET data = CAST(data AS TEXT)", 5),
        ("DELETE FROM checkpoint", 5),
        ("INSERT INTO checkpoint VALUES (1, x'00')", 5),
        ("UPDATE head SET state_seq = 3", 5),
        ("UPDATE head SET state_seq = NULL", 5),
        ("UPDATE head SET hash = 'x'", ROUNDS),
        ("UPDATE head SET seq = 9", ROUNDS + 1),
        ("DELETE FROM head", None),
        ("DELETE FROM record", 0),
    ],
)
def test_a_changed_checkpoint_or_head_is_found(
    whole: Path, spot: Path, change: str, named: int | None
) -> None:
    """Record 5 wrote the last checkpoint of the ledger; record 6 is the last."""
    assert named in seqs(tampered(whole, spot, lambda raw: raw.execute(change)))


def test_lost_triggers_are_found(whole: Path, spot: Path) -> None:
    shutil.copy(whole, spot)
    with closing(sqlite3.connect(spot)) as raw:
        raw.execute("DROP TRIGGER record_no_update")
    (problem,) = verify(spot).problems
    assert problem.seq is None
    assert "record_no_update" in problem.what


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE record SET kind = 'x' WHERE seq = 1",
        "DELETE FROM record WHERE seq = 6",
        "INSERT OR REPLACE INTO record VALUES (3, 'x', '{}', 'x', 'x')",
        "INSERT INTO record VALUES (9, 'x', '{}', 'x', 'x')",
    ],
)
def test_the_file_itself_refuses_to_change_records(whole: Path, spot: Path, change: str) -> None:
    shutil.copy(whole, spot)
    with (
        closing(sqlite3.connect(spot)) as raw,
        pytest.raises(sqlite3.IntegrityError, match="record"),
    ):
        raw.execute(change)
    assert verify(spot).ok


def read_or_refused(path: Path, expected: tuple[Any, Any], damaged: Verification) -> None:
    """Sound means unchanged; and reading a damaged file ends in our own errors only."""
    try:
        found = content(path)
    except TequioError:
        assert not damaged.ok
    else:
        assert not damaged.ok or found == expected


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 40_000))
@example(length=0)
@example(length=100)
@example(length=4096)
def test_a_file_cut_short_is_never_sound(whole: Path, length: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        expected = content(whole)
        data = whole.read_bytes()
        path.write_bytes(data[: length % len(data)])
        found = verify(path)
        assert not found.ok
        read_or_refused(path, expected, found)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 119) | st.integers(0, 40_000), st.binary(min_size=1, max_size=40)),
        min_size=1,
        max_size=3,
    )
)
def test_overwritten_bytes_never_give_another_content(
    whole: Path, patches: list[tuple[int, bytes]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        expected = content(whole)
        data = bytearray(whole.read_bytes())
        size = len(data)
        for place, patch in patches:
            place %= size
            data[place : place + len(patch)] = patch
        path.write_bytes(data[:size])
        read_or_refused(path, expected, verify(path))


def test_what_is_no_ledger_is_a_problem(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("not a database, but long enough to look like one " * 100)
    for path in (other, tmp_path / "nothing", tmp_path):
        (problem,) = verify(path).problems
        assert problem.seq is None
        assert str(path) in problem.what
