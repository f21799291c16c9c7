"""Participants in lock-step learn what each would learn alone, whatever ranks, batches and layouts;
who diverges fails alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from builders import build_setup
from tequio.app.assembly.setup import RunSetup
from tequio.core.types import Failure, Reply, TrainRequest
from tequio.core.update import Dense, Update, plain, zero
from tequio.participant.lockstep import alike
from tequio.participant.text_tasks import Causal
from tequio.runtimes.embedded import Embedded


def setup(make_federation: Any, kind: str, **sections: Any) -> RunSetup:
    return build_setup(make_federation(kind=kind, participants=3, centre=False, **sections))


def tasks_of(w: RunSetup, **changes: Any) -> list[TrainRequest]:
    """Ranks 4, 2, 4; 3 steps of up to 8 texts."""
    nothing = zero(w.adapted.spec)
    made = []
    for member in w.run_spec.members:
        task = TrainRequest(
            1,
            member.index,
            member.name,
            "product",
            member.rank,
            3,
            2e-3,
            40 + member.index,
            nothing,
        )
        made.append(replace(task, **changes))
    return made


def gap(one: Update, other: Update) -> float:
    """Of the norm."""
    assert one.entries.keys() == other.entries.keys()
    return float(one.minus(other).norm() / other.norm())


@pytest.mark.parametrize("kind", ["causal", "classification"])
def test_each_learns_what_it_would_learn_alone(make_federation: Any, kind: str) -> None:
    w = setup(make_federation, kind)
    tasks = tasks_of(w)
    alone = list(Embedded(w.nodes).exchange(tasks))
    seen: list[Any] = []
    together = list(Embedded(w.nodes, seen.append, lockstep=3).exchange(tasks))
    assert seen == tasks
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Reply)
        assert isinstance(other, Reply)
        assert one.update is not None
        assert other.update is not None
        assert gap(one.update, other.update) <= 1e-3
        assert (one.name, one.index, one.steps, one.tokens) == (
            other.name,
            other.index,
            other.steps,
            other.tokens,
        )
        assert one.metrics == pytest.approx(other.metrics, abs=1e-4)
        assert one.energy is not None


def test_two_at_a_time_and_two_workers_give_the_same_to_the_bit(make_federation: Any) -> None:
    """What is bundled depends on the order of tasks only.

    Three tasks in twos: a pair and one alone.
    """
    w = setup(make_federation, "causal")
    twin = w.adapted.twin()
    nodes = {i: replace(node, adapted=twin) for i, node in w.nodes.items()}
    torch.set_num_threads(1)
    tasks = tasks_of(w)
    one = list(Embedded(w.nodes, lockstep=2).exchange(tasks))
    two = list(Embedded(w.nodes, None, (nodes,), 2).exchange(tasks))
    for a, b in zip(one, two, strict=True):
        assert isinstance(a, Reply)
        assert isinstance(b, Reply)
        assert a.update is not None
        assert b.update is not None
        for name, entry in a.update.entries.items():
            assert torch.equal(plain(entry), plain(b.update.entries[name]))


@pytest.mark.parametrize("trained", ["both", "b"])
def test_shared_factors_go_on_in_lock_step(make_federation: Any, trained: str) -> None:
    w = setup(
        make_federation, "causal", algorithm={"reduce": "fedit" if trained == "both" else "ffa"}
    )
    g = torch.Generator().manual_seed(0)
    entries: dict[str, Any] = {}
    for name, (m, n) in w.adapted.shapes.items():
        entries |= {
            f"{name}:a": Dense(torch.randn(4, n, generator=g)),
            f"{name}:b": Dense(torch.randn(m, 4, generator=g) / 9),
        }
    tasks = tasks_of(w, layout="factors", start=Update(entries, w.adapted.spec), trained=trained)
    alone, together = (
        list(Embedded(w.nodes).exchange(tasks)),
        list(Embedded(w.nodes, lockstep=3).exchange(tasks)),
    )
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Reply)
        assert isinstance(other, Reply)
        assert one.update is not None
        assert other.update is not None
        assert gap(one.update, other.update) <= 1e-3


def test_who_diverges_fails_alone(make_federation: Any) -> None:
    """The second one's factors begin as infinite numbers."""
    w = setup(make_federation, "causal", algorithm={"reduce": "fedit"})
    shapes = w.adapted.shapes.items()
    good, bad = (
        Update(
            {f"{name}:a": Dense(torch.full((4, n), 0.1)) for name, (_, n) in shapes}
            | {f"{name}:b": Dense(torch.full((m, 4), value)) for name, (m, _) in shapes},
            w.adapted.spec,
        )
        for value in (0.01, float("inf"))
    )
    tasks = tasks_of(w, layout="factors", start=good)
    alone = list(Embedded(w.nodes).exchange(tasks))
    tasks[1] = replace(tasks[1], start=bad)
    answers = list(Embedded(w.nodes, lockstep=3).exchange(tasks))
    assert isinstance(answers[1], Failure)
    assert answers[1].name == tasks[1].name
    for i in (0, 2):
        mine, theirs = answers[i], alone[i]
        assert isinstance(mine, Reply)
        assert isinstance(theirs, Reply)
        assert mine.update is not None
        assert theirs.update is not None
        assert gap(mine.update, theirs.update) <= 1e-3


def test_only_plain_tasks_that_are_alike_go_together(make_federation: Any) -> None:
    w = setup(make_federation, "causal")
    node, (first, second, _) = w.nodes[1], tasks_of(w)
    assert alike(node, second, first)
    others: list[dict[str, Any]] = [
        {"steps": 2},
        {"learning_rate": 1e-4},
        {"terms": {"fedprox": 0.1}},
    ]
    for changes in [*others, {"method": "fomaml"}, {"round": 2}, {"held": Update({}, "other")}]:
        assert not alike(node, replace(second, **changes), first)
    assert isinstance(node.task, Causal)
    assert not alike(replace(node, task=replace(node.task, max_tokens=4096)), second, first)
