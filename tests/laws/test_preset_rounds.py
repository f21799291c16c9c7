"""Each method by name makes its rounds in miniature, bit-for-bit as its keys written out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders import build_setup, digests, records
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.config.presets import PRESETS
from tequio.coordinator.buffered import run_window
from tequio.coordinator.checkpoint import pack_state
from tequio.coordinator.round import open_state, run_round
from tequio.runtimes.embedded import Embedded
from written_presets import WRITTEN

SIZES = {"rounds": 2, "max_steps": 2}


def first_round(make_federation: Any, folder: str, **sections: Any) -> bytes:
    """The state after one round of three participants, as bytes."""
    setup = build_setup(
        make_federation(participants=3, centre=False, rows=40, folder=folder, **sections)
    )
    runtime = Embedded(setup.nodes)
    state, _ = open_state(setup.run_spec, runtime)
    step = run_round if setup.run_spec.window_seconds is None else run_window
    state, _ = step(state, setup.run_spec, runtime)
    assert state.round == 1
    return pack_state(state)


@pytest.mark.parametrize("name", sorted(PRESETS.keys() - {"feddf"}))
def test_a_round_by_name_is_the_round_of_its_keys(make_federation: Any, name: str) -> None:
    named = first_round(make_federation, "named", algorithm={"preset": name}, train=SIZES)
    train = {
        key: value for key, value in WRITTEN[name].get("train", {}).items() if key != "min_steps"
    }
    assert (
        first_round(make_federation, "written", **{**WRITTEN[name], "train": train | SIZES})
        == named
    )


def test_distillation_by_name_runs_to_its_end(make_federation: Any, tmp_path: Path) -> None:
    sizes: dict[str, Any] = {
        "train": {"rounds": 1, "max_steps": 2},
        "distil": {"steps": 2, "items": 8},
    }
    named = make_federation(folder="named", rows=40, algorithm={"preset": "feddf"}, **sizes)
    start(load_federation(named), tmp_path / "a", False)
    sizes["distil"] |= {"teachers": "participants", "ensemble": "feddf"}
    written = make_federation(folder="written", rows=40, algorithm={"weights": "examples"}, **sizes)
    start(load_federation(written), tmp_path / "b", False)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    entries, rounds = records(tmp_path / "a")
    assert rounds["round"]
    assert "preset" not in json.dumps(entries[0].body["config"])
    assert entries[0].body["config"]["distil"] == {
        "teachers": "participants",
        "steps": 2,
        "items": 8,
    }
