"""The queries that docs/record.md shows answer over a run of an older commit, and agree with the
record read as records.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from make import NAMES, ROUNDS, environment, tequio
from test_old_runs import FOLDER, records

from tequio.ledger.query import Answer, read_query

PAGE = (FOLDER.parents[1] / "docs" / "record.md").read_text(encoding="utf-8")
QUERIES = re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LOSSES, SUMS, HEADER, VALIDATION, GATE, PAID = range(6)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("old")
    with tarfile.open(FOLDER / "finished.tar.xz") as tar:
        tar.extractall(root, filter="tar")
    return root / "run"


@pytest.fixture(scope="module")
def found(run: Path) -> dict[str, list[Any]]:
    return records(run)


def answer(run: Path, which: int) -> Answer:
    return read_query(run / "ledger.sqlite", QUERIES[which])


def test_every_recipe_of_the_page_gives_rows(run: Path) -> None:
    assert len(QUERIES) == 6
    for sql in QUERIES:
        assert read_query(run / "ledger.sqlite", sql).rows, sql


def test_losses_and_sums_are_those_of_the_updates(run: Path, found: dict[str, list[Any]]) -> None:
    rows = [(body["round"], row) for body in found["round"] for row in body["train"]]
    keys = ("name", "rank", "loss_first", "loss_last")
    assert answer(run, LOSSES).rows == sorted(
        (number, *(row[key] for key in keys)) for number, row in rows
    )
    sums: dict[str, list[float]] = {}
    for _, row in rows:
        total = sums.setdefault(row["name"], [0.0, 0.0, 0.0])
        for place, (key, unit) in enumerate(
            (("joules", 3.6e6), ("bytes_up", 1e6), ("bytes_down", 1e6))
        ):
            total[place] += row[key] / unit
    got = answer(run, SUMS)
    assert got.columns == ("name", "kwh", "mb_up", "mb_down")
    assert {row[0]: row[1:] for row in got.rows} == {
        name: pytest.approx(total) for name, total in sums.items()
    }


def test_keys_and_tables_inside_bodies_are_read(run: Path, found: dict[str, list[Any]]) -> None:
    (head,) = found["run"]
    assert answer(run, HEADER).rows == [
        (head["name"], head["base"]["model"], head["versions"]["tequio"])
    ]
    losses = {
        (body["round"], name): score["loss"]
        for body in found["round"]
        for name, score in body["validation"].items()
    }
    assert {row[:2]: row[2] for row in answer(run, VALIDATION).rows} == losses
    assert len(losses) == ROUNDS * len(NAMES)
    gates = [
        (body["round"], name, each["base"], each["candidate"])
        for body in found["round"]
        for name, each in body["gate"].items()
    ]
    assert answer(run, GATE).rows == gates


def test_whom_joining_paid_is_read(run: Path, found: dict[str, list[Any]]) -> None:
    gains = {row["name"]: row["gains"]["personal_over_local"]["loss"] for row in found["personal"]}
    rows = answer(run, PAID).rows
    assert {row[0]: row[2:5] for row in rows} == {
        n: (g["mean"], g["low"], g["high"]) for n, g in gains.items()
    }
    assert [row[5] for row in rows] == [int(gains[row[0]]["low"] > 0) for row in rows]


def test_the_command_prints_a_table_json_or_csv(run: Path, tmp_path: Path) -> None:
    assert environment()["HF_HUB_OFFLINE"] == "1"
    shutil.copytree(run, tmp_path / "run")
    sql = (
        "SELECT round, accepted, x'00ff' AS bytes, null AS missing, char(27) || 'é' AS odd FROM "
        "rounds LIMIT 2"
    )
    said = json.loads(tequio(tmp_path, "query", "run", sql, "--json"))
    assert said["columns"] == ["round", "accepted", "bytes", "missing", "odd"]
    assert said["rows"] == [[1, 1, "00ff", None, "\x1bé"], [2, 1, "00ff", None, "\x1bé"]]
    rows = list(csv.reader(io.StringIO(tequio(tmp_path, "query", "run", sql, "--csv"))))
    assert rows[1] == ["1", "1", "00ff", "", "?é"]
    table = tequio(tmp_path, "query", "run", sql)
    assert "?é" in table
    assert "\x1b" not in table
