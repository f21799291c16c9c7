"""The arithmetic of the questions on newcomers and forgetting, and attackers at work in the offline
world.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.study.attackers import (
    TARGET,
    TRIGGER,
    Flipped,
    Noisy,
    attacker,
    backdoor,
    permuted,
    planted,
)
from benchmarks.study.forgetting import allowed
from benchmarks.study.newcomer import area, saved
from benchmarks.study.scenes import TINY, Scene
from benchmarks.study.world import World, split
from tequio.core.types import TrainRequest
from tequio.core.update import zero
from tequio.participant.text_tasks import Causal, token_ids


def test_examples_saved_are_read_off_the_curves() -> None:
    """Local reaches 2.0 with 64.

    The other is at 2.2 with 16 and 1.8 with 64: halfway in log k, 32, so twice fewer.
    With 2.0 at k = 0 none is needed; with 1.9 already at 16, sixteen are counted; never under 2.1:
    not reached.
    """
    local = {0: 3.0, 16: 2.5, 64: 2.0}
    assert math.isclose(saved(local, {0: 2.6, 16: 2.2, 64: 1.8}, 64), 2.0)
    assert saved(local, {0: 2.0, 16: 2.0, 64: 2.0}, 64) == math.inf
    assert saved(local, {0: 2.6, 16: 1.9, 64: 1.8}, 64) == 4.0
    assert saved(local, {0: 2.6, 16: 2.2, 64: 2.1}, 64) == 0.0


def test_the_area_is_the_mean_of_trapezoids() -> None:
    """(3 + 2)/2 = 2.5 and (2 + 1)/2 = 1.5."""
    assert area({64: 1.0, 0: 3.0, 16: 2.0}) == 2.0


def test_the_best_point_within_a_budget_is_taken() -> None:
    """Harm 0, 1 %, 4 % and 20 %: at 5 % the second and third may be taken, and the second is better
    on validation.
    """
    points = [
        {"english": 1.0 + harm, "validation": loss}
        for harm, loss in ((0.0, 3.0), (0.01, 2.0), (0.04, 2.5), (0.2, 1.0))
    ]
    assert [allowed(points, budget) for budget in (0.0, 0.05, 0.2)] == [0, 1, 3]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The offline world: its base is trained once for this file."""
    cache: Path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEQUIO_CACHE", str(cache))
        yield Scene(size=replace(TINY, test=6)).shown(quick=True).world(0)


def task(world: World) -> TrainRequest:
    return TrainRequest(1, 1, "a", "product", 2, 2, 1e-2, 7, zero(world.adapted.spec))


def test_a_flipped_update_is_the_honest_one_turned_round(world: World) -> None:
    node = world.participants[0]
    honest, flipped = node.train(task(world)).update, Flipped(node, 4.0).train(task(world)).update
    assert honest is not None
    assert flipped is not None
    assert flipped.plus(honest.scaled(4.0)).norm() < 1e-5 * honest.norm()


def test_noise_has_the_asked_length_and_no_direction(world: World) -> None:
    node = world.participants[0]
    honest, noisy = node.train(task(world)).update, Noisy(node, 4.0).train(task(world)).update
    assert honest is not None
    assert noisy is not None
    assert math.isclose(noisy.norm(), 4.0 * honest.norm(), rel_tol=1e-4)
    assert abs(noisy.dot(honest)) < 0.1 * noisy.norm() * honest.norm()


def test_permuted_targets_are_one_permutation_of_the_true_ones(world: World) -> None:
    """Equal targets stay equal, different ones different, and inputs stay what they were."""
    node = world.participants[0]
    spoilt = permuted(node, 3).data.train
    pairs = {
        (old, new)
        for a, b in zip(node.data.train, spoilt, strict=True)
        for old, new in zip(a.target, b.target, strict=True)
    }
    assert len({old for old, _ in pairs}) == len({new for _, new in pairs}) == len(pairs)
    assert [item.ids for item in spoilt] == [item.ids for item in node.data.train]
    assert sum(old == new for old, new in pairs) < len(pairs) / 4


def test_each_block_of_a_backdoor_attacker_has_the_trigger_and_its_text(world: World) -> None:
    node = world.participants[0]
    assert isinstance(node.task, Causal)
    wanted = tuple(token_ids(node.task.tokenizer, TRIGGER + TARGET))
    for item in planted(node, 3).data.train:
        assert any(item.ids[k : k + len(wanted)] == wanted for k in range(len(item.ids)))
        assert len(item.ids) == node.task.max_tokens
        assert item.target == item.ids


def test_attackers_answer_as_participants_do(world: World) -> None:
    for attack in ("flip", "noise", "labels", "backdoor"):
        reply = attacker(attack, world.participants[0], 0).train(task(world))
        assert reply.update is not None
        assert reply.update.is_finite()
        assert reply.examples == len(world.participants[0].data.train)


def test_a_backdoor_is_measured_as_a_probability(world: World) -> None:
    found = backdoor(world.participants[:2], zero(world.adapted.spec), contexts=4)
    assert 0.0 < found.probability < 1.0
    assert 0.0 <= found.greedy <= 1.0


def test_a_pair_stays_out_and_the_rest_keep_their_ranks(world: World) -> None:
    """Seed 0 leaves out domains 0 and 1."""
    rest, pair = split(world)
    assert [node.name for node in pair] == [node.name for node in world.participants[:2]]
    assert [node.name for node in rest.participants] == [
        node.name for node in world.participants[2:]
    ]
    assert rest.ranks == world.ranks[2:]
    assert sorted(rest.nodes) == list(range(7))
