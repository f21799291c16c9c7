"""The laws of a cohort: a uniform sample by seed and round, the centre always with it, and one
panel that evaluates all the run.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from builders import build_setup, records
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.coordinator.checkpoint import pack_state, unpack_state
from tequio.coordinator.round import open_state, run_round
from tequio.coordinator.run_spec import sample
from tequio.core.canonical import pack
from tequio.core.errors import ConfigError
from tequio.report.html.report import render
from tequio.runtimes.embedded import Embedded


def test_every_set_is_drawn_equally_often() -> None:
    """Ten pairs of five: 10,000 draws give 1,000 each, with a standard deviation of 30."""
    found = Counter(tuple(sample(5, 2, seed, "cohort", 1)) for seed in range(10_000))
    assert set(found) == set(combinations(range(5), 2))
    assert all(abs(times - 1000) < 4 * 30 for times in found.values()), found


def test_a_sample_of_all_is_all() -> None:
    assert sample(7, 7, 3, "cohort", 1) == list(range(7))


def test_the_cohort_trains_the_panel_evaluates_and_the_centre_is_with_both(
    make_federation: Any,
) -> None:
    w = build_setup(make_federation(participants=5, train={"cohort": 2, "rounds": 4}))
    run_spec, runtime = w.run_spec, Embedded(w.nodes)
    panel = {m.name for m in run_spec.panel(1)} - {"centre"}
    state, body = open_state(run_spec, runtime)
    assert set(body["validation"]) == set(state.losses) == panel
    assert len(panel) == 2
    seen = []
    for round_ in (1, 2, 3, 4):
        held = len(pack(state.shared))
        state, body = run_round(state, run_spec, runtime)
        trained = [row["name"] for row in body["train"]]
        assert trained == [m.name for m in run_spec.roster(round_)]
        assert trained[0] == "centre"
        assert len(trained) == 3
        assert (
            set(body["validation"]) == panel
        )  # the same in every round: their means can be compared
        assert {row["bytes_down"] for row in body["train"]} == {held}
        seen.append(tuple(trained))
    assert len(set(seen)) > 1
    assert set(state.losses) == panel


def test_a_cohort_of_all_is_the_whole_federation_to_the_bit(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=3))
    runtime = Embedded(w.nodes)
    plain, _ = run_round(open_state(w.run_spec, runtime)[0], w.run_spec, runtime)
    all_ = replace(w.run_spec, cohort=3)
    drawn, _ = run_round(open_state(all_, runtime)[0], all_, runtime)
    assert pack_state(plain) == pack_state(drawn)


def test_a_run_cut_off_draws_the_same_cohort(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=4, train={"cohort": 2}))
    runtime = Embedded(w.nodes)
    state, _ = run_round(open_state(w.run_spec, runtime)[0], w.run_spec, runtime)
    again = unpack_state(pack_state(state), "test")
    assert pack_state(run_round(again, w.run_spec, runtime)[0]) == pack_state(
        run_round(state, w.run_spec, runtime)[0]
    )


@pytest.mark.parametrize(
    ("train", "algorithm", "message"),
    [
        ({"cohort": 3}, {}, "cohort = 3 is more than the 2 participants"),
        ({"cohort": 0}, {}, "cohort"),
        ({"cohort": 1}, {"weights": "q_ffl"}, "use 'norm_equalised', or leave cohort out"),
    ],
)
def test_what_makes_no_sense_is_refused(
    make_federation: Any, train: Any, algorithm: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_federation(make_federation(train=train, algorithm=algorithm))


def test_a_run_with_a_cohort_ends_and_its_report_can_be_read(
    make_federation: Any, tmp_path: Path
) -> None:
    path = make_federation(participants=3, train={"cohort": 1})
    outcome = start(load_federation(path), tmp_path / "run", counterfactuals=False)
    entries, _ = records(outcome.folder)
    assert (
        len([e for e in entries if e.kind == "personal"]) == 3
    )  # who was never drawn gets a model too
    assert "site2" in render(entries, "en")
