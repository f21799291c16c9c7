"""Question 8: does a participant whose machine holds only a small base gain from those that hold a
large one?

Eight organisations, two of each section of the Spanish manual; of each pair one holds the large
base and one the small (an eighth of the parameters). Each group federates over its own base, and
their models teach each other on the centre's public text (FedDF); the centre itself does not train.
Target: the small-base participants gain, over training alone with the small base, half of what they
would gain with the large base over training alone with that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch

from benchmarks.study import arms
from benchmarks.study.answers import Answer, Table, Target
from benchmarks.study.arms import EXTENSIONS, FEDERATED, LOCAL, Best, Grid, Outcome, Run, Setting
from benchmarks.study.base import LENGTH, SMALL, STEPS, base_folder
from benchmarks.study.jobs import Job
from benchmarks.study.scenes import Scene, mean, over_seeds, spread
from benchmarks.study.world import MANUALS, MODULES, OFFLINE_STEPS, SCALE, SCARCE, World
from tequio.algorithms.registry import ensemble_by_name
from tequio.config import AlgorithmSection
from tequio.config.cache import cache_folder
from tequio.coordinator.distillation import Distillation, Group
from tequio.coordinator.multi_base import group_rounds
from tequio.core.errors import RunError
from tequio.core.seeds import derive
from tequio.core.types import State
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.base import load_base
from tequio.participant.distiller import PublicTexts
from tequio.runtimes.embedded import Embedded

QUESTION = "does a small base gain from a large one?"
SCENE = Scene(
    SCARCE, Setting(rounds=6, steps=8), domains=tuple(name for name in MANUALS for _ in range(2))
)
DISTIL: Grid = (2e-3, 4e-3, 8e-3)

Which = Literal["small", "large"]


@dataclass(frozen=True)
class Teaching:
    """[distil] of an arm; its rate is tuned."""

    teachers: Literal["groups", "participants"] = "groups"
    ensemble: str = "feddf"
    votes: Literal["participants", "bases"] = "participants"
    steps: int = 24
    items: int = 96


TEACHINGS = {
    "taught by both bases (feddf)": Teaching(),
    "taught by both bases (mixture)": Teaching(ensemble="mixture"),
    "taught by all participants (feddf)": Teaching(teachers="participants"),
}


def jobs(quick: bool) -> dict[str, Job]:
    """Every arm of the small-base participants over either base; the groups that teach each
    other.
    """
    scene = SCENE.shown(quick)
    made: dict[str, Job] = {}
    for which in ("small", "large"):
        made[f"base, {which}"] = Job(run_base, {"scene": scene, "which": which})
        made[f"alone, {which}"] = Job(run_alone, {"scene": scene, "which": which})
    made["four federated, small"] = Job(run_four, {"scene": scene})
    made["eight federated, large"] = Job(run_eight, {"scene": scene})
    return made | {
        name: Job(run_taught, {"scene": scene, "arm": name, "teaching": teaching})
        for name, teaching in TEACHINGS.items()
    }


def holds_small(seed: int) -> tuple[str, ...]:
    """The participants with the small base: the first or the second of each section, in turn."""
    return tuple(f"{name}-{1 + seed % 2}" for name in MANUALS)


@lru_cache(maxsize=1)
def small_model(offline: bool) -> AdaptedModel:
    """The small base with adapters on the same modules."""
    folder = base_folder(OFFLINE_STEPS if offline else STEPS, SMALL)
    return AdaptedModel(
        load_base(str(folder), "causal", torch.float32, cache_folder()), MODULES, SCALE
    )


def group(scene: Scene, seed: int, small: bool, over: Which) -> World:
    """The four participants that hold the small base (or the other four), with the centre, over one
    base; random streams of its own.
    """
    world, names = scene.world(seed), holds_small(seed)
    adapted = small_model(scene.quick) if over == "small" else world.adapted
    chosen = [k for k, node in enumerate(world.participants) if (node.name in names) is small]
    nodes = {
        i: replace(world.participants[k], adapted=adapted) for i, k in enumerate(chosen, start=1)
    }
    nodes[0] = replace(world.centre, adapted=adapted)
    own = derive(seed, "group", "small" if small else "large")
    pick = tuple(world.ranks[k] for k in chosen)
    return replace(
        world,
        seed=own,
        adapted=adapted,
        nodes=nodes,
        domains=tuple(world.domains[k] for k in chosen),
        ranks=pick,
    )


def run_base(scene: Scene, which: Which) -> list[Outcome]:
    """No training."""
    return [arms.base(group(scene, seed, True, which)) for seed in scene.seeds]


def run_alone(scene: Scene, which: Which, grid: Grid = LOCAL) -> list[Outcome]:
    """The small-base participants alone, over either base."""

    def attempt(world: World, rates: Grid, more: int) -> Outcome:
        return arms.local(group(scene, world.seed, True, which), scene.setting, rates, more)

    return over_seeds(scene, grid, attempt, again=True)


def run_four(scene: Scene, grid: Grid = FEDERATED) -> list[Outcome]:
    """The small group by itself."""

    def attempt(world: World, rates: Grid, more: int) -> Outcome:
        part = group(scene, world.seed, True, "small")
        return arms.federated(part, "four", AlgorithmSection(), scene.setting, rates, None, more)

    return over_seeds(scene, grid, attempt)


def run_eight(scene: Scene, grid: Grid = FEDERATED) -> list[Outcome]:
    """Everybody with the large base."""

    def attempt(world: World, rates: Grid, more: int) -> Outcome:
        return arms.federated(world, "eight", AlgorithmSection(), scene.setting, rates, None, more)

    return over_seeds(scene, grid, attempt)


def run_taught(
    scene: Scene, arm: str, teaching: Teaching, grid: Grid = FEDERATED
) -> dict[str, list[Any]]:
    """Both groups, each over its base.

    Rates of participants, then of the centre, are chosen on the first seed's validation data.
    """
    found: dict[str, list[Any]] = {"small": [], "large": [], "kept": [], "distil rate": []}
    rate, own = 0.0, 0.0
    for seed in scene.seeds:
        if not found["small"]:
            grids, more = (
                (grid[:1], DISTIL[:1]) if scene.quick else (grid, DISTIL),
                0 if scene.quick else EXTENSIONS,
            )
            rate = arms.search(
                grids[0],
                lambda r: _tried(scene, seed, teaching, r, DISTIL[1]),  # noqa: B023
                more,
            ).rate
            own = arms.search(grids[1], lambda r: _tried(scene, seed, teaching, rate, r), more).rate  # noqa: B023
        runs, retained = taught(scene, seed, teaching, rate, own)
        for which, run in runs.items():
            world = group(scene, seed, which == "small", which)  # type: ignore[arg-type]
            best = Best(rate, run.state.best_loss, run, {}, False)
            found[which].append(arms.outcome_of(world, arm, best))
        found["kept"].append(retained)
        found["distil rate"].append(own)
    return found


def _tried(
    scene: Scene, seed: int, teaching: Teaching, rate: float, own: float
) -> tuple[float, None] | None:
    """Mean validation loss of both groups' best models."""
    try:
        runs, _ = taught(scene, seed, teaching, rate, own)
    except RunError:
        return None
    return mean(run.state.best_loss for run in runs.values()), None


def taught(
    scene: Scene, seed: int, teaching: Teaching, rate: float, own: float
) -> tuple[dict[str, Run], dict[str, int]]:
    """(each group's run; of how many rounds each kept what it was taught)."""
    begin, groups = time.perf_counter(), []
    for which in ("large", "small"):
        world = group(scene, seed, which == "small", which)
        run_spec = arms.plan_of(world, AlgorithmSection(), scene.setting, rate)
        size, task = world.centre.batch_size, world.centre.task
        words = len(world.adapted.base.tokenizer)
        public = PublicTexts(which, world.adapted, task, world.centre.data.train, size, words)
        groups.append(Group(which, run_spec, Embedded(world.nodes), public))
    how = Distillation(
        ensemble=ensemble_by_name(teaching.ensemble),
        every=1,
        teachers=teaching.teachers,
        votes=teaching.votes,
        temperature=1.0,
        rank=max(g.run_spec.top_rank() for g in groups),
        steps=min(teaching.steps, 3 * scene.setting.steps),
        items=min(teaching.items, scene.size.centre),
        rate=own,
        seed=seed,
    )
    rounds = group_rounds(groups, how)
    states, _ = rounds.begin()
    bodies: list[dict[str, Any]] = []
    while not rounds.ended(states):
        states, body = rounds.advance(states)
        bodies.append(body)
    retained = {
        g.name: sum(body["distil"]["groups"][g.name]["accepted"] for body in bodies) for g in groups
    }
    seconds = time.perf_counter() - begin
    return {g.name: _own(g, states[g.name], bodies, seconds) for g in groups}, retained


def _own(which: Group, state: State, bodies: list[dict[str, Any]], seconds: float) -> Run:
    """The run of one group: its rows of the rounds."""
    names = {member.name for member in which.run_spec.members}
    own = [
        {
            "train": [row for row in body["train"] if row["name"] in names],
            "mean_validation_loss": body["bases"][which.name]["mean_validation_loss"],
        }
        for body in bodies
    ]
    return Run(which.run_spec, state, tuple(own), seconds)


def answer(results: Mapping[str, Any]) -> Answer:
    """Test losses of the small-base participants, their gains over training alone, and the share of
    the large base's gain.
    """
    seeds = range(len(results["base, small"]))
    arms_ = {name: _small(results[name], seeds) for name in results if name not in TEACHINGS}
    arms_ |= {name: _small(results[name]["small"], seeds) for name in TEACHINGS}
    gain = {
        name: [alone - loss for alone, loss in zip(arms_[_alone(name)], x, strict=True)]
        for name, x in arms_.items()
    }
    fall = {
        name: [base - loss for base, loss in zip(arms_[_base(name)], x, strict=True)]
        for name, x in arms_.items()
    }
    whole = "eight federated, large"
    rows = []
    for name, losses in arms_.items():
        share = (
            "" if name.endswith("large") else f"{100 * mean(gain[name]) / mean(gain[whole]):.0f} %"
        )
        rows.append([name, spread(losses), spread(fall[name]), spread(gain[name]), share])
    columns = [
        "arm (figures of the four with the small base)",
        "test loss",
        "under base",
        "under alone",
        "of the large's gain",
    ]
    others = [_other(name, results[name]) for name in TEACHINGS]
    shown = [
        "arm",
        "rate, distil rate",
        "large group's test loss",
        "rounds kept: large",
        "rounds kept: small",
    ]
    chosen = min(
        TEACHINGS, key=lambda name: mean(row["validation"] for row in results[name]["small"])
    )
    ratio = mean(gain[chosen]) / mean(gain[whole])
    alone = mean(gain["four federated, small"]) / mean(gain[whole])
    claim = (
        "taught (chosen on validation), the small base gains half of what the large base "
        "would, over training alone"
    )
    targets = [
        Target(
            claim,
            f"{chosen}: {100 * ratio:.0f} %; without being taught {100 * alone:.0f} %",
            ratio >= 0.5,
        ),
        Target(
            "being taught is no worse than the small group by itself",
            f"{mean(arms_[chosen]):.3f} against {mean(arms_['four federated, small']):.3f}",
            mean(arms_[chosen]) <= mean(arms_["four federated, small"]),
        ),
    ]
    notes = [
        f"Loss in nats a byte, blocks of {LENGTH} bytes; means over seeds, lowest to highest in "
        "brackets."
    ]
    return Answer([Table(columns, rows), Table(shown, others)], targets, notes, figures=arms_)


def _small(rows: list[dict[str, Any]], seeds: range) -> list[float]:
    """Mean test loss of the small-base participants, by seed."""
    return [mean(rows[seed]["test"][name] for name in holds_small(seed)) for seed in seeds]


def _alone(name: str) -> str:
    return "alone, large" if name.endswith("large") else "alone, small"


def _base(name: str) -> str:
    return "base, large" if name.endswith("large") else "base, small"


def _other(name: str, result: Mapping[str, Any]) -> list[str]:
    large = spread(mean(row["test"].values()) for row in result["large"])
    retained = [
        spread((float(k[which]) for k in result["kept"]), 1) for which in ("large", "small")
    ]
    return [name, f"{result['large'][0]['rate']:g}, {result['distil rate'][0]:g}", large, *retained]
