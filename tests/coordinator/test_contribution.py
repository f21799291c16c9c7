"""Contributions: they add up, they rank like exact Shapley values, noise comes last; in a real
small round they are recorded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from builders import build_setup, records
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.coordinator import contribution
from tequio.coordinator.admission import Admitted
from tequio.coordinator.aggregation import aggregate, mix
from tequio.coordinator.run_spec import Member, RunSpec
from tequio.core.errors import ConfigError
from tequio.core.protocols import Facts
from tequio.core.update import Dense, Update
from tequio.measure.statistics import spearman

FEATURES, CLASSES = 20, 3
SIZES = (24, 36, 48, 64, 96, 60)
NOISE = 5
Data = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class World:
    """Softmax regression: training and validation data of six, the last one's labels noise."""

    train: list[Data]
    validation: list[Data]

    def loss(self, w: np.ndarray) -> float:
        """Mean over participants."""
        return float(np.mean([cross_entropy(w, *data) for data in self.validation]))


def world(seed: int) -> World:
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(FEATURES, CLASSES))
    train, validation = [], []
    for i, size in enumerate(SIZES):
        x = rng.normal(size=(size + 100, FEATURES)) + 0.3 * rng.normal(size=FEATURES)
        y = (x @ truth + rng.gumbel(size=(size + 100, CLASSES))).argmax(1)
        if i == NOISE:
            y = rng.integers(0, CLASSES, size=len(y))
        train.append((x[:size], y[:size]))
        validation.append((x[size:], y[size:]))
    return World(train, validation)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))


def cross_entropy(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(softmax(x @ w)[np.arange(len(y)), y] + 1e-12).mean())


def local(w: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Five steps of gradient descent."""
    now = w.copy()
    for _ in range(5):
        p = softmax(x @ now)
        p[np.arange(len(y)), y] -= 1
        now -= 0.5 * x.T @ p / len(y)
    return np.asarray(now - w)


def counted_of(change: np.ndarray, index: int, examples: int, run_spec: RunSpec) -> Admitted:
    update = Update({"head.weight": Dense(torch.tensor(change))}, run_spec.spec)
    facts = Facts(examples=examples, steps=5, norm=update.norm())
    return Admitted(
        Member(f"p{index}", index, 1, 5), update, facts, {"name": f"p{index}", "rank": 1}
    )


def federated(
    w_: World, who: tuple[int, ...], run_spec: RunSpec
) -> tuple[np.ndarray, dict[str, float]]:
    """(the model after six rounds, agreements summed over them)."""
    model, credits = np.zeros((FEATURES, CLASSES)), {f"p{i + 1}": 0.0 for i in who}
    for _ in range(6 if who else 0):
        fold = aggregate(
            [counted_of(local(model, *w_.train[i]), i + 1, SIZES[i], run_spec) for i in who],
            run_spec,
        )
        change = mix(fold, run_spec)
        entry = change.entries["head.weight"]
        assert isinstance(entry, Dense)
        after = model + entry.value.numpy()
        for row in contribution.rows(
            fold, contribution.agreements(fold, change, run_spec), w_.loss(after), None, run_spec
        ):
            credits[row["name"]] += row["agreement"]
        model = after
    return model, credits


@pytest.mark.parametrize("weights", ["uniform", "examples", "norm_equalised"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_credits_rank_like_exact_shapley_values_and_noise_is_last(
    make_federation: Any, seed: int, weights: str
) -> None:
    path = make_federation(
        rows=40, centre=False, algorithm={"weights": weights}, equity={"credit": True}
    )
    run_spec = build_setup(path).run_spec
    w_, people = world(seed), range(len(SIZES))
    value = {
        who: -w_.loss(federated(w_, who, run_spec)[0])
        for size in range(len(SIZES) + 1)
        for who in combinations(people, size)
    }
    exact = [
        sum(
            math.factorial(len(who))
            * math.factorial(5 - len(who))
            / math.factorial(6)
            * (value[tuple(sorted((*who, i)))] - before)
            for who, before in value.items()
            if i not in who
        )
        for i in people
    ]
    _, credits = federated(w_, tuple(people), run_spec)
    first = [credits[f"p{i + 1}"] for i in people]
    rho = spearman(first, exact)
    assert rho is not None
    if weights != "uniform":  # there six of one kind are nearly alike; measured: .66, 1.0, .6
        assert rho >= 0.8
    assert min(people, key=lambda i: first[i]) == NOISE
    assert sum(exact) == pytest.approx(value[tuple(people)] - value[()], rel=1e-9)
    assert sum(first) > 0


def test_a_round_records_who_contributed(make_federation: Any, tmp_path: Path) -> None:
    path = make_federation(participants=3, rows=60, equity={"credit": True, "leave_one_out": True})
    start(load_federation(path), tmp_path / "run", False)
    entries, _ = records(tmp_path / "run")
    before = next(e.body for e in entries if e.kind == "start")["validation"]
    rounds = [e.body for e in entries if e.kind == "round"]
    for body in rounds:
        assert body["accepted"]
        rows = {row["name"]: row for row in body["credit"]}
        assert set(rows) == {"site0", "site1", "site2", "centre"}
        assert all(math.isfinite(row["agreement"]) for row in rows.values())
        assert all(math.isfinite(rows[n]["leave_one_out"]) for n in before)
        assert "leave_one_out" not in rows["centre"]


def test_leaving_nobody_out_changes_nothing(make_federation: Any) -> None:
    run_spec = replace(build_setup(make_federation(rows=40, centre=False)).run_spec, credit=True)
    w_ = world(0)
    parts = [
        counted_of(local(np.zeros((FEATURES, CLASSES)), *w_.train[i]), i + 1, SIZES[i], run_spec)
        for i in range(3)
    ]
    fold = aggregate(parts, run_spec)
    two = mix(aggregate(parts[:2], run_spec), run_spec)
    assert (
        mix(contribution.without(fold, 3, run_spec), run_spec).minus(two).norm()
        <= 1e-12 * two.norm()
    )
    assert (
        mix(contribution.without(fold, 9, run_spec), run_spec).minus(mix(fold, run_spec)).norm()
        == 0.0
    )


def test_credits_need_a_star_and_adapters(make_federation: Any) -> None:
    for sections in (
        {"topology": {"kind": "ring"}, "equity": {"credit": True}},
        {"equity": {"leave_one_out": True}},
    ):
        with pytest.raises(ConfigError, match="equity"):
            load_federation(
                make_federation(rows=10, centre=False, folder=str(len(sections)), **sections)
            )
