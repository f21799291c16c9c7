"""Question 6: what keeps the general model while organisations learn, and at what price?

Each protection runs as a federation; of its model W₀ + G the points W₀ + α·G are then tried
(WiSE-FT, Wortsman et al., arXiv 2109.01903). Gain: fall of the participants' mean loss, as a share
of the fall without protection. Harm: rise of the loss on public text, over the base's. The gate and
the choice of α see the slice `english`; harm is reported on `unseen`, which nothing has seen.
Target: 90 % of the gain at 0.5 % harm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.study import arms
from benchmarks.study.answers import Answer, Table, Target
from benchmarks.study.arms import EXTENSIONS, Grid, Run, Setting
from benchmarks.study.jobs import Job
from benchmarks.study.scenes import Scene, baselines, mean, outcomes
from benchmarks.study.world import SCARCE, World, with_centre
from tequio.app.assembly.algorithm import build_local
from tequio.config import AlgorithmSection
from tequio.coordinator.run_spec import Member
from tequio.core.seeds import derive
from tequio.core.update import Update
from tequio.participant.personal import score
from tequio.participant.public_text import public_text

QUESTION = "what keeps the general model, and at what price?"
SCENE = Scene(SCARCE, Setting(rounds=4, steps=5))
ALPHAS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
BUDGETS = (0.005, 0.02, 0.05, 0.1)  # allowed harm on `english`
GRID: Grid = (2e-2, 4e-2, 8e-2)
RATE = 4e-2  # what "none" chooses on validation; `answer` says so if it chooses another


@dataclass(frozen=True)
class Protection:
    """A gate's margin (the centre judges only), λ (the centre trains), or local terms on public
    text.
    """

    gate_margin: float | None = None
    federated_share: float = 1.0
    terms: Mapping[str, float] = field(default_factory=dict)


PROTECTIONS = {
    "none": Protection(),
    "gate, margin 2 %": Protection(gate_margin=0.02),
    "gate, margin 10 %": Protection(gate_margin=0.1),
    "centre, λ = .5": Protection(federated_share=0.5),
    "replay .5": Protection(terms={"replay": 0.5}),
    "kl 1": Protection(terms={"kl": 1.0}),
    "replay .5, kl 1": Protection(terms={"replay": 0.5, "kl": 1.0}),
}


def jobs(quick: bool) -> dict[str, Job]:
    """Baselines and each protection.

    A gate decides about rounds, not about steps: it runs at the rate of "none".
    """
    scene = SCENE.shown(quick)
    made = baselines(scene)
    for name, protection in PROTECTIONS.items():
        fixed = quick or protection.gate_margin is not None
        grid = (RATE,) if fixed else GRID
        made[name] = Job(run_protected, {"scene": scene, "protection": protection, "grid": grid})
    return made


def run_protected(scene: Scene, protection: Protection, grid: Grid) -> list[dict[str, Any]]:
    """A seed a row: validation, test and both public slices at each α."""
    out: list[dict[str, Any]] = []
    for seed in scene.seeds:
        world = _world(scene, seed)
        rates = (out[0]["rate"],) if out else grid
        more = EXTENSIONS if len(rates) > 1 else 0
        best = arms.tuned(lambda rate: _run(world, scene, protection, rate), rates, more)  # noqa: B023
        points = [_point(world, best.value.model, alpha) for alpha in ALPHAS]
        rejected = sum(not body["accepted"] for body in best.value.bodies)
        out.append(
            {
                "seed": seed,
                "rate": best.rate,
                "at_edge": best.at_edge,
                "points": points,
                "rejected": rejected,
            }
        )
    return out


def _world(scene: Scene, seed: int) -> World:
    """The centre has English only, text like that which the base has read; so has the public text
    of the local terms.
    """
    world = scene.world(seed)
    world = world if scene.quick else with_centre(world, english=True)
    public = public_text(world.centre.data.train, world.centre.batch_size, derive(seed, "public"))
    return replace(
        world, nodes={i: replace(node, public=public) for i, node in world.nodes.items()}
    )


def _run(world: World, scene: Scene, protection: Protection, rate: float) -> Run:
    setting = replace(scene.setting, federated_share=protection.federated_share)
    run_spec = replace(
        arms.plan_of(world, AlgorithmSection(), setting, rate), local=build_local(protection.terms)
    )
    if protection.gate_margin is not None:
        run_spec = replace(
            run_spec, centre=Member("centre", 0, 1, 1), gate_margin=protection.gate_margin
        )
    return arms.play(run_spec, world.nodes)


def _point(world: World, model: Update, alpha: float) -> dict[str, float]:
    part = model.scaled(alpha)
    point = {
        split: mean(
            score(node, part, getattr(node.data, split)).scores().loss
            for node in world.participants
        )
        for split in ("validation", "test")
    }
    slices = {
        name: score(world.centre, part, items).scores().loss
        for name, items in world.centre.slices.items()
    }
    return {"alpha": alpha, **point, **slices}


def answer(results: Mapping[str, Any]) -> Answer:
    """Gain and harm of each protection, as it is and at the α that each budget allows."""
    whole = [_fall(row["points"], len(ALPHAS) - 1) for row in results["none"]]
    rows, best = [], dict.fromkeys(BUDGETS, ("", -math.inf, math.inf))
    figures: dict[str, Any] = {}
    for name in PROTECTIONS:
        found = results[name]
        chosen = {None: [len(ALPHAS) - 1] * len(found)} | {
            b: [allowed(r["points"], b) for r in found] for b in BUDGETS
        }
        pairs = {
            budget: (
                mean(_fall(r["points"], i) / w for r, i, w in zip(found, at, whole, strict=True)),
                mean(_harm(r["points"], i, "unseen") for r, i in zip(found, at, strict=True)),
            )
            for budget, at in chosen.items()
        }
        figures[name] = {
            "as it is" if budget is None else f"{budget:g}": pair for budget, pair in pairs.items()
        }
        for budget in BUDGETS:
            if pairs[budget][0] > best[budget][1]:
                best[budget] = (name, *pairs[budget])
        edge = found[0]["at_edge"] and PROTECTIONS[name].gate_margin is None  # gates search no grid
        rate = f"{found[0]['rate']:g}{' (edge)' if edge else ''}"
        rows.append(
            [
                name,
                rate,
                *(f"{100 * gain:.0f} %, {100 * harm:+.1f} %" for gain, harm in pairs.values()),
            ]
        )
    columns = [
        "protection",
        "rate",
        "as it is: gain, harm",
        *(f"α for {100 * b:g} %" for b in BUDGETS),
    ]
    title = (
        "Gain kept (test) and harm to the unseen slice, mean over seeds; α is chosen on "
        "validation and on the slice `english`:"
    )
    name, gain, harm = best[BUDGETS[0]]
    words = f"best is {name} with α: {100 * gain:.0f} % at {100 * harm:+.1f} %"
    targets = [
        Target("90 % of the gain at 0.5 % harm or less", words, gain >= 0.9 and harm <= 0.005)
    ]
    chosen_rate = results["none"][0]["rate"]
    notes = (
        []
        if chosen_rate == RATE
        else [f"**The gates ran at {RATE:g}; none chose {chosen_rate:g}. Change RATE.**"]
    )
    return Answer([Table(columns, rows, title), _levels(results)], targets, notes, figures)


def _levels(results: Mapping[str, Any]) -> Table:
    """Baselines, with their harm."""
    base = outcomes(results, "base")
    rows = []
    for name in ("base", "local", "central"):
        found = outcomes(results, name)
        public = [
            o.public["unseen"] / b.public["unseen"] - 1.0
            for o, b in zip(found, base, strict=True)
            if o.public
        ]
        rows.append(
            [
                name,
                f"{mean(o.mean for o in found):.3f}",
                f"{100 * mean(public):+.1f} %" if public else "",
            ]
        )
    none = [row["points"][-1]["test"] for row in results["none"]]
    rows.append(
        [
            "federation, none",
            f"{mean(none):.3f}",
            f"{100 * mean(_harm(r['points'], -1, 'unseen') for r in results['none']):+.1f} %",
        ]
    )
    return Table(["arm", "test loss", "harm, unseen"], rows, "Levels:")


def allowed(points: Sequence[Mapping[str, float]], budget: float) -> int:
    """Of the points within the budget on `english`, the one of least validation loss; the first is
    the base, and always is.
    """
    return min(
        (i for i in range(len(points)) if _harm(points, i, "english") <= budget),
        key=lambda i: points[i]["validation"],
    )


def _harm(points: Sequence[Mapping[str, float]], place: int, name: str) -> float:
    return points[place][name] / points[0][name] - 1.0


def _fall(points: Sequence[Mapping[str, float]], place: int) -> float:
    return points[0]["test"] - points[place]["test"]
