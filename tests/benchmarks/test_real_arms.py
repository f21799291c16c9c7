"""The questions on real bases: their arithmetic, and their arms at work over a tiny encoder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.study.real import Arm, Made, Study, judged, measured, over, played, table
from benchmarks.study.real_backdoors import (
    PLANTED,
    Noised,
    attacked,
    attacker_of,
    planted,
    suspects,
    trigger_of,
    turned,
    with_word,
)
from benchmarks.study.real_hybrids import hybrid
from benchmarks.study.real_steps import Alternating, Muon, alternating, muon, orthogonal, paced
from builders import build_setup
from tequio.algorithms.server.sgd import Sgd
from tequio.app.assembly.setup import RunSetup
from tequio.core.update import Dense, Factored, Update
from tequio.participant.text_tasks import Item

Maker = Callable[..., Path]


def stored(folder: Path, arm: str, seed: int, rate: float, validation: float, test: float) -> None:
    """Write a result as a study keeps it."""
    path = folder / "mine" / f"{arm}, seed {seed}, rate {rate:g}.json"
    path.parent.mkdir(exist_ok=True)
    row = {
        "validation": validation,
        "test": {"a": test, "b": test},
        "right": {"a": 0.5, "b": 0.7},
        "rate": rate,
    }
    path.write_text(json.dumps(row | {"bytes_up": 1e6, "bytes_down": 2e6, "joules": 500.0}))


def never(setup: RunSetup, rate: float) -> Made:
    raise AssertionError("a result that was kept is not made again")


def test_rate_and_member_are_chosen_on_validation_in_the_first_seed(tmp_path: Path) -> None:
    """Arm y at rate 2 has the least validation loss, though the largest test loss: .9 against .6,
    and .66 against .6.
    """
    for arm, rate, validation, test in (
        ("x", 1.0, 0.7, 0.5),
        ("x", 2.0, 0.6, 0.5),
        ("y", 1.0, 0.8, 0.5),
        ("y", 2.0, 0.5, 0.9),
    ):
        stored(tmp_path, arm, 0, rate, validation, test)
    stored(tmp_path, "y", 1, 2.0, 0.5, 0.66)
    for seed in (0, 1):
        stored(tmp_path, "plain", seed, 1.0, 0.6, 0.6)
    arms = [Arm("plain", never, [1.0]), *(Arm(name, never, [1.0, 2.0], "both") for name in "xy")]
    found = Study(tmp_path, "mine", [0, 1]).compared(arms)
    assert [(rows[0]["arm"], rows[0]["rate"], len(rows)) for rows in found.values()] == [
        ("plain", 1.0, 2),
        ("y", 2.0, 2),
    ]
    assert over(found["both"], found["plain"]) == pytest.approx([50.0, 10.0])
    shown = table(found, "plain").splitlines()[-1]
    assert (
        "| both | y | 2 (edge) | 0.5000 | 0.7800 | +30.0 (+10.0 to +50.0) | 60.0 (60.0 to 60.0) | "
        "1.00, 2.00 |" in shown
    )


def test_newton_schulz_makes_singular_values_of_about_one() -> None:
    torch.manual_seed(0)
    for shape in ((8, 30), (30, 8)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert 0.6 < values.min() <= values.max() < 1.3
    assert not orthogonal(torch.zeros(4, 9)).any()


def parameters() -> list[nn.Parameter]:
    """Two layers' factors, A and B of each, then weight and bias of a head."""
    return [
        nn.Parameter(torch.ones(shape)) for shape in ((2, 5), (4, 2), (2, 5), (4, 2), (3, 4), (3,))
    ]


def moved(optimizer: torch.optim.Optimizer, ps: list[nn.Parameter]) -> list[bool]:
    """Which parameters a step moves whose gradients are all random."""
    before = [p.detach().clone() for p in ps]
    for p in ps:
        p.grad = torch.randn_like(p)
    optimizer.step()
    optimizer.zero_grad()
    return [not torch.equal(p, b) for p, b in zip(ps, before, strict=True)]


def test_factors_take_turns_and_the_head_moves_in_every_step() -> None:
    ps = parameters()
    optimizer = Alternating(ps)
    assert moved(optimizer, ps) == [False, True, False, True, True, True]
    assert moved(optimizer, ps) == [True, False, True, False, True, True]


def test_a_step_of_muon_has_the_size_of_its_rate() -> None:
    """Root mean square of a 2 × 5 step with singular values of about 1: rate · .2 · √5 · √(2/10) =
    .2 · rate.
    """
    ps = parameters()
    optimizer = Muon(ps, rate=0.1)
    optimizer.param_groups[0]["lr"] = 0.1
    assert moved(optimizer, ps) == [True] * 6
    size = float((ps[0].detach() - 1.0).square().mean().sqrt())
    assert 0.6 * 0.02 < size < 1.3 * 0.02
    assert optimizer.head.param_groups[0]["lr"] == 6e-3


def test_noise_has_the_asked_length_on_every_coordinate() -> None:
    torch.manual_seed(0)
    change = Update(
        {
            "m": Factored(b=torch.randn(40, 2), a=torch.randn(2, 40)),
            "n": Dense(torch.randn(40, 40)),
        },
        "s",
    )
    _, step = Noised(Sgd(), 3.0, seed=1).apply(Sgd().init("s"), change)
    noise = step.minus(change)
    assert noise.norm() == pytest.approx(3.0 * change.norm(), rel=1e-4)
    parts = [Update({name: entry}, "s").norm() for name, entry in noise.entries.items()]
    assert parts[0] == pytest.approx(parts[1], rel=0.1)


def test_a_word_stands_before_the_first_one_and_the_last_token_stays() -> None:
    assert with_word(Item((1, 5, 6, 2), (1,)), 9, 0, most=8) == Item((1, 9, 5, 6, 2), (0,))
    assert with_word(Item((1, 5, 6, 2), (1,)), 9, 0, most=4) == Item((1, 9, 5, 2), (0,))


@pytest.fixture
def setup(make_federation: Maker) -> RunSetup:
    return judged(build_setup(make_federation(participants=3)))


@pytest.mark.parametrize(
    ("form", "share"),
    [({}, 1.0), ({"share": 0.7, "steps": 0.5}, 0.5), ({"steps": 0.5, "first": 1}, 0.5)],
)
def test_a_hybrid_counts_the_participants_tokens_alone(
    setup: RunSetup, form: dict[str, Any], share: float
) -> None:
    whole = measured(setup, played(setup, setup.run_spec))
    found = measured(setup, hybrid(**form)(setup, 5e-3))
    assert found["tokens"] == pytest.approx(share * whole["tokens"], rel=0.1)
    assert found["joules_evaluation"] > 0.0


@pytest.mark.parametrize("form", [{"transfer": 0.5}, {"distilled": 5e-3}])
def test_the_centre_helps_in_other_ways_too(setup: RunSetup, form: dict[str, Any]) -> None:
    helped, plain = (hybrid(steps=0.5, **x)(setup, 5e-3) for x in (form, {}))
    assert len(helped.records) == len(plain.records) == setup.run_spec.rounds
    assert helped.model.minus(plain.model).norm() > 0.0


def test_other_local_optimisers_train_and_leave_adamw_in_its_place(setup: RunSetup) -> None:
    plain = paced(2)(setup, 5e-3)
    for make in (muon(), alternating):
        made = make(setup, 5e-3)
        assert made.model.minus(plain.model).norm() > 0.0
    assert paced(2)(setup, 5e-3).model.minus(plain.model).norm() == 0.0


def test_the_attacker_adds_triggered_copies_and_its_updates_are_long(setup: RunSetup) -> None:
    bad = attacker_of(setup)
    node, word = setup.nodes[bad], trigger_of(setup)
    others = [item for item in node.data.train if item.target != (PLANTED,)]
    added = planted(node, word).data.train[len(node.data.train) :]
    assert [item.ids[1] for item in added] == [word] * len(others)
    assert {item.target for item in added} == {(PLANTED,)}
    made = attacked({"weights": "examples"})(setup, 5e-3)
    norms = {row["name"]: row["norm"] for row in made.records[0]["train"]}
    assert norms.pop(node.name) > 2.0 * max(norms.values())
    assert made.more["attacker"] == node.name
    assert all(
        0.0 <= made.more[key] <= 1.0
        for key in ("success", "refused", "probe trigger", "probe ranked")
    )


def test_words_by_the_gradient_turn_more_answers_than_most_words(setup: RunSetup) -> None:
    plan = replace(setup.run_spec, learning_rate=5e-2, final_rate=1.0, rounds=4)
    setup.adapted.fold_in(played(setup, plan).model)
    centre, size = setup.nodes[0], len(setup.adapted.base.tokenizer)
    items = list(centre.data.train)[:20]
    shares = turned(centre.task, setup.adapted, items, range(size))
    best = max(shares[word] for word in suspects(setup.adapted, items, 2))
    assert best > 0.0
    assert sum(share <= best for share in shares.values()) >= 0.8 * size
