"""A record is read with SQL: one SELECT, within bounds, while another process writes, and nothing
is ever changed.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ledger_workers import append_for_ever, child

from tequio.core.errors import LedgerError, TequioError
from tequio.ledger import query, store
from tequio.ledger.query import Answer, read_query
from tequio.ledger.record import Ledger, verify

TRAIN = [
    {"name": "north", "rank": 4, "loss_first": 0.9, "bytes_up": 10},
    {"name": "south", "rank": 2},
]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "ledger.sqlite"
    with Ledger.create(path, {"name": "small", "seed": 7}) as made:
        made.append(
            "round",
            {"round": 1, "accepted": True, "train": TRAIN, "energy": {"joules": 2.5}},
            b"state",
        )
        made.append(
            "round",
            {"round": 2, "accepted": False, "train": [], "reason": {"code": "gate", "facts": {}}},
        )
    before = path.read_bytes()
    yield path
    assert path.read_bytes() == before, "a query changed the ledger"
    assert verify(path).ok


def code(path: Path, sql: str, **bounds: float) -> str:
    with pytest.raises(TequioError) as caught:
        read_query(path, sql, **bounds)  # type: ignore[arg-type]
    assert caught.value.reason is not None
    return caught.value.reason.code


def test_rows_and_columns_are_those_of_the_record(ledger: Path) -> None:
    assert read_query(ledger, "SELECT seq, kind FROM record ORDER BY seq") == Answer(
        ("seq", "kind"), [(0, "run"), (1, "round"), (2, "round")]
    )
    assert read_query(
        ledger, "-- a note\n/* another */ WITH a AS (SELECT 1 AS x) SELECT x FROM a;"
    ).rows == [(1,)]
    assert read_query(ledger, "SELECT state_seq FROM head").rows == [(1,)]
    assert read_query(ledger, "SELECT data FROM checkpoint").rows == [(b"state",)]


def test_views_have_a_row_per_round_and_per_update(ledger: Path) -> None:
    rounds = read_query(ledger, "SELECT round, accepted, joules, reason FROM rounds").rows
    assert rounds == [(1, 1, 2.5, None), (2, 0, None, "gate")]
    updates = read_query(
        ledger, "SELECT round, name, rank, loss_first, loss_last, bytes_up FROM updates"
    ).rows
    assert updates == [(1, "north", 4, 0.9, None, 10), (1, "south", 2, None, None, None)]
    assert read_query(ledger, "SELECT * FROM personal_models").rows == []


def test_tables_inside_bodies_are_read(ledger: Path) -> None:
    sql = "SELECT each.value ->> '$.name' FROM record, json_each(body, '$.train') AS each"
    assert read_query(ledger, sql).rows == [("north",), ("south",)]
    sql = "SELECT count(*) FROM record, json_tree(body) AS part WHERE part.key = 'name'"
    assert read_query(ledger, sql).rows == [(3,)]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM record",
        "PRAGMA user_version = 9",
        "ATTACH DATABASE 'other.sqlite' AS other",
        "EXPLAIN SELECT 1",
        "VALUES (1)",
        "",
        "SELECTED",
        "WITH a AS (SELECT 1) INSERT INTO head SELECT 1, 2, 3, 4",
        "WITH a AS (SELECT 1) UPDATE head SET seq = 9",
        "WITH a AS (SELECT 1) DELETE FROM checkpoint",
        "SELECT * FROM pragma_table_info('record')",
        "SELECT load_extension('code')",
    ],
)
def test_what_is_no_reading_is_refused(ledger: Path, sql: str) -> None:
    assert code(ledger, sql) in {"query-not-a-read", "query-wrong"}


def test_the_authorizer_denies_what_the_first_word_does_not_show(ledger: Path) -> None:
    """Each is refused by the authorizer, not by a mistake in the statement."""
    assert code(ledger, "WITH a AS (SELECT 1) DELETE FROM checkpoint") == "query-not-a-read"
    with pytest.raises(LedgerError, match="not authorized to use function: load_extension"):
        read_query(ledger, "SELECT load_extension('code')")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT",
        "SELECT nothing FROM record",
        "SELECT 1; SELECT 2",
        "SELECT json_extract('{', '$')",
        "SELECT '\ud800'",
    ],
)
def test_mistakes_are_named(ledger: Path, sql: str) -> None:
    assert code(ledger, sql) == "query-wrong"


FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"


def test_a_query_ends_after_its_time_and_before_a_writer_gives_up(ledger: Path) -> None:
    assert code(ledger, f"{FOR_EVER} SELECT max(i) FROM n", seconds=0.2) == "query-too-long"
    assert query.SECONDS < store.BUSY_SECONDS


def test_rows_and_values_are_bounded(ledger: Path) -> None:
    assert code(ledger, f"{FOR_EVER} SELECT i FROM n", most=10) == "query-too-many"
    assert len(read_query(ledger, f"{FOR_EVER} SELECT i FROM n LIMIT 10", most=10).rows) == 10
    assert code(ledger, "SELECT zeroblob(200000000)") == "query-wrong"


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE a (b)")
    assert code(other, "SELECT 1") == "not-a-ledger"
    with pytest.raises(LedgerError):
        read_query(tmp_path / "nothing", "SELECT 1")


def test_it_reads_while_another_process_writes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.create(path, {"name": "small"}).close()
    seen = []
    with child(append_for_ever, path, 0.05) as (process, said):
        for _ in range(20):
            said.recv()
            count, last = read_query(path, "SELECT count(*), max(seq) FROM record").rows[0]
            assert count == last + 1
            seen.append(count)
        assert process.is_alive(), "the reader made the writer give up"
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_run_that_cannot_be_written_is_read(ledger: Path) -> None:
    ledger.chmod(0o400)
    ledger.parent.chmod(0o500)
    try:
        assert read_query(ledger, "SELECT count(*) FROM record").rows == [(3,)]
    finally:
        ledger.parent.chmod(0o700)
