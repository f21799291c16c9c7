"""Peers by configuration: whole runs over a ring, what their record holds, resume, and each refusal
with its way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builders import bodies, build_setup, records, refused
from tequio.app.models.export import export_models
from tequio.app.models.predict import predict_texts
from tequio.app.models.verify import verify_run
from tequio.app.simulation.run import resume, start
from tequio.app.stages import speed_free
from tequio.config import load_federation
from tequio.coordinator.gossip import Peers, complete, gossip_round, mean, mixing, open_peers
from tequio.coordinator.gossip_loop import pack_peers, unpack_peers
from tequio.core.canonical import digest_update, unpack
from tequio.core.errors import ConfigError, TrainingError, UpdateError
from tequio.core.protocols import Participant
from tequio.core.types import EvaluateRequest, GradientRequest, Reply, TrainRequest
from tequio.ledger.record import verify
from tequio.report.data.summary import summary
from tequio.report.html.report import render
from tequio.runtimes.embedded import Embedded

UNIFORM = {"weights": "uniform"}


def ring(make: Any, **sections: Any) -> Path:
    path: Path = make(
        **{
            "participants": 4,
            "centre": False,
            "algorithm": UNIFORM,
            "topology": {"kind": "ring"},
            **sections,
        }
    )
    return path


def test_a_ring_runs_from_start_to_report(make_federation: Any, tmp_path: Path) -> None:
    run = tmp_path / "run"
    end = start(load_federation(ring(make_federation)), run, True).end
    assert (end["rounds"], end["reason"]["code"]) == (2, "rounds-made")
    rounds, names = bodies(run, "round"), [f"site{i}" for i in range(4)]
    for body in rounds:
        sizes = {row["name"]: row["bytes_up"] // 2 for row in body["train"]}  # two neighbours each
        assert list(sizes) == names
        assert body["bytes"] == 2 * sum(sizes.values())
        assert body["train"][0]["bytes_down"] == sizes["site1"] + sizes["site3"]
        losses = [s["loss"] for s in body["validation"].values()]
        assert body["mean_validation_loss"] == pytest.approx(sum(losses) / 4)
        assert 0.0 < body["disagreement"] < 2.0
    # models of their own: no two scores of `shared` on one's validation data come from one model
    (shared,) = bodies(run, "shared")
    best = rounds[end["best_round"] - 1]
    assert shared["disagreement"] == pytest.approx(best["disagreement"])
    for body in bodies(run, "personal"):
        own = best["validation"][body["name"]]["loss"]
        assert body["candidates"]["shared"]["loss"] == pytest.approx(own, rel=1e-5)
    found = verify_run(run)
    assert found["ok"], found["problems"]
    assert (
        found["models"] == 2 + 1 + 2 * 4
    )  # head and shared (the mean), pooled, and two of each participant
    for who in ("shared", "site2"):
        (row,) = predict_texts(run, who, ["the train was late again my"], 4)
        assert row["label"] in ("good", "bad")
    assert len(export_models(run, None, tmp_path / "out", False)) == 5
    text = render(records(run)[0], "en")
    assert (
        "There was no coordinator: participants exchanged only with their neighbours (in a ring)"
        in text
    )
    assert "No hubo coordinador" in render(records(run)[0], "es")
    assert summary(records(run)[0])["chain"]["algorithm"].startswith(
        "topology = ring, reduce = stack"
    )


def test_shared_is_the_mean_of_the_peers(make_federation: Any, tmp_path: Path) -> None:
    """Rounds made by hand, from the same configuration, end at the same bits."""
    path = ring(make_federation, participants=3, topology={"kind": "graph", "edges": CHAIN})
    start(load_federation(path), tmp_path / "run", False)
    w = build_setup(path)
    assert w.peers is not None
    assert w.peers.weights[1] == pytest.approx(
        {1: 2 / 3, 2: 1 / 3}
    )  # the middle has two neighbours: 1/(1 + 2)
    state = open_peers(w.run_spec)
    for _ in range(2):
        state, _ = gossip_round(state, w.run_spec, w.peers, Embedded(w.nodes))
    assert state.best_round == 2
    made = unpack((tmp_path / "run" / "shared.safetensors").read_bytes())
    assert digest_update(made) == digest_update(mean(state.best))
    assert len({digest_update(model) for model in state.best.values()}) == 3


CHAIN = [["site0", "site1"], ["site2", "site1"]]


def test_the_complete_graph_by_name_is_that_of_the_law(make_federation: Any) -> None:
    w = build_setup(ring(make_federation, topology={"kind": "complete", "pace": 0.5}))
    assert w.peers == Peers(mixing(complete(range(1, 5))), 0.5)
    assert build_setup(make_federation(participants=1, folder="star")).peers is None


def test_a_state_of_peers_survives_its_bytes(make_federation: Any) -> None:
    w = build_setup(ring(make_federation, algorithm={**UNIFORM, "broadcast_rank": 2}))
    assert w.peers is not None
    state, _ = gossip_round(open_peers(w.run_spec), w.run_spec, w.peers, Embedded(w.nodes))
    data = pack_peers(state)
    again = unpack_peers(data, "test")
    assert pack_peers(again) == data
    unbroken, _ = gossip_round(state, w.run_spec, w.peers, Embedded(w.nodes))
    resumed, _ = gossip_round(again, w.run_spec, w.peers, Embedded(w.nodes))
    assert pack_peers(unbroken) == pack_peers(resumed)
    with refused(UpdateError, "not-safetensors", source="test"):
        unpack_peers(data[:-7], "test")


@pytest.mark.parametrize("at", ["round 1 of 2", "site2"])
def test_a_run_cut_off_anywhere_ends_with_the_same_outcome(
    make_federation: Any, tmp_path: Path, at: str
) -> None:
    config = load_federation(ring(make_federation))
    expected = start(config, tmp_path / "whole", False).end

    def stop(stage: str, what: str, done: int, of: int) -> None:
        if what == at and stage in ("rounds", "personal"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(config, tmp_path / "cut", False, watch=stop)
    assert speed_free(resume(tmp_path / "cut").end) == speed_free(expected)
    assert verify(tmp_path / "cut" / "ledger.sqlite").ok


def test_patience_ends_a_run_of_peers(make_federation: Any, tmp_path: Path) -> None:
    """A rate so small that nothing moves: after `patience` = 2 rounds it ends, and the base is what
    was best.
    """
    train = {"rounds": 9, "patience": 2, "learning_rate": 1e-12}
    end = start(load_federation(ring(make_federation, train=train)), tmp_path / "run", False).end
    assert (end["rounds"], end["best_round"]) == (2, 0)
    assert end["reason"]["code"] == "no-progress"
    assert not unpack((tmp_path / "run" / "shared.safetensors").read_bytes()).entries


@dataclass(frozen=True)
class Blind:
    """A participant whose validation data give no finite loss."""

    inner: Participant

    @property
    def name(self) -> str:
        return self.inner.name

    def train(self, task: TrainRequest) -> Reply:
        return self.inner.train(task)

    def gradient(self, task: GradientRequest) -> Reply:
        return self.inner.gradient(task)

    def evaluate(self, task: EvaluateRequest) -> Reply:
        raise TrainingError(f"Participant {task.name}: the loss of its validation data is nan.")


def test_a_peer_that_cannot_be_evaluated_makes_no_best_round(make_federation: Any) -> None:
    w = build_setup(ring(make_federation))
    assert w.peers is not None
    state = open_peers(w.run_spec)
    good, _ = gossip_round(state, w.run_spec, w.peers, Embedded(w.nodes))
    assert (good.best_round, good.stale_rounds) == (1, 0)
    bad, record = gossip_round(
        state, w.run_spec, w.peers, Embedded({**w.nodes, 2: Blind(w.nodes[2])})
    )
    assert list(record["not_evaluated"]) == ["site1"]
    assert (bad.best_round, bad.stale_rounds) == (0, 1)


STRANGER = [["site0", "site1"], ["site2", "sites3"], ["site2", "site1"]]
SEPARATE = [["site0", "site1"], ["site2", "site3"]]


@pytest.mark.parametrize(
    ("sections", "code"),
    [
        ({"topology": {"kind": "graph", "edges": STRANGER}}, "edge-of-stranger"),
        ({"topology": {"kind": "graph", "edges": SEPARATE}}, "graph-in-parts"),
        ({"topology": {"kind": "graph"}}, "graph-in-parts"),
        ({"topology": {"kind": "graph", "edges": [["site0", "site0"]]}}, "edge-to-itself"),
        ({"topology": {"kind": "ring", "edges": SEPARATE}}, "star-edges"),
        ({"topology": {"kind": "star", "pace": 0.5}}, "star-pace"),
        ({"centre": True}, "peers-centre"),
        ({"participants": 1}, "peers-alone"),
        ({"screen": {"norm_bound": 1.0}}, "peers-screening"),
        ({"gate": {"interpolate": 11}}, "peers-gate"),
        ({"local": {"terms": {"transfer": 0.1}}}, "term-without-centre"),
        ({"train": {"pace": "buffered", "round_seconds": 9.0}}, "peers-buffered"),
        ({"train": {"cohort": 2}}, "peers-cohort"),
        ({"algorithm": {}}, "peers-algorithm"),
        ({"algorithm": {**UNIFORM, "reduce": "fedit"}}, "peers-algorithm"),
        ({"algorithm": {**UNIFORM, "server": "nesterov"}}, "peers-algorithm"),
        ({"algorithm": {**UNIFORM, "upload": "half"}}, "peers-algorithm"),
        ({"algorithm": {**UNIFORM, "start": "fedex"}}, "peers-algorithm"),
    ],
)
def test_what_needs_a_coordinator_is_refused_when_the_run_is_built(
    make_federation: Any, sections: dict[str, Any], code: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_setup(ring(make_federation, **sections))
    assert caught.value.reason is not None
    assert caught.value.reason.code == code
    if code == "peers-algorithm":
        key = caught.value.reason.facts["key"]
        assert caught.value.reason.facts["value"] == sections["algorithm"].get(
            key, "norm_equalised"
        )
    if code == "graph-in-parts":
        assert caught.value.reason.facts["names"][-2:] == ["site2", "site3"]
    if code == "edge-of-stranger":
        assert caught.value.reason.facts["nearest"] == "site3"


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ({"kind": "rings"}, "topology.kind: "),
        ({"kind": "graph", "edges": [["site0"]]}, "topology.edges.0: "),
        ({"kind": "ring", "pace": 1.5}, "topology.pace: "),
        ({"kind": "ring", "page": 0.5}, "did you mean 'pace'?"),
    ],
)
def test_what_is_no_topology_is_refused_with_its_key(
    make_federation: Any, topology: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        ring(make_federation, topology=topology)
    assert message in str(caught.value)
