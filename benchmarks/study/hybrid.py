"""Question 3: does a centre that trains on public text save the participants work?

Eight organisations, two of each section of the Spanish manual. A centre with related text (other
sections) or unrelated text (English topics of Python's manual) trains too, mixed in with λ from 1
to 0; or its gradient is transferred one way; or participants' models teach the shared one on its
text. Participants make all their steps, half of them, or half the rounds. Targets: with half of the
work and a related centre, the loss of the whole federation without a centre; with unrelated text,
no harm.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.study import arms
from benchmarks.study.answers import Answer, Table, Target
from benchmarks.study.arms import Grid, Outcome, Run, Setting
from benchmarks.study.jobs import Job
from benchmarks.study.scenes import Scene, baselines, mean, outcomes, over_seeds, spread
from benchmarks.study.world import MANUALS, SCARCE, World, with_centre
from tequio.algorithms.registry import ensemble_by_name
from tequio.app.assembly.algorithm import build_local
from tequio.config import AlgorithmSection
from tequio.coordinator.distillation import Distillation, Group
from tequio.coordinator.multi_base import group_rounds
from tequio.coordinator.run_spec import RunSpec
from tequio.participant.distiller import PublicTexts
from tequio.runtimes.embedded import Embedded

QUESTION = "does a centre that trains save the participants work?"
WHOLE = Setting(rounds=4, steps=8)
SCENE = Scene(SCARCE, WHOLE, domains=tuple(name for name in MANUALS for _ in range(2)))
GRID: Grid = (2e-2, 4e-2, 8e-2)
DISTIL_RATE = 4e-3  # the middle of the grid of `bases`
CENTRE_STEPS = 16  # a round: the centre has the larger machine


@dataclass(frozen=True)
class Hybrid:
    """The participants' rounds and steps; λ; whose language the centre has (None: no centre); local
    terms.
    """

    rounds: int = WHOLE.rounds
    steps: int = WHOLE.steps
    federated_share: float = 1.0
    related: bool | None = None
    terms: Mapping[str, float] = field(default_factory=dict)
    centre_steps: int = CENTRE_STEPS
    centre_first: bool = (
        False  # the centre makes as many rounds alone before the participants begin
    )
    # participants' models teach the shared one on the centre's text (FedDF); the centre trains on
    # nothing else
    distilled: bool = False

    @property
    def work(self) -> float:
        """Local steps over those of the whole federation."""
        return self.rounds * self.steps / (WHOLE.rounds * WHOLE.steps)


HALF = WHOLE.steps // 2
HYBRIDS = {
    "no centre": Hybrid(),
    "related, λ = .7": Hybrid(federated_share=0.7, related=True),
    "unrelated, λ = .85": Hybrid(federated_share=0.85, related=False),
    "half the steps, no centre": Hybrid(steps=HALF),
    "half the rounds, no centre": Hybrid(rounds=WHOLE.rounds // 2),
    **{
        f"half the steps, related, λ = {share:g}": Hybrid(
            steps=HALF, federated_share=share, related=True
        )
        for share in (0.9, 0.7, 0.5, 0.25, 0.0)
    },
    "half the steps, unrelated, λ = 0.85": Hybrid(steps=HALF, federated_share=0.85, related=False),
    "half the steps, related, transfer .5": Hybrid(
        steps=HALF, related=True, terms={"transfer": 0.5}
    ),
    "half the steps, related centre first": Hybrid(steps=HALF, related=True, centre_first=True),
    **{
        f"half the steps, related centre first, then λ = {share:g}": Hybrid(
            steps=HALF, federated_share=share, related=True, centre_first=True
        )
        for share in (0.85, 0.5)
    },
    "half the steps, unrelated centre first": Hybrid(steps=HALF, related=False, centre_first=True),
    "half the steps, related, distilled": Hybrid(steps=HALF, related=True, distilled=True),
}


def jobs(quick: bool) -> dict[str, Job]:
    """Baselines and each hybrid, at its own rate."""
    scene = SCENE.shown(quick)
    made = {
        name: Job(run_hybrid, {"scene": scene, "arm": name, "hybrid": h})
        for name, h in HYBRIDS.items()
    }
    return baselines(scene) | made


def run_hybrid(scene: Scene, arm: str, hybrid: Hybrid, grid: Grid = GRID) -> list[Outcome]:
    """The federation in every seed."""

    def attempt(world: World, rates: Grid, more: int) -> Outcome:
        if hybrid.related is not None and not scene.quick:
            world = with_centre(world, english=not hybrid.related)
        best = arms.tuned(lambda rate: _run(world, scene, hybrid, rate), rates, more)
        return arms.outcome_of(world, arm, best)

    return over_seeds(scene, grid, attempt)


def _run(world: World, scene: Scene, hybrid: Hybrid, rate: float) -> Run:
    few = scene.setting
    setting = replace(
        few, rounds=min(hybrid.rounds, few.rounds), steps=min(hybrid.steps, few.steps)
    )
    steps = min(hybrid.centre_steps, 6 * few.steps)
    if hybrid.centre_first:
        setting = replace(setting, rounds=few.rounds + setting.rounds, centre_first=few.rounds)
    if hybrid.distilled:
        return _distilled(world, arms.plan_of(world, AlgorithmSection(), setting, rate), steps)
    share = min(
        hybrid.federated_share, 1.0 if hybrid.related is None else 0.999
    )  # so that it has its steps
    run_spec = arms.plan_of(
        world, AlgorithmSection(), replace(setting, federated_share=share, centre_steps=steps), rate
    )
    return arms.play(
        replace(run_spec, federated_share=hybrid.federated_share, local=build_local(hybrid.terms)),
        world.nodes,
    )


def _distilled(world: World, run_spec: RunSpec, steps: int) -> Run:
    """Rounds that end in distillation from all participants' own models, at DISTIL_RATE; kept where
    validation does not get worse.
    """
    begin, centre = time.perf_counter(), world.centre
    words = len(world.adapted.base.tokenizer)
    public = PublicTexts(
        "centre", world.adapted, centre.task, centre.data.train, centre.batch_size, words
    )
    groups = [Group("all", run_spec, Embedded(world.nodes), public)]
    how = Distillation(
        ensemble=ensemble_by_name("feddf"),
        every=1,
        teachers="participants",
        votes="participants",
        temperature=1.0,
        rank=run_spec.top_rank(),
        steps=steps,
        items=min(96, world.size.centre),
        rate=DISTIL_RATE,
        seed=run_spec.seed,
    )
    rounds = group_rounds(groups, how)
    states, _ = rounds.begin()
    bodies = []
    while not rounds.ended(states):
        states, body = rounds.advance(states)
        bodies.append(body)
    return Run(run_spec, states["all"], tuple(bodies), time.perf_counter() - begin)


def answer(results: Mapping[str, Any]) -> Answer:
    """Test loss against the whole federation without a centre, and what the centre's choice by
    validation gives.
    """
    found = {name: outcomes(results, name) for name in results}
    whole = found["no centre"]
    rows = []
    for name in ("base", "local", "central", *HYBRIDS):
        arm = found[name]
        over = mean(o.mean / w.mean - 1.0 for o, w in zip(arm, whole, strict=True))
        work = f"{100 * HYBRIDS[name].work:.0f} %" if name in HYBRIDS else ""
        rate = "" if name == "base" else f"{arm[0].rate:g}{' (edge)' if arm[0].at_edge else ''}"
        rows.append(
            [
                name,
                work,
                rate,
                spread(o.mean for o in arm),
                f"{100 * over:+.1f} %",
                _public(arm, found["base"]),
            ]
        )
    columns = ["arm", "participants' work", "rate", "test loss", "over no centre", "harm, English"]
    half = [name for name, h in HYBRIDS.items() if h.related and h.work <= 0.5]
    chosen = min(half, key=lambda name: mean(o.validation for o in found[name]))
    without = "half the steps, no centre"
    targets = [
        Target(
            "half the work or less, related centre (chosen on validation): no more loss than the "
            "whole federation",
            f"{chosen}: {_pair(found, chosen, 'no centre')}",
            _mean(found[chosen]) <= _mean(whole),
        ),
        _no_harm(found, "unrelated, λ = .85", "no centre"),
        _no_harm(found, "half the steps, unrelated, λ = 0.85", without),
    ]
    return Answer(
        [Table(columns, rows)],
        targets,
        figures={name: [o.mean for o in arm] for name, arm in found.items()},
    )


def _no_harm(found: Mapping[str, list[Outcome]], name: str, without: str) -> Target:
    claim = f"{name}: no more loss than {without}"
    return Target(claim, _pair(found, name, without), _mean(found[name]) <= _mean(found[without]))


def _mean(arm: list[Outcome]) -> float:
    return mean(o.mean for o in arm)


def _pair(found: Mapping[str, list[Outcome]], name: str, other: str) -> str:
    return f"{_mean(found[name]):.3f} against {_mean(found[other]):.3f}"


def _public(arm: list[Outcome], base: list[Outcome]) -> str:
    """Rise of the loss on the slices, over the base's."""
    if not arm[0].public:
        return ""
    rise = mean(
        mean(o.public.values()) / mean(b.public.values()) - 1.0
        for o, b in zip(arm, base, strict=True)
    )
    return f"{100 * rise:+.0f} %"
