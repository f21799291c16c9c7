"""The comparison of two revisions: what it reads of a real ledger, and what it finds different."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks.same_digests import (
    CannotRun,
    Size,
    compare,
    main,
    read_digests,
    shorten,
    with_key,
)
from tequio.app.simulation.run import start
from tequio.config import load_federation


def test_a_run_equals_its_repetition_alone(make_federation: Any, tmp_path: Path) -> None:
    config = load_federation(make_federation(participants=2))
    seeds = {"first": 7, "again": 7, "other": 8}
    for name, seed in seeds.items():
        start(config.model_copy(update={"seed": seed}), tmp_path / name, False)
    first, again, other = (read_digests(tmp_path / name / "ledger.sqlite") for name in seeds)
    names = ["round 1", "round 2", "shared model", "model of site0", "model of site1"]
    assert list(first.models) == names
    lines, differ = compare("tiny", first, again)
    assert (differ, len(lines)) == (0, len(names))
    assert all("equal" in line and "checkpoint" not in line for line in lines)
    lines, differ = compare("tiny", first, other)
    assert differ > 0
    assert sum("different" in line for line in lines) == differ
    assert "different" in lines[0]


def test_a_missing_round_and_another_state_are_reported(
    make_federation: Any, tmp_path: Path
) -> None:
    start(load_federation(make_federation(participants=1)), tmp_path / "run", False)
    whole = read_digests(tmp_path / "run" / "ledger.sqlite")
    short = type(whole)(
        {name: digest for name, digest in whole.models.items() if name != "round 2"},
        dict.fromkeys(whole.checkpoints, "another"),
    )
    lines, differ = compare("tiny", whole, short)
    assert differ == 1
    assert "the checkpoint differs" in lines[0]
    assert "missing" in lines[1]


def test_a_demo_is_cut_to_size(make_federation: Any) -> None:
    toml = make_federation(participants=2, train={"rounds": 5, "max_steps": 9})
    own = toml.parent / "participants" / "site0.toml"
    cap = "[data]\nmax_train = 60\nmax_test = 3"
    own.write_text(own.read_text().replace("[data]", cap))
    shorten(toml.parent, Size(rounds=2, steps=4, rows=40))
    train = tomllib.loads(toml.read_text())["train"]
    assert (train["rounds"], train["max_steps"], train["batch_size"]) == (2, 4, 8)
    data = tomllib.loads(own.read_text())["data"]
    assert (data["max_train"], data["max_test"]) == (40, 3)
    before = toml.read_text()
    shorten(toml.parent, Size(0, 0, 0))
    assert toml.read_text() == before


def test_a_key_that_is_not_there_is_added_to_its_table() -> None:
    text = with_key("[train]\nrounds = 5\n\n[local]\nx = 1\n", "max_steps", 4)
    expected = {"train": {"rounds": 5, "max_steps": 4}, "local": {"x": 1}}
    assert tomllib.loads(text) == expected
    with pytest.raises(CannotRun):
        with_key("[local]\n", "rounds", 1)


def test_what_cannot_be_compared_has_its_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such-revision"]) == 2
    assert "no-such-revision" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["HEAD", "HEAD", "--only", "weather"])
