"""`tequio start`, `data look`, `doctor` and `--version` as a user types them, on three small tables
and a tiny real model.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tequio as package
from builders import sentences

MARKER = "Zanzibar"


def tequio(*arguments: str | Path, cwd: Path, answer: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tequio.cli.main", *map(str, arguments)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=cwd,
        env=environment,
        input=answer,
    )


@pytest.fixture
def tables(tmp_path: Path) -> list[Path]:
    """Three tables with columns of other names, one with semicolons."""
    paths = []
    for number, name in enumerate(("norte", "sur", "valle")):
        path = tmp_path / f"{name}.csv"
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, delimiter=";" if number else ",")
            writer.writerow(["message", "kind"])
            writer.writerows(
                (f"{row['text']} {MARKER}", row["label"]) for row in sentences(60, number)
            )
        paths.append(path)
    return paths


def test_from_three_tables_to_a_prediction_in_one_command(
    tables: list[Path], tmp_path: Path, tiny_bert: Path
) -> None:
    done = tequio("start", *tables, "--yes", "--rounds", "1", "--base", tiny_bert, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert MARKER not in done.stdout + done.stderr
    assert "separated by semicolon" in done.stdout
    assert "Proposed: texts to labels, 3 participants, 1 round." in done.stdout
    command = done.stdout.strip().splitlines()[-1].strip()
    assert command == 'tequio predict my-federation/runs/my-federation-0 valle "a text"'
    tried = tequio(*command.split()[1:4], "my train was great", "--json", cwd=tmp_path)
    assert json.loads(tried.stdout)["predictions"][0]["label"] in ("good", "bad")
    again = tequio("run", "my-federation/federation.toml", "--out", "again", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr


def test_with_json_nothing_is_asked_and_nothing_written_without_yes(
    tables: list[Path], tmp_path: Path, tiny_bert: Path
) -> None:
    done = tequio("start", *tables, "--base", tiny_bert, "--json", cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert facts["started"] is False
    assert facts["proposal"]["participants"] == ["norte", "sur", "valle"]
    assert {p["name"]: p["rows"] for p in facts["found"]["participants"]} == {
        "norte": 60,
        "sur": 60,
        "valle": 60,
    }
    assert not (tmp_path / "my-federation").exists()
    prepared = tequio(
        "start", *tables, "--base", tiny_bert, "--json", "--yes", "--prepare", cwd=tmp_path
    )
    assert Path(tmp_path, json.loads(prepared.stdout)["federation"]).is_file()
    run = tequio(
        "start",
        *tables,
        "--base",
        tiny_bert,
        "--json",
        "--yes",
        "--rounds",
        "1",
        "--out",
        "other",
        cwd=tmp_path,
    )
    ended = json.loads(run.stdout)
    assert ended["started"] is True
    assert ended["next"].startswith("tequio predict other/runs/")
    assert ended["summary"]["finished"]


def test_it_asks_once_and_no_means_no(tables: list[Path], tmp_path: Path, tiny_bert: Path) -> None:
    done = tequio("start", *tables[:2], "--base", tiny_bert, cwd=tmp_path, answer="n\n")
    assert done.returncode == 1
    assert done.stdout.count("Write these files and run?") == 1
    assert not (tmp_path / "my-federation").exists()
    asked = tequio(
        "start", *tables[:2], "--base", tiny_bert, "--prepare", cwd=tmp_path, answer="y\n"
    )
    assert asked.returncode == 0, asked.stderr
    assert (tmp_path / "my-federation" / "participants" / "norte.toml").is_file()


def test_one_file_is_enough_and_its_meaning_is_said(
    tables: list[Path], tmp_path: Path, tiny_bert: Path
) -> None:
    done = tequio("start", tables[0], "--base", tiny_bert, "--yes", "--rounds", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "A federation of one is only local training" in done.stdout


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (None, "there is no such file"),
        (b"", "empty"),
        (b"\x00\x01\x02\x03" * 99, "nulls.csv"),
        (
            b"text,label\n" + b"".join(b"word %d,%s\n" % (n, b"yes") for n in range(30)),
            "the same value in all 30 rows",
        ),
    ],
)
@pytest.mark.parametrize("command", [("start",), ("data", "look")])
def test_what_cannot_be_used_is_one_error(
    command: tuple[str, ...], write: bytes | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / ("absent.csv" if write is None else "nulls.csv")
    if write is not None:
        path.write_bytes(write)
    done = tequio(*command, path, "--json", cwd=tmp_path)
    assert done.returncode == 3
    error = json.loads(done.stdout)
    assert error["error"] == "DataError"
    assert said in error["what"] + error["why"]


def test_no_file_is_a_mistake_in_the_command_line(tmp_path: Path) -> None:
    assert tequio("start", cwd=tmp_path).returncode == 2
    assert tequio("data", "look", cwd=tmp_path).returncode == 2


def test_a_mistake_is_reported_without_torch(tables: list[Path], tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tequio.app.start.prepare import look;"
        f"look([Path({str(tables[0])!r})]);"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_looking_prints_no_text_unless_it_is_asked_for(
    tables: list[Path], tmp_path: Path, tiny_bert: Path
) -> None:
    shown = tequio("data", "look", *tables, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert MARKER not in shown.stdout
    assert "text = column 'message', label = column 'kind'" in shown.stdout
    asked = tequio("data", "look", tables[0], "--show", "2", cwd=tmp_path)
    assert asked.stdout.count(MARKER) == 2
    facts = json.loads(
        tequio("data", "look", tables[0], "--base", tiny_bert, "--json", cwd=tmp_path).stdout
    )
    assert MARKER not in json.dumps(facts)
    (person,) = facts["participants"]
    assert person["tokens"] == {"texts": 60, "median": 7, "longest": 7}
    assert sum(person["labels"].values()) == 60


def test_the_doctor_says_it_in_json_and_in_words(tmp_path: Path) -> None:
    found: dict[str, Any] = json.loads(tequio("doctor", "--json", cwd=tmp_path).stdout)
    assert found["ok"] is True
    assert {check["status"] for check in found["checks"]} <= {"ok", "warning"}
    said = tequio("doctor", cwd=tmp_path)
    assert said.returncode == 0
    assert said.stdout.strip().splitlines()[-1].endswith("failed: 0.")


def test_the_doctor_fails_where_the_cache_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = [sys.executable, "-m", "tequio.cli.main", "doctor", "--json"]
    environment = {**os.environ, "TEQUIO_CACHE": str(tmp_path / "file" / "cache")}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 5
    assert [
        check["name"] for check in json.loads(done.stdout)["checks"] if check["status"] == "fail"
    ] == ["cache"]


def test_the_version_is_an_option_too(tmp_path: Path) -> None:
    assert tequio("--version", cwd=tmp_path).stdout.strip() == package.__version__
