"""The embedded runtime: one base however many participants, and a clean bench after a failure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from builders import build_setup
from tequio.app.assembly.setup import RunSetup
from tequio.app.simulation.parallelism import side_by_side
from tequio.coordinator.checkpoint import pack_state
from tequio.coordinator.round import open_state, run_round
from tequio.coordinator.run_spec import RunSpec
from tequio.core.canonical import digest_update
from tequio.core.seeds import derive
from tequio.core.types import EvaluateRequest, Failure, Reply, TrainRequest
from tequio.core.update import Dense, Update, zero
from tequio.runtimes.embedded import Embedded


def training(run_spec: RunSpec, index: int) -> TrainRequest:
    member = next(m for m in run_spec.members if m.index == index)
    seed = derive(run_spec.seed, "train", 1, index)
    return TrainRequest(
        1, index, member.name, "product", member.rank, member.steps, 5e-3, seed, zero(run_spec.spec)
    )


def tensors_of(w: RunSetup) -> set[int]:
    """Where the base's tensors lie: of every participant's bench, each place once."""
    places: set[int] = set()
    for node in w.nodes.values():
        for module in node.adapted.model.modules():
            for tensor in (*module.parameters(False), *vars(module).values()):
                if isinstance(tensor, torch.Tensor):
                    places.add(tensor.untyped_storage().data_ptr())
    return places


def test_the_base_is_in_memory_once_however_many_take_part(make_federation: Any) -> None:
    two, six = (build_setup(make_federation(participants=n, folder=f"fed{n}")) for n in (2, 6))
    assert len({id(node.adapted) for node in six.nodes.values()}) == 1
    assert len(tensors_of(six)) == len(tensors_of(two))
    before = len(tensors_of(six))
    list(
        Embedded(six.nodes).exchange(training(six.run_spec, m.index) for m in six.run_spec.members)
    )
    assert len(tensors_of(six)) == before  # no factors, gradients or copies stay behind


def test_replies_are_in_the_order_of_the_tasks_and_the_watcher_sees_each_before_it_runs(
    make_federation: Any,
) -> None:
    w = build_setup(make_federation(participants=3))
    seen: list[str] = []
    runtime = Embedded(w.nodes, lambda task: seen.append(task.name))
    for number, reply in enumerate(runtime.exchange(training(w.run_spec, i) for i in (3, 1, 2)), 1):
        assert reply.name == seen[-1]
        assert len(seen) == number
    assert seen == ["site2", "site0", "site1"]


@pytest.mark.parametrize("kind", ["classification", "causal"])
def test_a_failure_leaves_a_clean_model_for_the_next(make_federation: Any, kind: str) -> None:
    w = build_setup(make_federation(kind=kind, participants=2))
    alone = next(Embedded(w.nodes).exchange([training(w.run_spec, 2)]))
    assert isinstance(alone, Reply)
    runtime = Embedded(w.nodes)
    head = {name: tensor.clone() for name, tensor in w.adapted.head_start.items()}
    name, shape = next(
        (n, s) for n, s in w.adapted.shapes.items() if n.endswith(("v_proj", "value"))
    )
    nan = Update({name: Dense(torch.full(shape, float("nan")))}, w.run_spec.spec)
    failed = next(runtime.exchange([replace(training(w.run_spec, 1), held=nan)]))
    assert isinstance(failed, Failure)
    assert (failed.round, failed.index, failed.name, failed.error) == (
        1,
        1,
        "site0",
        "TrainingError",
    )
    assert "Participant site0: training diverged" in failed.message
    assert all(layer.a is None and layer.b is None for layer in w.adapted.layers.values())
    assert not any(isinstance(tensor, nn.Parameter) for tensor in w.adapted.head.values())
    assert all(torch.equal(head[name], w.adapted.head[name]) for name in head)
    after = next(runtime.exchange([training(w.run_spec, 2)]))
    assert isinstance(after, Reply)
    assert after.update is not None
    assert alone.update is not None
    assert digest_update(after.update) == digest_update(alone.update)


def test_what_does_not_belong_to_the_base_is_a_failure_not_the_end(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2))
    other = replace(training(w.run_spec, 1), held=zero("another base"))
    look = EvaluateRequest(1, 2, "site1", zero(w.run_spec.spec))
    failed, evaluated = Embedded(w.nodes).exchange([other, look])
    assert isinstance(failed, Failure)
    assert failed.error == "UpdateError"
    assert isinstance(evaluated, Reply)
    assert evaluated.examples == len(w.nodes[2].data.validation)


def test_a_validation_loss_that_is_not_a_number_is_a_failure(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=1))
    model: Any = w.adapted.model
    with torch.no_grad():
        model.embeddings.word_embeddings.weight.fill_(float("nan"))
    (reply,) = Embedded(w.nodes).exchange([EvaluateRequest(1, 1, "site0", zero(w.run_spec.spec))])
    assert isinstance(reply, Failure)
    assert "the loss of its validation data is nan" in reply.message


def together(w: RunSetup, workers: int, watch: Any = None) -> Embedded:
    first, *others = side_by_side(w, workers)
    return Embedded(first.nodes, watch, tuple(place.nodes for place in others))


def speed_free(body: Any) -> Any:
    free = ("seconds", "joules", "energy", "money")
    body = {k: v for k, v in body.items() if k != "evaluation"}
    return {
        **body,
        "train": [{k: v for k, v in row.items() if k not in free} for row in body["train"]],
    }


@pytest.mark.parametrize("kind", ["classification", "causal"])
def test_two_rounds_are_the_same_to_the_bit_with_any_number_of_workers(
    make_federation: Any, kind: str
) -> None:
    w = build_setup(make_federation(kind=kind, participants=4))
    found = []
    for workers in (1, 2, 3, 1):
        runtime = together(w, workers)
        state, _ = open_state(w.run_spec, runtime)
        records = []
        for _ in range(2):
            state, body = run_round(state, w.run_spec, runtime)
            records.append(speed_free(body))
        found.append((pack_state(state), records))
    assert found[0] == found[1] == found[2] == found[3]


def test_twins_share_the_base_and_are_clean_after_work(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=4))
    before = tensors_of(w)
    places = side_by_side(w, 3)
    assert len({id(place.adapted.model) for place in places}) == 3
    assert (
        set().union(*(tensors_of(place) for place in places)) == before
    )  # nothing of the base is there twice
    runtime = Embedded(places[0].nodes, None, tuple(place.nodes for place in places[1:]))
    list(runtime.exchange(training(w.run_spec, m.index) for m in w.run_spec.members))
    assert set().union(*(tensors_of(place) for place in places)) == before


def test_replies_of_workers_come_in_order_with_failures_among_them_and_tasks_are_made_one_by_one(
    make_federation: Any,
) -> None:
    w = build_setup(make_federation(participants=4))
    made, seen = [], []

    def tasks() -> Any:
        for number in range(40):
            made.append(number)
            task = training(w.run_spec, 1 + number % 4)
            yield (
                replace(task, held=zero("another base"))
                if number % 5 == 0
                else replace(task, steps=1)
            )

    replies = together(w, 2, lambda task: seen.append(task.index)).exchange(tasks())
    first = next(replies)
    assert len(made) <= 2 * 4 + 1  # two workers, four replies each may wait
    kinds = [first, *replies]
    assert [reply.index for reply in kinds] == [1 + n % 4 for n in range(40)] == seen
    assert [isinstance(reply, Failure) for reply in kinds] == [n % 5 == 0 for n in range(40)]


def test_energy_of_participants_side_by_side_adds_up_to_that_of_the_whole(
    make_federation: Any,
) -> None:
    w = build_setup(make_federation(participants=4, rows=200, train={"max_steps": 30}))
    runtime = together(w, 2)
    with w.meter.measure() as whole:
        replies = list(
            runtime.exchange(replace(training(w.run_spec, i), steps=30) for i in (1, 2, 3, 4))
        )
    parts = [
        reply.energy.joules
        for reply in replies
        if isinstance(reply, Reply) and reply.energy is not None
    ]
    assert len(parts) == 4
    # what is not training is the interpreter that hands tasks out; with process time, four parts
    # would be twice the whole
    assert 0.8 * whole.energy.joules <= sum(parts) <= 1.05 * whole.energy.joules
