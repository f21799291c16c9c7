"""Peer-to-peer rounds against the star, on a tiny real model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builders import build_setup, refused
from tequio.app.assembly.build import build
from tequio.app.assembly.setup import RunSetup
from tequio.config import load_federation
from tequio.coordinator.gossip import (
    Peers,
    complete,
    disagreement,
    gossip_round,
    mean,
    mixing,
    open_peers,
    ring,
)
from tequio.coordinator.round import open_state, run_round
from tequio.core.errors import ConfigError
from tequio.runtimes.embedded import Embedded


@pytest.fixture
def four(make_federation: Any) -> RunSetup:
    return build_setup(
        make_federation(participants=4, centre=False, algorithm={"weights": "uniform"})
    )


def test_metropolis_weights_of_a_ring_of_four_are_thirds() -> None:
    weights = mixing(ring([1, 2, 3, 4]))  # degree 2 everywhere: 1/(1+2)
    assert set(weights[1]) == {1, 2, 4}
    for row in weights.values():
        assert all(w == pytest.approx(1 / 3) for w in row.values())


def test_unequal_degrees_still_make_a_symmetric_doubly_stochastic_matrix() -> None:
    star = {1: frozenset({2, 3}), 2: frozenset({1}), 3: frozenset({1})}
    weights = mixing(star)
    assert weights[2] == pytest.approx({2: 2 / 3, 1: 1 / 3})  # 1/(1 + max(1, 2))
    for i in star:
        assert sum(weights[i].values()) == pytest.approx(1.0)
        assert sum(weights[j].get(i, 0.0) for j in star) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("graph", "code", "facts"),
    [
        (
            {1: frozenset({2}), 2: frozenset({1}), 3: frozenset[int]()},
            "graph-in-parts",
            {"name": 1, "names": [3]},
        ),
        ({1: frozenset({2}), 2: frozenset[int]()}, "edge-one-way", {"edge": [1, 2]}),
    ],
)
def test_a_broken_graph_is_refused(graph: Any, code: str, facts: dict[str, Any]) -> None:
    with refused(ConfigError, code, **facts):
        mixing(graph)


def test_a_complete_graph_with_all_sent_is_the_star(four: RunSetup) -> None:
    run_spec = replace(four.run_spec, broadcast_rank=64)
    runtime = Embedded(four.nodes)
    star, _ = open_state(run_spec, runtime)
    star, _ = run_round(star, run_spec, runtime)
    peers, record = gossip_round(
        open_peers(run_spec), run_spec, Peers(mixing(complete([1, 2, 3, 4]))), runtime
    )
    for model in peers.models.values():
        assert model.minus(star.shared).norm() <= 1e-5 * star.shared.norm()
    assert record["disagreement"] <= 1e-5
    assert {n: pytest.approx(v["loss"], abs=1e-5) for n, v in record["validation"].items()} == {
        n: v["loss"]
        for n, v in run_round(open_state(run_spec, runtime)[0], run_spec, runtime)[1][
            "validation"
        ].items()
    }


def test_mixing_keeps_the_mean_and_brings_peers_together(four: RunSetup) -> None:
    run_spec = replace(four.run_spec, broadcast_rank=64)
    runtime = Embedded(four.nodes)
    state, record = gossip_round(
        open_peers(run_spec), run_spec, Peers(mixing(ring([1, 2, 3, 4]))), runtime
    )
    alone, _ = gossip_round(
        open_peers(run_spec), run_spec, Peers({i: {i: 1.0} for i in (1, 2, 3, 4)}), runtime
    )
    centre = mean(alone.models)
    assert mean(state.models).minus(centre).norm() <= 1e-5 * centre.norm()
    # the ring of four contracts deviations by its second eigenvalue, 1/3
    assert record["disagreement"] <= 0.34 * disagreement(alone.models)
    assert record["bytes"] > 0


def test_what_a_truncation_leaves_out_is_sent_later(four: RunSetup) -> None:
    run_spec = replace(four.run_spec, broadcast_rank=2)
    runtime = Embedded(four.nodes)
    state, _ = gossip_round(
        open_peers(run_spec), run_spec, Peers(mixing(ring([1, 2, 3, 4]))), runtime
    )
    assert all(copy.max_rank() <= 2 for copy in state.copies.values())
    still = replace(run_spec, learning_rate=1e-12)  # nobody learns any more: only the rest is sent
    gaps = []
    for _ in range(4):
        state, _ = gossip_round(state, still, Peers(mixing(ring([1, 2, 3, 4])), 0.5), runtime)
        gaps.append(sum(state.models[i].minus(state.copies[i]).norm() for i in state.models))
    assert gaps[-1] < 0.5 * gaps[0]


def test_layouts_of_coordinates_and_a_centre_are_refused(make_federation: Any) -> None:
    with_centre = build_setup(make_federation(participants=2))
    with refused(ConfigError, "peers-centre"):
        open_peers(with_centre.run_spec)
    fedit = build(
        load_federation(
            make_federation(participants=2, centre=False, folder="f", algorithm={"reduce": "fedit"})
        )
    )
    with refused(ConfigError, "peers-algorithm", key="reduce", value="fedit"):
        open_peers(fedit.run_spec)
