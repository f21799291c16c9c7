"""Question 5: how many examples does a newcomer save by starting from a finished federation?

Two of the eight organisations stay out, another pair in each seed; the other six federate. Then
each newcomer adapts with k blocks of
its own: from the base at a fixed rate, from the base at a tuned rate (local-only), from a model
    pooled of the six, and from what the
six federated (as usual, with Reptile's outer rate, with FOMAML's steps). All choose rate and
checkpoint on the same validation blocks, adapt at the same rank and with the same steps. Target:
five times fewer examples than tuned local for equal loss.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.study import arms
from benchmarks.study.answers import Answer, Table, Target
from benchmarks.study.arms import CENTRAL, EXTENSIONS, FEDERATED, Grid, Setting, search
from benchmarks.study.jobs import Job
from benchmarks.study.scenes import Scene, mean, spread
from benchmarks.study.world import Size, World, split
from tequio.app.assembly.algorithm import build_local
from tequio.config import AlgorithmSection
from tequio.core.seeds import derive
from tequio.core.update import Update, zero
from tequio.participant.choice import one_error
from tequio.participant.fit import fit
from tequio.participant.node import Node
from tequio.participant.personal import score
from tequio.participant.personal_budget import FitBudget
from tequio.participant.text_tasks import Losses

QUESTION = "how many examples does a newcomer save?"
SCENE = Scene(Size(train=256), Setting(rounds=6, steps=8))
EXAMPLES = {16: 32, 64: 64, 256: 128}  # blocks of the newcomer: steps, four blocks each
RANK, CHECKS = 8, 6
ADAPT: Grid = (5e-3, 1e-2, 2e-2)
UNTUNED = 3e-3  # the rate of a federation.toml that names none
ALPHAS = (0.5, 1.0)
TARGET = 5.0


@dataclass(frozen=True)
class Start:
    """What a newcomer starts from: kind is base, pooled or federated (by these pieces); grid: the
    rates of its adapter.
    """

    kind: str
    grid: Grid = ADAPT
    algorithm: AlgorithmSection = field(default_factory=AlgorithmSection)
    method: str = "plain"


STARTS = {
    "base, untuned": Start("base", (UNTUNED,)),
    "local": Start("base"),
    "central": Start("pooled"),
    "federated": Start("federated"),
    "reptile": Start("federated", algorithm=AlgorithmSection(server="reptile")),
    "fomaml": Start("federated", method="fomaml"),
}


def jobs(quick: bool) -> dict[str, Job]:
    """One job a start."""
    scene = SCENE.shown(quick)
    return {
        name: Job(run_start, {"scene": scene, "start": start}) for name, start in STARTS.items()
    }


def run_start(scene: Scene, start: Start) -> list[dict[str, Any]]:
    """A seed a row: the newcomers' losses by k, and the rates that were chosen on the first
    seed.
    """
    out: list[dict[str, Any]] = []
    for seed in scene.seeds:
        world, newcomers = split(scene.world(seed))
        first = out[0] if out else None
        rate, model = _started(world, scene, start, None if first is None else first["rate"])
        row: dict[str, Any] = {"seed": seed, "rate": rate, "rates": {}, "losses": {}}
        row["losses"]["0"] = {node.name: _measured(node, {"1": model}) for node in newcomers}
        for count, steps in _sizes(scene):
            grid = start.grid if first is None else (first["rates"][str(count)],)
            more = EXTENSIONS if first is None and len(grid) > 1 and not scene.quick else 0
            best = search(grid, lambda r: _adapted(newcomers, model, count, steps, r, seed), more)  # noqa: B023
            row["rates"][str(count)] = best.rate
            row["losses"][str(count)] = {
                node.name: _measured(
                    node, {f"{alpha:g}": model.plus(tail.scaled(alpha)) for alpha in ALPHAS}
                )
                for node, tail in zip(newcomers, best.value, strict=True)
            }
        out.append(row)
    return out


def _sizes(scene: Scene) -> list[tuple[int, int]]:
    return [(4, 2), (8, 2)] if scene.quick else list(EXAMPLES.items())


def _started(world: World, scene: Scene, start: Start, rate: float | None) -> tuple[float, Update]:
    """(rate, model), the rate chosen on the validation data of the six unless it is given."""
    if start.kind == "base":
        return 0.0, zero(world.adapted.spec)
    grid = FEDERATED if start.kind == "federated" else CENTRAL
    grid = grid[:1] if scene.quick else grid if rate is None else (rate,)
    more = 0 if scene.quick or rate is not None else EXTENSIONS
    if start.kind == "pooled":
        pooled = arms.pooled(world, scene.setting, grid, more)
        return pooled.rate, pooled.value
    local = build_local(method=start.method)

    def run(rate: float) -> arms.Run:
        return arms.play(
            replace(arms.plan_of(world, start.algorithm, scene.setting, rate), local=local),
            world.nodes,
        )

    best = arms.tuned(run, grid, more)
    return best.rate, best.value.model


def _adapted(
    newcomers: Sequence[Node], model: Update, count: int, steps: int, rate: float, seed: int
) -> tuple[float, list[Update]]:
    """Mean validation loss and the adapters, at one rate for all."""
    tails, losses = [], []
    for node in newcomers:
        data = (node.data.train[:count], node.data.validation)
        fitted = fit(
            node,
            model,
            data,
            FitBudget(RANK, steps, (rate,), CHECKS),
            derive(seed, "newcomer", node.name),
        )
        tails.append(fitted.tail)
        losses.append(fitted.after.scores().loss)
    return mean(losses), tails


def _measured(node: Node, models: Mapping[str, Update]) -> dict[str, dict[str, Any]]:
    """By name of the model: each validation block's loss, and the mean of test."""
    return {
        name: {
            "validation": score(node, model, node.data.validation).per_example().tolist(),
            "test": score(node, model, node.data.test).scores().loss,
        }
        for name, model in models.items()
    }


def answer(results: Mapping[str, Any]) -> Answer:
    """Curves of loss by k, the area under them, and how many examples equal loss takes."""
    curves = {name: [_curve(row) for row in rows] for name, rows in results.items()}
    curves["delivered"] = _delivered(results)
    counts = [int(k) for k in results["local"][0]["losses"]]
    rows = []
    for name, seeds in curves.items():
        cells = [spread((curve[k] for curve in seeds), 3) for k in counts]
        ratios = [
            [saved(local, curve, k) for k in counts[2:]]
            for local, curve in zip(curves["local"], seeds, strict=True)
        ]
        rows.append([name, *cells, f"{mean(area(curve) for curve in seeds):.3f}", *_ratios(ratios)])
    most = counts[-1]
    wins = [
        saved(local, curve, most)
        for local, curve in zip(curves["local"], curves["delivered"], strict=True)
    ]
    columns = [
        "start",
        *(f"k = {k}" for k in counts),
        "mean over k",
        *(f"times fewer than local at {k}" for k in counts[2:]),
    ]
    claim = (
        f"delivered needs {TARGET:g} times fewer examples than tuned local with {most}, in "
        "every seed"
    )
    targets = [Target(claim, ", ".join(_words(w) for w in wins), min(wins) >= TARGET)]
    rates = {name: {"start": rows[0]["rate"], **rows[0]["rates"]} for name, rows in results.items()}
    return Answer([Table(columns, rows)], targets, figures={"curves": curves, "rates": rates})


def _curve(row: Mapping[str, Any]) -> dict[int, float]:
    """k: mean test loss of the newcomers, the adapter at full strength."""
    return {
        int(k): mean(models["1"]["test"] for models in found.values())
        for k, found in row["losses"].items()
    }


def _delivered(results: Mapping[str, Any]) -> list[dict[int, float]]:
    """What each newcomer's own choice gives: base, local, shared, or shared with its adapter (α = ½
    or 1).
    """
    out = []
    for local, shared in zip(results["local"], results["federated"], strict=True):
        curve = {}
        for k, found in shared["losses"].items():
            tests = []
            for name, models in found.items():
                evaluated = {
                    "base": local["losses"]["0"][name]["1"],
                    "shared": shared["losses"]["0"][name]["1"],
                }
                evaluated["local"] = local["losses"][k][name]["1"]
                evaluated |= {
                    f"shared + {alpha} private": model
                    for alpha, model in models.items()
                    if k != "0"
                }
                tests.append(
                    evaluated[
                        one_error({n: _losses(m["validation"]) for n, m in evaluated.items()}).name
                    ]["test"]
                )
            curve[int(k)] = mean(tests)
        out.append(curve)
    return out


def _losses(each: Sequence[float]) -> Losses:
    return Losses(np.array(each), np.ones(len(each)), np.full(len(each), np.nan))


def area(curve: Mapping[int, float]) -> float:
    """Mean loss over k by trapezoids, the k at equal distances (they grow fourfold; 0 stands one
    such step before the first).
    """
    losses = [curve[k] for k in sorted(curve)]
    return mean((a + b) / 2.0 for a, b in itertools.pairwise(losses))


def saved(local: Mapping[int, float], other: Mapping[int, float], count: int) -> float:
    """count / k, where k is how many examples `other` needs for local's loss at `count`, linear in
    log k.

    Infinity where it needs none; 0 where all of its k are not enough. Between 0 and the first k the
    first k counts.
    """
    wanted = local[count]
    ks = sorted(other)
    if other[ks[0]] <= wanted:
        return math.inf
    for low, high in itertools.pairwise(ks):
        if other[high] <= wanted:
            if low == 0:
                return count / high
            part = (other[low] - wanted) / (other[low] - other[high])
            return count / math.exp(math.log(low) + part * (math.log(high) - math.log(low)))
    return 0.0


def _ratios(by_seed: Sequence[Sequence[float]]) -> list[str]:
    return [", ".join(_words(seed[i]) for seed in by_seed) for i in range(len(by_seed[0]))]


def _words(times: float) -> str:
    if math.isinf(times):
        return "none needed"
    return f"{times:.1f}" if times else "not reached"
