"""Question 1: with unequal ranks and eight domains, which way of adding updates up loses least?

Targets: stacking with norm equalisation closes 80 % or more of the gap between base and pooled
central, where FedIT closes about half; who gains does not go with rank (Spearman within 0.2); the
worst-off participant is no worse than alone, nor than if everybody had rank 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.study.answers import Answer, Table, Target
from benchmarks.study.arms import Outcome, Setting, benefits, closed, rank_correlation
from benchmarks.study.jobs import Job
from benchmarks.study.scenes import Scene, baselines, federation, mean, outcomes, spread
from benchmarks.study.world import DOMAINS, ranks_of

QUESTION = "unequal ranks: which way of adding updates up loses least?"
SCENE = Scene(setting=Setting(rounds=5, steps=20))
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
    seen = {name: Seen.of(arm, found) for name, arm in found.items()}
    columns = [
        "arm",
        "rate",
        "test loss",
        "of base to central",
        "of local to central",
        "worst-off",
        "worst benefit",
    ]
    columns += ["worse than alone", "Spearman(benefit, rank)"]
    rows = [_row(name, found[name], seen[name]) for name in found]
    figures = {name: vars(what) for name, what in seen.items()}
    return Answer([Table(columns, rows)], _targets(seen), figures=figures)


@dataclass(frozen=True)
class Seen:
    """What is said of an arm, means over seeds: shares of two gaps, largest test loss, least
    benefit over alone, how many are worse off.
    """

    of_base: float
    of_local: float
    worst: float
    benefit: float
    harmed: int
    spearman: float

    @staticmethod
    def of(arm: Sequence[Outcome], found: Mapping[str, Sequence[Outcome]]) -> Seen:
        """Measure it against base, local and central of the same seeds."""
        base, local, central = found["base"], found["local"], found["central"]
        gains = [benefits(*pair) for pair in zip(local, arm, strict=True)]
        return Seen(
            of_base=mean(closed(*row) for row in zip(base, central, arm, strict=True)),
            of_local=mean(closed(*row) for row in zip(local, central, arm, strict=True)),
            worst=mean(max(o.test.values()) for o in arm),
            benefit=mean(min(gain.values()) for gain in gains),
            harmed=sum(b < 0 for gain in gains for b in gain.values()),
            spearman=mean(
                rank_correlation(gain, ranks_of(o.seed, len(gain))) or 0.0
                for o, gain in zip(arm, gains, strict=True)
            ),
        )


def _row(name: str, arm: Sequence[Outcome], seen: Seen) -> list[str]:
    rate = "" if name == "base" else f"{arm[0].rate:g}{' (edge)' if arm[0].at_edge else ''}"
    row = [
        name,
        rate,
        spread(o.mean for o in arm),
        f"{100 * seen.of_base:.0f} %",
        f"{100 * seen.of_local:+.0f} %",
    ]
    row.append(f"{seen.worst:.3f}")
    if name in ("base", "local", "central"):
        return [*row, "", "", ""]
    people = sum(len(o.test) for o in arm)
    return [
        *row,
        f"{100 * seen.benefit:+.1f} %",
        f"{seen.harmed} of {people}",
        f"{seen.spearman:+.2f}",
    ]


def _targets(seen: Mapping[str, Seen]) -> list[Target]:
    ours, fedit, two = seen["stack"], seen["fedit"], seen[TWO]
    against = f"{100 * ours.benefit:+.1f} % against {100 * two.benefit:+.1f} %"
    losses = f"{ours.worst:.3f} against {two.worst:.3f}"
    rho = ours.spearman
    return [
        Target(
            "stack closes 80 % or more of base to central",
            f"{100 * ours.of_base:.0f} %",
            ours.of_base >= 0.8,
        ),
        Target(
            "FedIT closes about half of it",
            f"{100 * fedit.of_base:.0f} %",
            0.4 <= fedit.of_base <= 0.6,
        ),
        Target("Spearman of benefit and rank within 0.2", f"{rho:+.2f}", abs(rho) <= 0.2),
        Target(
            "the worst benefit of stack is none below alone",
            f"{100 * ours.benefit:+.1f} %",
            ours.benefit >= 0,
        ),
        Target(
            "the worst benefit is no worse than at rank 2 for all",
            against,
            ours.benefit >= two.benefit,
        ),
        Target("the worst-off is no worse than at rank 2 for all", losses, ours.worst <= two.worst),
    ]
