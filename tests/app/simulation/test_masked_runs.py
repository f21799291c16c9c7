"""A run with masked rounds makes the model of the open run, within the field's rounding, and its record tells sums alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import build_setup
from tequio.app.assembly.build import read_participants
from tequio.app.simulation.run import resume, start
from tequio.app.stages import embedded_runtime
from tequio.config import load_federation
from tequio.coordinator.masked import SumRounds
from tequio.coordinator.round import open_state, run_round
from tequio.core.errors import ConfigError
from tequio.core.update import Update, plain
from tequio.ledger.record import Ledger

MASKED: dict[str, Any] = {"privacy": {"mode": "masked"}}


def difference(one: Update, other: Update) -> float:
    """Return the largest difference of two shared models."""
    assert one.entries.keys() == other.entries.keys()
    return max(float((plain(one.entries[key]) - plain(other.entries[key])).abs().max()) for key in one.entries)


@pytest.mark.parametrize("reduce", ["ffa", "rolora"])
@pytest.mark.parametrize("kind", ["classification", "causal"])
@pytest.mark.parametrize("centre", [True, False])
def test_masked_rounds_make_the_model_of_open_rounds(
    make_federation: Callable[..., Path], reduce: str, kind: str, centre: bool
) -> None:
    algorithm = {"reduce": reduce, "weights": "uniform"}
    sections: dict[str, Any] = {"participants": 5, "centre": centre, "kind": kind, "algorithm": algorithm}
    w = build_setup(make_federation(**sections, folder="open"))
    hidden = build_setup(make_federation(**sections, folder="masked", **MASKED))
    runtime, masked = embedded_runtime((w,), "main"), embedded_runtime((hidden,), "main")
    assert isinstance(masked, SumRounds)
    clear, opening = open_state(w.run_spec, runtime)
    summed, body = open_state(hidden.run_spec, masked)
    assert body["mean_validation_loss"] == pytest.approx(opening["mean_validation_loss"], abs=1e-6)
    for _ in range(2):
        clear, seen = run_round(clear, w.run_spec, runtime)
        summed, body = run_round(summed, hidden.run_spec, masked, masked.gather)
        moved = max(float(plain(entry).abs().max()) for entry in clear.shared.entries.values())
        assert moved > 1e-3
        assert difference(clear.shared, summed.shared) < 1e-6
        assert body["mean_validation_loss"] == pytest.approx(seen["mean_validation_loss"], abs=1e-5)
        own = {row["name"]: row for row in body["train"] if row["name"] != "centre"}
        assert len(own) == 5
        first = [row["loss_first"] for row in seen["train"] if row["name"] != "centre"]
        assert body["sums"]["train"]["loss_first"] == pytest.approx(sum(first) / 5, abs=1e-5)
        assert body["sums"]["train"]["clipped"] == 0
        for row in own.values():
            assert [row[key] for key in ("tokens", "examples", "loss_first", "loss_last", "norm")] == [None] * 5
        assert body["validation"] == {}


def masked_federation(make_federation: Callable[..., Path], **sections: Any) -> Path:
    """Write a federation of five with masked rounds."""
    given: dict[str, Any] = {"participants": 5, "algorithm": {"reduce": "ffa", "weights": "uniform"}, **MASKED}
    return make_federation(**(given | sections))


@pytest.mark.slow
def test_a_whole_run_is_made_resumed_and_reported(make_federation: Callable[..., Path], tmp_path: Path) -> None:
    gate = {"interpolate": 3}
    config = load_federation(masked_federation(make_federation, gate=gate))
    done = start(config, tmp_path / "run", counterfactuals=False)
    rows = [json.loads(e.text) if hasattr(e, "text") else e.body for e in Ledger.open(tmp_path / "run" / "ledger.sqlite").entries()]
    assert done.end["rounds"] == 2
    print(rows[2])
    twice = start(config, tmp_path / "again", counterfactuals=False, workers=2)
    assert twice.end["outcome"] == done.end["outcome"]
