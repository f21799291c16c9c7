"""Question 4: who should federate?

Scarce and ample data, times domains that another participant shares or that nobody does.

Four participants of equal rank. Each has the candidates of `participant.personal` (base,
local-only, shared, shared with a private adapter, points between local and shared) and picks one on
its own validation data, by the rule that Tequio uses; all are measured on test.

Target: in all four cells the picked model is within 1 % of the best candidate on test, which nobody
could know.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.study import arms
from benchmarks.study.answers import Answer, Table, Target
from benchmarks.study.arms import EXTENSIONS, FEDERATED, Setting
from benchmarks.study.jobs import Job
from benchmarks.study.scenes import Scene, mean
from benchmarks.study.world import AMPLE, MANUALS, REVIEWS, SCARCE, World
from tequio.config import AlgorithmSection
from tequio.core.errors import RunError
from tequio.core.seeds import derive
from tequio.core.update import Update, zero
from tequio.participant.choice import one_error
from tequio.participant.fit import fit
from tequio.participant.node import Node
from tequio.participant.personal import score
from tequio.participant.personal_budget import FitBudget

QUESTION = "scarce or ample data, shared or disjoint domains: who should federate?"
RANK, PRIVATE_RANK = 8, 4
CENTRAL_RATES = (5e-3, 1e-2)  # to begin with: the grid is extended
LOCAL_RATES = (1e-2, 2e-2)  # for each participant; around what `reduces` found best
PRIVATE_RATES, PRIVATE_SHARE = (3e-3,), 0.25  # of the steps of the rounds
ALPHAS, MIXES = (0.5, 1.0), (0.5,)
DISJOINT = (MANUALS[0], REVIEWS[0], MANUALS[1], REVIEWS[1])
SHARED = (MANUALS[0], REVIEWS[0], MANUALS[0], REVIEWS[0])
SCENES = {
    "scarce, disjoint": Scene(SCARCE, Setting(5, 20), DISJOINT),
    "scarce, shared": Scene(SCARCE, Setting(5, 20), SHARED),
    "ample, disjoint": Scene(AMPLE, Setting(5, 30), DISJOINT),
    "ample, shared": Scene(AMPLE, Setting(5, 30), SHARED),
}


@dataclass(frozen=True)
class Person:
    """One participant: validation and test loss of each candidate, which it picked, and the pooled
    central model's test loss.
    """

    name: str
    validation: Mapping[str, float]
    test: Mapping[str, float]
    chosen: str
    central: float

    @property
    def best(self) -> str:
        """The candidate of least test loss."""
        return min(self.test, key=lambda name: self.test[name])


def jobs(quick: bool) -> dict[str, Job]:
    """One job a cell."""
    return {name: Job(run_cell, {"scene": scene.shown(quick)}) for name, scene in SCENES.items()}


def run_cell(scene: Scene) -> dict[str, Any]:
    """The participants of each seed, and the rates.

    Federated and central rates are chosen in the first seed, the local one everywhere.
    """
    seeds: list[list[Person]] = []
    rates: dict[str, float] = {}
    federated, central = (
        (FEDERATED[:1], CENTRAL_RATES[:1]) if scene.quick else (FEDERATED, CENTRAL_RATES)
    )
    for seed in scene.seeds:
        world, more = scene.world(seed), 0 if seeds or scene.quick else EXTENSIONS
        world = replace(world, ranks=(RANK,) * len(scene.domains))
        shared = arms.search(federated, lambda rate: _federated(world, scene.setting, rate), more)  # noqa: B023
        pooled = arms.central(world, scene.setting, central, more)
        federated, central = (shared.rate,), (pooled.rate,)
        rates = {"shared": shared.rate, "central": pooled.rate}
        local = LOCAL_RATES[:1] if scene.quick else LOCAL_RATES
        seeds.append(
            [
                person(node, shared.value, scene.setting, local, pooled.test[node.name], seed)
                for node in world.participants
            ]
        )
    return {"rates": rates, "seeds": seeds}


def _federated(world: World, setting: Setting, rate: float) -> tuple[float, Update] | None:
    try:
        run = arms.federate(world, AlgorithmSection(), setting, rate)
    except RunError:
        return None
    return run.state.best_loss, run.model


def person(
    node: Node, shared: Update, setting: Setting, rates: Sequence[float], central: float, seed: int
) -> Person:
    """Make the candidates, pick one on validation, then look at all of them on test."""
    data, steps = (node.data.train, node.data.validation), setting.rounds * setting.steps
    extra = max(1, round(PRIVATE_SHARE * steps))
    own = FitBudget(RANK, steps + extra, tuple(rates), 2 * setting.rounds, setting.final_rate)
    top = FitBudget(PRIVATE_RANK, extra, PRIVATE_RATES, 4, setting.final_rate)
    local = fit(node, zero(node.adapted.spec), data, own, derive(seed, "local", node.name))
    private = fit(node, shared, data, top, derive(seed, "private", node.name))
    candidates = {"base": zero(node.adapted.spec), "local": local.tail, "shared": shared}
    if private.tail.entries:
        candidates |= {
            f"shared + {alpha:g} private": shared.plus(private.tail.scaled(alpha))
            for alpha in ALPHAS
        }
    for mix in MIXES:
        candidates[f"{1 - mix:g} shared + {mix:g} local"] = shared.scaled(1 - mix).plus(
            local.tail.scaled(mix)
        )
    evaluated = {name: score(node, model, data[1]) for name, model in candidates.items()}
    evaluated = {
        name: losses for name, losses in evaluated.items() if math.isfinite(losses.scores().loss)
    }
    test = {name: score(node, candidates[name], node.data.test).scores().loss for name in evaluated}
    return Person(
        node.name,
        {n: x.scores().loss for n, x in evaluated.items()},
        test,
        one_error(evaluated).name,
        central,
    )


def answer(results: Mapping[str, Any]) -> Answer:
    """Mean test losses of each cell, what was picked, and how far that is from the best
    candidate.
    """
    rows, targets, figures = [], [], {}
    for cell, value in results.items():
        people = [Person(**row) for seed in value["seeds"] for row in seed]
        regrets = [p.test[p.chosen] / p.test[p.best] - 1 for p in people]
        picked = mean(p.test[p.chosen] for p in people)
        regret = mean(regrets)
        columns = [mean(p.test[name] for p in people) for name in ("base", "local", "shared")]
        losses = [
            *columns,
            picked,
            mean(p.test[p.best] for p in people),
            mean(p.central for p in people),
        ]
        wins = sum(p.test[p.chosen] <= p.test["local"] for p in people)
        counts = Counter(p.chosen for p in people).most_common()
        words = ", ".join(f"{name} {count}" for name, count in counts)
        rows.append([cell, *(f"{loss:.3f}" for loss in losses), f"{wins} of {len(people)}", words])
        said = f"{100 * regret:.2f} % on average, {100 * max(regrets):.2f} % at most"
        targets.append(
            Target(
                f"{cell}: the personal model is within 1 % of the best candidate",
                said,
                regret <= 0.01,
            )
        )
        figures[cell] = {
            "regret": regret,
            "worst": max(regrets),
            "rates": value["rates"],
            "chosen": dict(counts),
        }
    columns_ = [
        "cell",
        "base",
        "local",
        "shared",
        "personal",
        "best candidate",
        "central",
        "no worse than local",
        "picked",
    ]
    return Answer(
        [Table(columns_, rows)], targets, ["Mean test losses over participants and seeds."], figures
    )
