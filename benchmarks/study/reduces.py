"""Question 1: with unequal ranks and eight domains, which way of adding updates up loses least?

Targets: stacking with norm equalisation closes 80 % or more of the gap between base and pooled central, where FedIT closes about half; who
gains does not go with rank (Spearman within 0.2); the worst-off participant is no worse than alone, nor than if everybody had rank 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.study.answers import Answer, Table, Target
from benchmarks.study.arms import Outcome, Setting, benefits, closed, rank_correlation
from benchmarks.study.jobs import Job
from benchmarks.study.scenes import Scene, baselines, federation, mean, outcomes, spread
from benchmarks.study.world import DOMAINS, Size, ranks_of

QUESTION = "unequal ranks: which way of adding updates up loses least?"
SCENE = Scene(Size(train=256), Setting(rounds=5, steps=20))
ARMS: Mapping[str, Mapping[str, Any]] = {
    "stack": {},
    "stack, uniform weights": {"weights": "uniform"},
    "stack, start fedex": {"start": "fedex"},
    "stack, start flexlora": {"start": "flexlora"},
    "fedit": {"reduce": "fedit"},
    "ffa": {"reduce": "ffa"},
    "rolora": {"reduce": "rolora"},
}
TWO = "stack, all of rank 2"


def jobs(quick: bool) -> dict[str, Job]:
    """base, local, central, each way, and ours with rank 2 for all."""
    scene = SCENE.shown(quick)
    made = {name: federation(scene, name, **pieces) for name, pieces in ARMS.items()}
    return baselines(scene) | made | {TWO: federation(scene, TWO, ranks=(2,) * len(DOMAINS))}


def answer(results: Mapping[str, Any]) -> Answer:
    """Shares of both gaps, the worst-off participant, and whom it benefits."""
    found = {name: outcomes(results, name) for name in results}
    base, local, central = found["base"], found["local"], found["central"]
    shares = {name: [closed(*row) for row in zip(base, central, arm, strict=True)] for name, arm in found.items()}
    worst = {name: mean(max(o.test.values()) for o in arm) for name, arm in found.items()}
    helped = {name: [_correlation(*pair) for pair in zip(local, arm, strict=True)] for name, arm in found.items()}
    rows = []
    for name, arm in found.items():
        harmed = sum(b < 0 for pair in zip(local, arm, strict=True) for b in benefits(*pair).values())
        people = sum(len(o.test) for o in arm)
        trained = name not in ("base", "local", "central")
        rows.append(
            [
                name,
                f"{arm[0].rate:g}{' (edge)' if arm[0].at_edge else ''}" if name != "base" else "",
                spread(o.mean for o in arm),
                f"{100 * mean(shares[name]):.0f} %",
                f"{worst[name]:.3f}",
                f"{harmed} of {people}" if trained else "",
                f"{mean(helped[name]):+.2f}" if trained else "",
            ]
        )
    columns = [
        "arm",
        "rate",
        "test loss",
        "of base to central",
        "worst-off",
        "worse than alone",
        "Spearman(benefit, rank)",
    ]
    ours, fedit, rho = mean(shares["stack"]), mean(shares["fedit"]), mean(helped["stack"])
    targets = [
        Target("stack closes 80 % or more of base to central", f"{100 * ours:.0f} %", ours >= 0.8),
        Target("FedIT closes about half of it", f"{100 * fedit:.0f} %", 0.4 <= fedit <= 0.6),
        Target("Spearman of benefit and rank within 0.2", f"{rho:+.2f}", abs(rho) <= 0.2),
        Target("worst-off with stack: no worse than alone", _pair(worst, "local"), worst["stack"] <= worst["local"]),
        Target(
            "worst-off with stack: no worse than with rank 2 for all", _pair(worst, TWO), worst["stack"] <= worst[TWO]
        ),
    ]
    return Answer([Table(columns, rows)], targets, figures={"shares": shares, "worst": worst, "spearman": helped})


def _correlation(alone: Outcome, together: Outcome) -> float:
    return rank_correlation(benefits(alone, together), ranks_of(alone.seed, len(alone.test))) or 0.0


def _pair(worst: Mapping[str, float], other: str) -> str:
    return f"{worst['stack']:.3f} against {worst[other]:.3f}"
