"""A scene: the world, setting and seeds that the arms of a question share; and every arm as a job
over all seeds.

The rate of an arm is chosen on the validation data of the first seed and kept for the others, which
is what a search costs when it is to end within the hour; local-only chooses for each participant in
each seed, so the baseline is the better tuned one.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from benchmarks.study import arms
from benchmarks.study.arms import CENTRAL, EXTENSIONS, FEDERATED, LOCAL, Grid, Outcome, Setting
from benchmarks.study.base import STEPS, base_folder
from benchmarks.study.jobs import Job
from benchmarks.study.world import (
    DOMAINS,
    OFFLINE_STEPS,
    SCARCE,
    Size,
    World,
    domain_texts,
    make_world,
    public_texts,
)
from tequio.config import AlgorithmSection

SETTING = Setting()
TINY = Size(train=8, validation=4, test=4, centre=8, public=4)


@dataclass(frozen=True)
class Scene:
    """What all arms of a question share. quick: an offline toy of two rounds and one seed, which
    only shows that all works.
    """

    size: Size = SCARCE
    setting: Setting = SETTING
    domains: tuple[str, ...] = DOMAINS
    seeds: tuple[int, ...] = (0, 1, 2)
    quick: bool = False

    def shown(self, quick: bool) -> Scene:
        """The scene itself, or its quick form."""
        if not quick:
            return self
        few = replace(
            self.setting, rounds=min(2, self.setting.rounds), steps=min(2, self.setting.steps)
        )
        return replace(self, size=TINY, setting=few, seeds=self.seeds[:1], quick=True)

    def world(self, seed: int) -> World:
        """The world of one seed (the last few are kept)."""
        return _world(seed, self.size, self.domains, self.quick)


@lru_cache(maxsize=4)
def _world(seed: int, size: Size, domains: tuple[str, ...], offline: bool) -> World:
    return make_world(seed, size, domains, offline)


def prepare(quick: bool) -> None:
    """What all workers need, made once before they begin: the base and the texts."""
    base_folder(OFFLINE_STEPS if quick else STEPS)
    if not quick:
        domain_texts(DOMAINS)
        public_texts()


Attempt = Callable[[World, Grid, int], Outcome]


def over_seeds(scene: Scene, grid: Grid, attempt: Attempt, again: bool = False) -> list[Outcome]:
    """An arm in every seed: the first searches the grid, the others take its rate. again: all
    search.
    """
    grid = grid[:1] if scene.quick else grid
    out: list[Outcome] = []
    for seed in scene.seeds:
        searched = again or not out
        rates, more = (grid, 0 if scene.quick else EXTENSIONS) if searched else ((out[0].rate,), 0)
        outcome = attempt(scene.world(seed), rates, more)
        out.append(outcome if searched else replace(outcome, at_edge=out[0].at_edge))
    return out


def run_base(scene: Scene) -> list[Outcome]:
    """No training."""
    return [arms.base(scene.world(seed)) for seed in scene.seeds]


def run_local(scene: Scene, grid: Grid = LOCAL) -> list[Outcome]:
    """Everybody alone."""
    return over_seeds(
        scene,
        grid,
        lambda world, rates, more: arms.local(world, scene.setting, rates, more),
        again=True,
    )


def run_central(scene: Scene, grid: Grid = CENTRAL) -> list[Outcome]:
    """One model on everybody's data."""
    return over_seeds(
        scene, grid, lambda world, rates, more: arms.central(world, scene.setting, rates, more)
    )


def run_federated(
    scene: Scene,
    arm: str,
    algorithm: AlgorithmSection,
    grid: Grid = FEDERATED,
    ranks: Sequence[int] | None = None,
) -> list[Outcome]:
    """A federation. Raises ConfigError where the pieces do not go together."""
    return over_seeds(
        scene,
        grid,
        lambda world, rates, more: arms.federated(
            world, arm, algorithm, scene.setting, rates, ranks, more
        ),
    )


def baselines(scene: Scene) -> dict[str, Job]:
    """base, local and central; equal scenes share them."""
    calls = {"base": run_base, "local": run_local, "central": run_central}
    return {name: Job(call, {"scene": scene}) for name, call in calls.items()}


def federation(
    scene: Scene,
    arm: str,
    grid: Grid = FEDERATED,
    ranks: Sequence[int] | None = None,
    **pieces: Any,
) -> Job:
    """A federated arm; `pieces` are keys of [algorithm], those left out as by default."""
    arguments = {
        "scene": scene,
        "arm": arm,
        "algorithm": AlgorithmSection(**pieces),
        "grid": grid,
        "ranks": ranks,
    }
    return Job(run_federated, arguments)


def outcomes(results: Mapping[str, Any], name: str) -> list[Outcome]:
    """An arm's outcomes, one a seed, back from JSON."""
    return [Outcome(**row) for row in results[name]]


def mean(values: Iterable[float]) -> float:
    """Over seeds."""
    return statistics.fmean(values)


def spread(values: Iterable[float], digits: int = 3) -> str:
    """`mean (lowest to highest)` over seeds, or the one value."""
    found = list(values)
    if len(found) == 1:
        return f"{found[0]:.{digits}f}"
    return f"{mean(found):.{digits}f} ({min(found):.{digits}f} to {max(found):.{digits}f})"
