"""The laws of distillation: what an ensemble of equals is, what a teacher cannot do, and which
groups can teach one another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from builders import build_setup, refused
from tequio.algorithms.distil.loss import distil_loss
from tequio.algorithms.registry import ENSEMBLE, ensemble_by_name
from tequio.app.assembly.algorithm import build_distillation
from tequio.app.assembly.setup import RunSetup
from tequio.coordinator.checkpoint import pack_states, unpack_states
from tequio.coordinator.distillation import (
    Distillation,
    Group,
    Teacher,
    distil,
    models_shared,
    voting,
)
from tequio.coordinator.multi_base import open_groups, run_groups
from tequio.core.canonical import digest_update
from tequio.core.errors import ConfigError, TrainingError, UpdateError
from tequio.core.reason import Reason
from tequio.core.types import DistilRequest, State
from tequio.core.update import Factored, Update, zero
from tequio.runtimes.embedded import Embedded

# teacher of (.9, .1) and (.5, .5), worked by hand: √.45 : √.05 = 3 : 1, and the plain mean
ENSEMBLE_ROWS = {
    "feddf": (0.75, 0.25),
    "mixture": (0.7, 0.3),
}


def test_every_ensemble_has_a_row() -> None:
    assert set(ENSEMBLE_ROWS) == set(ENSEMBLE)


@pytest.mark.parametrize("name", sorted(ENSEMBLE_ROWS))
def test_the_teacher_of_two_is_the_one_worked_by_hand(name: str) -> None:
    piece = ensemble_by_name(name)
    one, other = (
        torch.tensor([[0.9, 0.1]]).log() + 7.0,
        torch.tensor([[0.5, 0.5]]).log(),
    )  # a constant does not matter
    mean = (piece.term(one, 1.0) + piece.term(other, 1.0)) / 2
    assert piece.teacher(mean)[0].tolist() == pytest.approx(ENSEMBLE_ROWS[name])


@pytest.mark.parametrize("name", sorted(ENSEMBLE_ROWS))
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_teacher_of_identical_models_is_the_model_whatever_the_weights(
    name: str, temperature: float
) -> None:
    piece, logits = (
        ensemble_by_name(name),
        torch.randn(5, 7, generator=torch.Generator().manual_seed(0)),
    )
    mean = (
        sum((piece.term(logits, temperature) * w for w in (1.0, 2.0, 5.0)), torch.zeros(5, 7)) / 8.0
    )
    teacher = piece.teacher(mean)
    torch.testing.assert_close(teacher, torch.softmax(logits / temperature, 1))
    assert float(distil_loss(logits, teacher, temperature)) == pytest.approx(0.0, abs=1e-6)


def test_an_unknown_ensemble_is_named_with_the_nearest() -> None:
    with refused(
        ConfigError, "piece-unknown", key="[distil] ensemble", value="fedf", nearest="feddf"
    ):
        ensemble_by_name("fedf")


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_gradient_is_student_minus_teacher_and_its_size_does_not_depend_on_the_temperature(
    temperature: float,
) -> None:
    """d/dz T²·KL = T·(q − p). Near each other q − p ≈ (z − t)/(T·C): T cancels.

    Here p is uniform, z = ±.02.
    """
    logits = torch.tensor([[0.02, -0.02]], requires_grad=True)
    distil_loss(logits, torch.tensor([[0.5, 0.5]]), temperature).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([0.01, -0.01], rel=1e-3)


def test_votes_count_participants_or_bases() -> None:
    nothing = zero("")
    teachers = [
        Teacher("a", "main", nothing, 3.0),
        Teacher("b", "main", nothing, 1.0),
        Teacher("c", "small", nothing, 1.0),
    ]
    assert [t.weight for t in voting(teachers, "participants")] == [3.0, 1.0, 1.0]
    assert [t.weight for t in voting(teachers, "bases")] == [0.75, 0.25, 1.0]


# --- in real groups
# ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["classification", "causal"])
def setup(request: Any, make_two_bases: Any) -> RunSetup:
    return build_setup(make_two_bases(kind=request.param))


def groups_of(w: RunSetup) -> list[Group]:
    return [Group(g.name, g.run_spec, Embedded(g.nodes), g.public) for g in w.groups]


def how_of(w: RunSetup, **changes: Any) -> Distillation:
    assert w.distillation is not None
    return replace(w.distillation, **changes)


def kl(group: Group, state: State, target: Tensor, items: tuple[int, ...]) -> float:
    """Mean KL(teacher ‖ the group's shared model) on public items."""
    assert group.distiller is not None
    return float(distil_loss(group.distiller.logits(state.shared, items), target, 1.0))


def test_two_bases_share_a_round_and_each_student_comes_nearer_to_the_teacher(
    setup: RunSetup,
) -> None:
    groups = groups_of(setup)
    assert [[m.name for m in g.run_spec.members] for g in groups] == [
        ["site0", "site2"],
        ["site1", "site3"],
    ]
    assert [m.index for g in groups for m in g.run_spec.members] == [1, 3, 2, 4]
    assert groups[0].run_spec.spec != groups[1].run_spec.spec
    states, _ = open_groups(groups)
    before, body = run_groups(states, groups, None)
    assert "distil" not in body
    how = how_of(setup)
    after, outcome = distil(before, groups, models_shared(groups, before), how)
    assert outcome["teachers"] == ["main", "small"]
    items = tuple(range(20))
    terms = [
        how.ensemble.term(g.distiller.logits(before[g.name].shared, items), 1.0)
        for g in groups
        if g.distiller
    ]
    target = how.ensemble.teacher((terms[0] + terms[1]) / 2)
    agreeing = [g for g in groups if outcome["groups"][g.name]["accepted"]]
    assert agreeing, outcome
    for group in agreeing:
        assert kl(group, after[group.name], target, items) < kl(
            group, before[group.name], target, items
        )
        assert outcome["groups"][group.name]["after"] <= outcome["groups"][group.name]["before"]


def test_distilling_from_oneself_changes_next_to_nothing(setup: RunSetup) -> None:
    """The gradient is rounding noise; AdamW makes steps of it, which undo one another.

    Toward the uniform teacher it goes far.
    """
    groups, items = groups_of(setup)[:1], (0, 1, 2, 3)
    shared = run_groups(open_groups(groups)[0], groups, None)[0]["main"].shared
    assert setup.public is not None
    own = torch.softmax(setup.public.logits(shared, items), 1)
    left: dict[str, float] = {}
    for name, teacher in (("own", own), ("uniform", torch.full_like(own, 1 / own.shape[1]))):
        task = DistilRequest(shared, items, teacher, 1.0, 2, 4, 1e-3, 0)
        change, first, last = setup.public.distil(task)
        assert first == pytest.approx(0.0, abs=1e-6) if name == "own" else last < first
        left[name] = float(distil_loss(setup.public.logits(shared.plus(change), items), own, 1.0))
    assert left["own"] < 2e-4
    assert left["uniform"] > 10 * left["own"]


@dataclass(frozen=True)
class Broken:
    """A centre over a base whose predictions are not numbers."""

    inner: Any

    @property
    def count(self) -> int:
        return int(self.inner.count)

    def logits(self, model: Update, items: Sequence[int]) -> Tensor:
        raise TrainingError("It cannot teach.", "NaN.")

    def distil(self, task: DistilRequest) -> tuple[Update, float, float]:
        out: tuple[Update, float, float] = self.inner.distil(task)
        return out


def test_a_model_that_predicts_nan_is_refused_as_a_teacher_and_named(setup: RunSetup) -> None:
    public = setup.others[0].public
    assert public is not None
    name = next(name for name in public.adapted.shapes if "value" in name or "v_proj" in name)
    m, n = public.adapted.shapes[name]
    bad = Update(
        {name: Factored(torch.full((m, 1), math.inf), torch.ones(1, n))}, public.adapted.spec
    )
    with refused(TrainingError, "teacher-not-finite", base="small"):
        public.logits(bad, (0, 1))


def test_without_its_broken_teacher_the_others_still_teach_and_with_none_nobody_learns(
    setup: RunSetup,
) -> None:
    groups = groups_of(setup)
    states, _ = run_groups(open_groups(groups)[0], groups, None)
    half = [groups[0], replace(groups[1], distiller=Broken(groups[1].distiller))]
    _, outcome = distil(states, half, models_shared(half, states), how_of(setup))
    assert outcome["teachers"] == ["main"]
    failed = {"error": "TrainingError", "message": "It cannot teach. NaN."}
    assert outcome["silent"] == {"small": {"code": "failed", "facts": failed}}
    none = [replace(g, distiller=Broken(g.distiller)) for g in groups]
    after, outcome = distil(states, none, models_shared(none, states), how_of(setup))
    assert {row["reason"]["code"] for row in outcome["groups"].values()} == {"no-teacher"}
    assert all(after[name] is states[name] for name in states)


def test_a_candidate_that_harms_the_group_is_left_with_the_reason(setup: RunSetup) -> None:
    """Toward a teacher that is told off every public text at a huge rate, no validation loss
    falls.
    """
    groups = groups_of(setup)
    states, _ = run_groups(open_groups(groups)[0], groups, None)
    after, outcome = distil(
        states, groups, models_shared(groups, states), how_of(setup, rate=100.0, temperature=0.01)
    )
    for name, row in outcome["groups"].items():
        assert not row["accepted"]
        assert row["reason"]["code"] in ("loss-would-rise", "failed")
        assert after[name] is states[name]


def test_participants_teach_their_own_shared_model_and_a_round_is_the_same_to_the_bit(
    setup: RunSetup,
) -> None:
    how = how_of(setup, teachers="participants")
    groups = groups_of(setup)
    states, _ = run_groups(open_groups(groups)[0], groups, how)
    saved = pack_states(states)
    again = unpack_states(saved, "x")
    assert pack_states(again) == saved
    one, body = run_groups(states, groups, how)
    two, _ = run_groups(again, groups, how)
    assert [digest_update(s.shared) for s in one.values()] == [
        digest_update(s.shared) for s in two.values()
    ]
    assert body["distil"]["teachers"] == ["site0", "site2", "site1", "site3"]
    assert sorted(body["validation"]) == ["site0", "site1", "site2", "site3"]
    assert set(body["bases"]) == {"main", "small"}


def test_a_checkpoint_of_groups_that_is_damaged_is_refused(setup: RunSetup) -> None:
    states, _ = open_groups(groups_of(setup))
    with pytest.raises(UpdateError):
        unpack_states(pack_states(states)[:-40], "the checkpoint")


def test_only_products_are_distilled(setup: RunSetup) -> None:
    assert setup.config.distil is not None
    from tequio.algorithms.registry import reduce_by_name

    with refused(ConfigError, "distil-factors") as caught:
        build_distillation(setup.config.distil, reduce_by_name("fedit"), 0)
    assert caught.value.reason == Reason("distil-factors", {"reduce": "fedit"})
