"""Top-k with error feedback in rounds: nothing is lost, whoever fails, whatever the gate rejects,
wherever a process is killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from builders import build_setup, refused, rounds
from tequio.app.assembly.algorithm import build_coding
from tequio.app.assembly.setup import RunSetup
from tequio.coordinator.checkpoint import pack_state, unpack_state
from tequio.coordinator.round import open_state, run_round
from tequio.coordinator.run_spec import Coding, RunSpec
from tequio.core.canonical import digest_update
from tequio.core.errors import ConfigError, UpdateError
from tequio.core.types import Failure, Reply, Request, TrainRequest
from tequio.core.update import Update, zero
from tequio.ledger.folder import RunFolder
from tequio.participant.node import Node
from tequio.participant.residual import Residual
from tequio.runtimes.embedded import Embedded

TOPK = {"upload": "topk", "upload_settings": {"density": 0.1, "bits": 2.0}}
FACTORS = ["rolora", "ffa", "fedit"]


def setup(make_federation: Any, reduce: str = "rolora", **algorithm: Any) -> RunSetup:
    """Ranks 16 and 8: matrices of fewer than 256 numbers would travel whole."""
    w = build_setup(
        make_federation(participants=2, algorithm={"reduce": reduce} | TOPK | algorithm)
    )
    members = tuple(replace(m, rank=16 if m.index == 1 else 8) for m in w.run_spec.members)
    centre = None if w.run_spec.centre is None else replace(w.run_spec.centre, rank=16)
    return replace(w, run_spec=replace(w.run_spec, members=members, centre=centre))


def fresh(w: RunSetup, folder: RunFolder | None = None) -> dict[int, Node]:
    """The nodes as they start, with no memory, or with what `folder` holds."""
    return {
        i: replace(n, memory=Residual(folder, f"participants/{n.name}")) for i, n in w.nodes.items()
    }


@dataclass(frozen=True)
class Watching:
    """A runtime that also trains each task plainly (to know the whole update), and loses the
    replies in `lost` (round, index).
    """

    nodes: dict[int, Node]
    lost: frozenset[tuple[int, int]] = frozenset()
    whole: dict[tuple[int, int], Update] = field(default_factory=dict)
    sent: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        for task in tasks:
            key = (task.round, task.index)
            if isinstance(task, TrainRequest):
                plain = replace(task, upload="plain", feedback=None)
                update = self.nodes[task.index].train(plain).update
                assert update is not None
                self.whole[key] = update
            for reply in Embedded(self.nodes).exchange([task]):
                if isinstance(reply, Reply) and reply.payload is not None:
                    if (
                        key in self.lost
                    ):  # it trained, and wrote its memory; the reply never arrived
                        yield Failure(
                            task.round, task.index, task.name, "TrainingError", "the line was cut"
                        )
                        continue
                    self.sent[key] = reply.payload
                yield reply


def total(updates: Iterable[Update], spec: str) -> Update:
    out = zero(spec)
    for update in updates:
        out = out.plus(update)
    return out


def conserved(runtime: Watching, run_spec: RunSpec, index: int, last: int) -> float:
    """‖Σ sent + memory − Σ updates‖ / ‖Σ updates‖ over the rounds whose reply arrived."""
    keys = [key for key in runtime.whole if key[1] == index and key in runtime.sent]
    codec = run_spec.upload.codec
    arrived = total((codec.decode(runtime.sent[key], "bytes") for key in keys), run_spec.spec)
    wanted = total((runtime.whole[key] for key in keys), run_spec.spec)
    memory = runtime.nodes[index].memory.load(last, run_spec.spec, "x")
    assert memory.norm() > 0.1 * wanted.norm()  # top 10 % leaves much out
    return arrived.plus(memory).minus(wanted).norm() / wanted.norm()


@pytest.mark.parametrize("reduce", FACTORS)
def test_what_was_sent_and_what_is_retained_are_all_updates(
    make_federation: Any, reduce: str
) -> None:
    w = setup(make_federation, reduce)
    runtime = Watching(fresh(w))
    state = rounds(w.run_spec, runtime, 4)
    assert state.memory_rounds == {"centre": 4, "site0": 4, "site1": 4}
    for index in (0, 1, 2):
        assert conserved(runtime, w.run_spec, index, 4) <= 1e-5


def test_who_fails_keeps_the_memory_of_before(make_federation: Any) -> None:
    """Site 0 trains in round 2 and its reply is lost: round 3 sends what round 1 left out, and
    nothing of round 2 is counted.
    """
    w = setup(make_federation, "ffa")
    runtime = Watching(fresh(w), frozenset({(2, 1)}))
    state = rounds(w.run_spec, runtime, 2)
    assert state.memory_rounds == {"centre": 2, "site0": 1, "site1": 2}
    state = rounds(w.run_spec, runtime, 1, state)
    assert state.memory_rounds["site0"] == 3
    assert sorted(key for key in runtime.sent if key[1] == 1) == [(1, 1), (3, 1)]
    assert conserved(runtime, w.run_spec, 1, 3) <= 1e-5


def test_a_rejected_round_takes_the_memory_back(make_federation: Any) -> None:
    """A slice that nobody may harm at all: what the rejected round sent was thrown away, so the
    memory before it counts.
    """
    w = setup(make_federation)
    runtime = Watching(fresh(w))
    state = rounds(w.run_spec, runtime, 1)
    impossible = replace(
        state, base_slices={name: (-9.0,) * len(x) for name, x in state.base_slices.items()}
    )
    after, body = run_round(impossible, w.run_spec, runtime)
    assert not body["accepted"]
    assert after.memory_rounds == {"centre": 1, "site0": 1, "site1": 1}
    again = rounds(w.run_spec, runtime, 1, replace(after, base_slices=state.base_slices))
    assert again.memory_rounds == {"centre": 3, "site0": 3, "site1": 3}
    for index in (0, 1, 2):
        del runtime.sent[2, index]
        assert conserved(runtime, w.run_spec, index, 3) <= 1e-5


@pytest.mark.parametrize("reduce", FACTORS)
def test_killed_between_training_and_commit_it_resumes_to_the_same_bits(
    make_federation: Any, tmp_path: Path, reduce: str
) -> None:
    w = setup(make_federation, reduce, feedback=0.5)
    unbroken = rounds(w.run_spec, Embedded(fresh(w)), 4)
    folder = RunFolder.create(tmp_path / "run")
    state = open_state(w.run_spec, Embedded(fresh(w)))[0]
    for _ in range(4):
        run_round(
            state, w.run_spec, Embedded(fresh(w, folder))
        )  # trained, memory written, and killed before the commit
        state = unpack_state(pack_state(state), "checkpoint")
        state, _ = run_round(state, w.run_spec, Embedded(fresh(w, folder)))
    assert pack_state(state) == pack_state(unbroken)
    files = sorted(path.name for path in (folder.path / "participants" / "site0").iterdir())
    assert files == [
        "memory-3.safetensors",
        "memory-4.safetensors",
    ]  # the one that counts and the newest; no more


def test_feedback_changes_the_result_and_without_memory_nothing_is_trained(
    make_federation: Any,
) -> None:
    w = setup(make_federation, "ffa")
    nodes = fresh(w)
    retained = rounds(w.run_spec, Embedded(nodes), 2)
    lossy = rounds(replace(w.run_spec, feedback=None), Embedded(fresh(w)), 2)
    assert digest_update(retained.shared) != digest_update(lossy.shared)
    with refused(UpdateError, "residual-lost", who="site0", round=2):
        fresh(w)[1].memory.load(2, w.run_spec.spec, "site0")
    assert nodes[1].memory.load(2, w.run_spec.spec, "site0").norm() > 0.0


def test_all_coordinates_in_16_bits_are_nearly_plain(make_federation: Any) -> None:
    w = setup(make_federation, "fedit", upload_settings={"density": 1.0, "bits": 16.0})
    coded = rounds(w.run_spec, Embedded(fresh(w)), 2).shared
    plain = rounds(
        replace(w.run_spec, upload=Coding(), feedback=None), Embedded(fresh(w)), 2
    ).shared
    start = open_state(w.run_spec, Embedded(fresh(w)))[0].shared
    assert coded.minus(plain).norm() <= 1e-3 * plain.minus(start).norm()


@pytest.mark.parametrize("reduce", FACTORS)
def test_what_a_sparse_broadcast_leaves_out_waits_at_the_coordinator(
    make_federation: Any, reduce: str
) -> None:
    """One round from the same replies: shared + pending is the plain shared.

    In rolora what waits of B rests in a round of A.
    """
    w = setup(make_federation, reduce, upload="plain", upload_settings={})
    run_spec = replace(w.run_spec, download=build_coding("topk", {"density": 0.1, "bits": 8.0}))
    plain, full = run_round(
        open_state(w.run_spec, Embedded(w.nodes))[0], w.run_spec, Embedded(w.nodes)
    )
    first, body = run_round(open_state(run_spec, Embedded(w.nodes))[0], run_spec, Embedded(w.nodes))
    step = plain.shared.minus(open_state(w.run_spec, Embedded(w.nodes))[0].shared)
    assert first.shared.plus(first.pending).minus(plain.shared).norm() <= 1e-5 * step.norm()
    assert first.pending.norm() > 0.1 * step.norm()
    assert body["train"][0]["bytes_down"] < full["train"][0]["bytes_down"]
    if reduce == "rolora":
        second = rounds(run_spec, Embedded(w.nodes), 1, first)
        for name in (n for n in first.pending.entries if n.endswith(":b")):
            assert second.pending.entries[name] is first.pending.entries[name]


def test_quantised_uploads_may_have_feedback_too(make_federation: Any) -> None:
    w = setup(
        make_federation,
        "ffa",
        upload="quantise",
        upload_settings={"bits": 2.0, "rotate": 1.0},
        feedback=1.0,
    )
    runtime = Watching(fresh(w))
    rounds(w.run_spec, runtime, 3)
    assert conserved(runtime, w.run_spec, 1, 3) <= 1e-5


@pytest.mark.parametrize(
    ("algorithm", "code", "proposed"),
    [
        ({"upload": "topk"}, "feedback-of-product", 'reduce = "rolora"'),
        ({"download": "topk"}, "feedback-of-product", "download = \"quantise\" with 'stack'"),
        ({"upload": "topk", "reduce": "trimmed_mean"}, "feedback-of-robust", 'reduce = "rolora"'),
        ({"upload": "half", "feedback": 1.0}, "feedback-of-product", 'reduce = "rolora"'),
        ({"reduce": "ffa", "feedback": 1.0}, "feedback-of-plain", 'upload = "topk"'),
    ],
)
def test_feedback_without_meaning_is_refused_with_the_nearest_chain(
    make_federation: Any, algorithm: dict[str, Any], code: str, proposed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_setup(make_federation(participants=2, algorithm=algorithm))
    assert caught.value.reason is not None
    assert caught.value.reason.code == code
    assert proposed in caught.value.fix
