"""The laws of a round: a federation of one is the plain loop; arrival order does not matter; a
resumed run equals an unbroken one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from builders import Altered, Shuffled, build_setup, refused, rounds, sentences
from tequio.algorithms.registry import REDUCE, reduce_by_name, weights_by_name
from tequio.coordinator.checkpoint import pack_state, unpack_state
from tequio.coordinator.round import open_state, run_round
from tequio.core.canonical import digest_update
from tequio.core.errors import RunError
from tequio.core.seeds import derive
from tequio.core.types import Failure, Reply, Request, TrainRequest
from tequio.core.update import Dense, Factored, Update, zero
from tequio.participant.loop import train
from tequio.participant.text_tasks import batches
from tequio.runtimes.embedded import Embedded


@pytest.mark.parametrize("kind", ["classification", "causal"])
def test_a_federation_of_one_is_the_plain_loop_exactly(make_federation: Any, kind: str) -> None:
    w = build_setup(
        make_federation(kind=kind, participants=1, centre=False, algorithm={"weights": "uniform"})
    )
    state = rounds(w.run_spec, Embedded(w.nodes))

    node, member, adapted = w.nodes[1], w.run_spec.members[0], w.adapted
    shared: Update = zero(w.run_spec.spec)
    for round_ in (1, 2):  # the plain loop: train an adapter, fold it, start a fresh one
        seed = derive(w.run_spec.seed, "train", round_, 1)
        adapted.fold_in(shared)
        parameters = adapted.attach(member.rank, seed)
        stream = batches(node.data.train, node.batch_size, seed)
        train(
            adapted,
            node.task,
            parameters,
            stream,
            [w.run_spec.rate(round_)] * member.steps,
            "plain",
        )
        shared = shared.plus(adapted.extract())
    assert digest_update(state.shared) == digest_update(shared)  # to the last bit


def test_norm_equalisation_of_one_participant_changes_nothing_but_rounding(
    make_federation: Any,
) -> None:
    w = build_setup(make_federation(participants=1, centre=False))
    one = rounds(w.run_spec, Embedded(w.nodes)).shared
    plain = rounds(
        replace(w.run_spec, weighting=weights_by_name("uniform")), Embedded(w.nodes)
    ).shared
    assert one.minus(plain).norm() <= 1e-5 * plain.norm()


@pytest.mark.parametrize("reduce", sorted(REDUCE))
def test_the_result_does_not_depend_on_the_order_of_arrival(
    make_federation: Any, reduce: str
) -> None:
    w = build_setup(make_federation(participants=4))
    run_spec = replace(w.run_spec, aggregator=reduce_by_name(reduce))
    expected = digest_update(rounds(run_spec, Embedded(w.nodes)).shared)
    for seed in range(3):
        assert (
            digest_update(rounds(run_spec, Shuffled(Embedded(w.nodes), seed, twice=True)).shared)
            == expected
        )


def test_a_state_survives_its_bytes(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2, algorithm={"server": "nesterov"}))
    state, _ = open_state(w.run_spec, Embedded(w.nodes))
    state, _ = run_round(state, w.run_spec, Embedded(w.nodes))
    data = pack_state(state)
    again = unpack_state(data, "test")
    assert pack_state(again) == data
    unbroken, _ = run_round(state, w.run_spec, Embedded(w.nodes))
    resumed, _ = run_round(again, w.run_spec, Embedded(w.nodes))
    assert pack_state(unbroken) == pack_state(resumed)


def test_nothing_is_lost_by_the_rank_of_the_broadcast(make_federation: Any) -> None:
    """Shared + pending of a run with a narrow broadcast is the exact sum: with one round it is the
    wide run's shared.
    """
    w = build_setup(make_federation(participants=4, train={"rounds": 1}))
    wide = rounds(replace(w.run_spec, broadcast_rank=64), Embedded(w.nodes))
    narrow = rounds(replace(w.run_spec, broadcast_rank=2), Embedded(w.nodes))
    assert not wide.pending.entries
    assert narrow.shared.max_rank() == 2
    difference = narrow.shared.plus(narrow.pending).minus(wide.shared)
    assert difference.norm() <= 1e-4 * wide.shared.norm()


def _long(reply: Reply) -> Reply:
    assert reply.update is not None
    return replace(reply, update=reply.update.scaled(100.0))


def _nan(reply: Reply) -> Reply:
    assert reply.update is not None
    entries = dict(reply.update.entries)
    name = next(n for n, e in entries.items() if isinstance(e, Factored))
    entry = entries[name]
    assert isinstance(entry, Factored)
    entries[name] = Factored(entry.b * float("nan"), entry.a)
    return replace(reply, update=Update(entries, reply.update.spec))


def _wide(reply: Reply) -> Reply:
    assert reply.update is not None
    return replace(reply, update=reply.update.plus(reply.update))


def _missing(reply: Reply) -> Reply:
    assert reply.update is not None
    entries = dict(reply.update.entries)
    entries.pop(next(iter(entries)))
    return replace(reply, update=Update(entries, reply.update.spec))


def _extra(reply: Reply) -> Reply:
    assert reply.update is not None
    return replace(
        reply,
        update=Update({**reply.update.entries, "evil": Dense(torch.ones(2))}, reply.update.spec),
    )


@pytest.mark.parametrize(
    ("tamper", "code"),
    [
        (_nan, "not-finite"),
        (_wide, "entry-rank"),
        (_missing, "entries-differ"),
        (_extra, "entries-differ"),
        (lambda r: replace(r, update=Update(r.update.entries, "other")), "other-layout"),
        (lambda r: replace(r, update=r.update.scaled(0.0)), "norm-unusable"),
        (lambda r: replace(r, round=9), "wrong-round"),
        (lambda r: replace(r, update=None), "no-update"),
        (lambda r: replace(r, examples=0), "nothing-trained"),
        (lambda r: Failure(r.round, r.index, r.name, "TrainingError", "NaN loss"), "failed"),
    ],
)
def test_what_does_not_fit_stays_out_with_its_reason(
    make_federation: Any, tamper: Any, code: str
) -> None:
    w = build_setup(make_federation(participants=3))
    state, _ = open_state(w.run_spec, Embedded(w.nodes))
    after, body = run_round(state, w.run_spec, Altered(Embedded(w.nodes), 2, tamper))
    refused = [a for a in body["admissions"] if a["status"] != "admitted"]
    assert [a["name"] for a in refused] == ["site1"]
    assert refused[0]["reason"]["code"] == code
    without = replace(w.run_spec, members=tuple(m for m in w.run_spec.members if m.index != 2))
    expected, _ = run_round(state, without, Embedded(w.nodes))
    assert digest_update(after.shared) == digest_update(
        expected.shared
    )  # exactly as if it had not been there


def test_a_far_too_long_update_is_refused_from_the_second_round_on(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=3))
    state, _ = open_state(w.run_spec, Embedded(w.nodes))
    state, _ = run_round(state, w.run_spec, Embedded(w.nodes))
    long = Altered(Embedded(w.nodes), 2, _long)
    _, body = run_round(state, w.run_spec, long)
    found = next(a["reason"] for a in body["admissions"] if a["status"] == "rejected")
    assert (found["code"], found["facts"]["limit"]) == ("norm-too-long", 10.0)
    assert 10.0 < found["facts"]["times"] < 200.0


def test_no_usable_update_ends_the_run_with_every_reason(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=1))
    state, _ = open_state(w.run_spec, Embedded(w.nodes))
    index_one = Altered(Embedded({0: w.nodes[0], 1: w.nodes[1]}), 2, lambda r: r)

    @dataclass(frozen=True)
    class Failing:
        def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
            for task in tasks:
                if isinstance(task, TrainRequest) and task.index == 1:
                    yield Failure(task.round, 1, task.name, "TrainingError", "NaN loss")
                else:
                    yield from index_one.exchange([task])

    with refused(RunError, "no-update-usable"):
        run_round(state, w.run_spec, Failing())


def test_a_round_that_harms_the_general_model_is_rolled_back(make_federation: Any) -> None:
    """On a public slice whose labels say the opposite, learning is harm; the shared model stays
    where it was.
    """
    path = make_federation(
        participants=2, gate={"margin": 0.0}, train={"max_steps": 100, "local_epochs": 20.0}
    )
    public = path.parent / "public" / "slice.jsonl"
    swap = {"good": "bad", "bad": "good"}
    rows = sentences(200, 300)
    public.write_text(
        "".join(json.dumps({**row, "label": swap[row["label"]]}) + "\n" for row in rows)
    )
    w = build_setup(path)
    run_spec = replace(w.run_spec, learning_rate=2e-2)
    state, _ = open_state(run_spec, Embedded(w.nodes))
    after, body = run_round(state, run_spec, Embedded(w.nodes))
    assert not body["accepted"], body["gate"]
    assert body["reason"]["code"] == "general-worse"
    assert [row["name"] for row in body["reason"]["facts"]["slices"]] == ["public"]
    assert digest_update(after.shared) == digest_update(state.shared)
    assert (after.round, after.step_scale, after.stale_rounds) == (1, 0.5, 1)
