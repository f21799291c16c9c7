"""Points between base and shared model: the ends are base and shared, and what the gate refuses is
not delivered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builders import build_setup
from tequio.app.models.verify import verify_run
from tequio.app.simulation.run import resume, start
from tequio.config import load_federation
from tequio.coordinator.interpolation import Point, best, points
from tequio.coordinator.round import open_state, run_round
from tequio.core.canonical import digest_update, unpack
from tequio.core.errors import ConfigError
from tequio.ledger.record import Ledger
from tequio.runtimes.embedded import Embedded


def test_the_ends_are_the_base_and_the_shared_model(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2))
    runtime = Embedded(w.nodes)
    state, opened = open_state(w.run_spec, runtime)
    state, body = run_round(state, w.run_spec, runtime)
    tried = points(state.shared, 3, state, w.run_spec, runtime)
    assert [p.alpha for p in tried] == [0.0, 0.5, 1.0]
    assert tried[0].loss == opened["mean_validation_loss"]
    assert tried[2].loss == body["mean_validation_loss"]
    assert tried[2].slices == {n: s["candidate"] for n, s in body["gate"].items()}


def test_the_best_point_that_passes_is_retained_and_the_base_always_passes() -> None:
    rows = [Point(0.0, 3.0, {}, True), Point(0.5, 2.0, {}, True), Point(1.0, 1.0, {}, False)]
    assert best(rows).alpha == 0.5
    assert best([rows[0], rows[2]]).alpha == 0.0
    assert best([Point(0.0, 2.0, {}, True), Point(1.0, 2.0, {}, True)]).alpha == 0.0


def test_a_run_delivers_the_point_that_it_recorded(make_federation: Any, tmp_path: Path) -> None:
    config = load_federation(make_federation(participants=2, gate={"interpolate": 3}))
    folder = start(config, tmp_path / "run", counterfactuals=False).folder
    with Ledger.open(folder / "ledger.sqlite", read_only=True) as ledger:
        entry = ledger.last("shared")
    assert entry is not None
    body = entry.body
    passing = [p for p in body["points"] if p["passes"]]
    assert body["alpha"] == min(passing, key=lambda p: (p["loss"], p["alpha"]))["alpha"]
    saved = unpack((folder / "shared.safetensors").read_bytes(), "shared")
    assert digest_update(saved) == body["digest"]
    assert verify_run(folder)["ok"] is True
    assert resume(folder).end["outcome"]


def test_one_point_is_refused_with_the_reason(make_federation: Any) -> None:
    with pytest.raises(ConfigError, match=r"gate.interpolate.*2 and more points"):
        load_federation(make_federation(participants=2, gate={"interpolate": 1}))
