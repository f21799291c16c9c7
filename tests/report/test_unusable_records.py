"""A record that an older version wrote unread, with figures that cannot be: report, status and
accounts say so, without a traceback.
"""

from __future__ import annotations

import random
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from builders import rewritten
from tequio.cli.main import app
from tequio.report.write import write_report

OLD = Path(__file__).parents[1] / "old_runs"
OWN = {"name", "kept", "wire", "record_version"}  # written by the coordinator itself
VALUES: list[Any] = [
    *(
        None,
        -1e9,
        -1e300,
        1e300,
        10**400,
        "text",
        "x" * 3000,
        True,
        [],
        {},
        [1],
        {"a": 1},
        -5,
        0,
        1e-300,
    ),
    *(
        {"amount": -1e9, "currency": "EUR"},
        {"amount": 1},
        {"joules": -1e15},
        {"loss": -1e300, "accuracy": 7},
    ),
]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A coordinator's folder of an older version, whose run is over."""
    for archive in ("federation", "network-finished"):
        with tarfile.open(OLD / f"{archive}.tar.xz") as tar:
            tar.extractall(tmp_path, filter="tar")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def shown(hub: Path) -> dict[str, str]:
    """What a person reads of it."""
    words = {}
    for command, folder in (("status", hub), ("accounts", hub / "run"), ("report", hub / "run")):
        done = CliRunner().invoke(app, [command, str(folder)])
        assert done.exit_code == 0, (command, done.exception, done.output[-2000:])
        words[command] = " ".join(done.output.split())
    for lang in ("en", "es"):
        page, _ = write_report(hub / "run", lang, None)
        words[lang] = page.read_text(encoding="utf-8")
    return words


def test_a_negative_amount_is_shown_as_not_usable(hub: Path) -> None:
    def change(kind: str, body: dict[str, Any]) -> None:
        if kind == "personal" and body["name"] == "site1":
            body["money"] = {"amount": -1e9, "currency": "EUR"}

    rewritten(hub / "run", change)
    words = shown(hub)
    assert "unusable figures" in words["accounts"]
    assert "unusable figures" in words["en"]
    assert "cifras inutilizables" in words["es"]
    assert "EUR" not in words["accounts"]


def test_negative_energy_is_in_no_sum(hub: Path) -> None:
    def change(kind: str, body: dict[str, Any]) -> None:
        for row in body.get("evaluation", []):
            row["energy"]["joules"] = -1e15

    rewritten(hub / "run", change)
    words = shown(hub)
    assert "unusable figures" in words["accounts"]
    assert "-" + "2777" not in words["accounts"]
    assert "Wh" in words["status"]
    assert "-" not in words["status"].split(" Wh;")[0].split()[-1]


def test_a_personal_record_without_anything_is_shown_as_not_usable(hub: Path) -> None:
    def change(kind: str, body: dict[str, Any]) -> None:
        if kind == "personal" and body["name"] == "site1":
            for key in body.keys() - OWN:
                del body[key]

    rewritten(hub / "run", change)
    assert "not usable" in shown(hub)["status"]


def test_a_loss_that_cannot_be_is_shown_as_not_usable(hub: Path) -> None:
    def change(kind: str, body: dict[str, Any]) -> None:
        if kind == "round":
            body["validation"]["site1"]["loss"] = -1e300
            body["mean_validation_loss"] = -1e300

    rewritten(hub / "run", change)
    words = shown(hub)
    assert "not usable" in words["status"]
    assert all("0000000000000" not in text for text in words.values())


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value of nested tables and lists."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield (*way, key)
        yield from places(item, (*way, key))


@pytest.mark.parametrize("seed", range(12))
def test_no_value_in_a_participant_s_record_ends_in_a_traceback(hub: Path, seed: int) -> None:
    rng = random.Random(seed)

    def change(kind: str, body: dict[str, Any]) -> None:
        ways = list(places(body)) if kind == "personal" else []
        for row in body.get("evaluation", []) if kind in ("start", "round") else []:
            row["energy"][rng.choice(["joules", "seconds", "intensity"])] = rng.choice(
                [-1e9, 1e300, "text", {}, 10**400]
            )
        for way in rng.sample([way for way in ways if way[0] not in OWN], 3 if ways else 0):
            place = body
            for step in way[:-1]:
                place = (
                    place[step]
                    if isinstance(place, dict | list) and step in places_of(place)
                    else {}
                )
            if isinstance(place, dict):
                place[way[-1]] = rng.choice(VALUES)

    before = shutil.copytree(hub, hub.with_name("before"))
    rewritten(hub / "run", change)
    assert (hub / "run/ledger.sqlite").read_bytes() != (before / "run/ledger.sqlite").read_bytes()
    shown(hub)


def places_of(value: Any) -> set[Any]:
    """The keys of a table, or the numbers of a list."""
    return set(value) if isinstance(value, dict) else set(range(len(value)))
