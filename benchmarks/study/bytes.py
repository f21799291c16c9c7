"""Question 2: how few bytes do, both ways, before the loss suffers?

Per-step synchronisation is data-parallel AdamW: in every step each participant sends its gradient
of the adapter and gets the mean back, in float32. Against it: fewer exchanges (H local steps each),
coded ones, and sparse ones with error feedback. Four participants, all of rank 16, so that only
bytes differ.

Targets: 200 times fewer bytes than per-step synchronisation at 1 % more loss at most; adapters 100
times under float32 at .5 % over 100 rounds; 4 bits are free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.study.answers import Answer, Table, Target
from benchmarks.study.arms import (
    CENTRAL,
    FEDERATED,
    Grid,
    Outcome,
    Setting,
    data_parallel,
    federated,
)
from benchmarks.study.jobs import Job
from benchmarks.study.picture import Curve, picture
from benchmarks.study.scenes import Scene, mean, outcomes, over_seeds, spread
from benchmarks.study.world import AMPLE, MANUALS, REVIEWS
from tequio.config import AlgorithmSection

QUESTION = "how few bytes do before the loss suffers?"
RANK, STEPS = 16, 200
DOMAINS = (MANUALS[0], REVIEWS[0], MANUALS[1], REVIEWS[1])
RANKS = (RANK,) * len(DOMAINS)
SCENE = Scene(AMPLE, Setting(1, STEPS), DOMAINS)
BITS4 = {
    "upload": "quantise",
    "upload_settings": {"bits": 4},
    "download": "quantise",
    "download_settings": {"bits": 4},
}
NESTEROV = {
    # all ranks are equal, so its bias is small, and factors that go on are half the bytes of a
    # product
    "reduce": "fedit",
    "server": "nesterov",
    "server_settings": {"learning_rate": 0.7, "momentum": 0.6},
}
LONGER = {
    "start": "fedex",
    "server_settings": {"learning_rate": 1.5},
}  # four rounds are too few for momentum
WIDE: Grid = (5e-3, 1e-2, 2e-2)
SPARSE = {"density": 0.02, "bits": 2}
LONG = 100  # rounds of the sparse arms


def both_ways(settings: Mapping[str, float]) -> dict[str, Any]:
    """Top-k up and down."""
    return {
        "upload": "topk",
        "upload_settings": settings,
        "download": "topk",
        "download_settings": settings,
    }


FAMILIES: Mapping[str, tuple[int, Grid, Mapping[str, Mapping[str, Any]]]] = {
    # rounds; rates to search with the first arm, which the others of the family take over; arms
    "H = 10": (
        20,
        WIDE,
        {
            "H = 10": NESTEROV,
            "H = 10, 4 bits": {**NESTEROV, **BITS4},
            "H = 10, 10 % both ways": {**NESTEROV, **both_ways({"density": 0.1, "bits": 2})},
        },
    ),
    "H = 25": (8, WIDE, {"H = 25": NESTEROV, "H = 25, 4 bits": {**NESTEROV, **BITS4}}),
    "H = 50": (4, WIDE, {"H = 50": LONGER, "H = 50, 4 bits": {**LONGER, **BITS4}}),
    "H = 200": (1, FEDERATED, {"H = 200": {}}),
    "sparse": (
        LONG,
        FEDERATED,
        {
            "rolora, H = 2": {"reduce": "rolora"},
            "rolora, 2 % up": {"reduce": "rolora", "upload": "topk", "upload_settings": SPARSE},
            "rolora, 2 % both ways": {"reduce": "rolora", **both_ways(SPARSE)},
        },
    ),
}


def jobs(quick: bool) -> dict[str, Job]:
    """Per-step synchronisation, and one job for each family of arms that share a rate."""
    scene = SCENE.shown(quick)
    made = {"per step": Job(run_per_step, {"scene": scene})}
    for name, (rounds, grid, algorithms) in FAMILIES.items():
        setting = replace(SCENE.setting, rounds=rounds, steps=STEPS // rounds)
        scene = replace(SCENE, setting=setting).shown(quick)
        made[name] = Job(run_family, {"scene": scene, "grid": grid, "algorithms": algorithms})
    return made


def run_per_step(scene: Scene, grid: Grid = CENTRAL) -> list[Outcome]:
    """Data-parallel training on pooled batches."""
    return over_seeds(
        scene,
        grid,
        lambda world, rates, more: data_parallel(world, scene.setting, RANK, rates, more),
    )


def run_family(
    scene: Scene, grid: Grid, algorithms: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[Outcome]]:
    """The first arm searches its rate; coded ones take it over, so that a code is all that
    differs.
    """
    out: dict[str, list[Outcome]] = {}
    rates = grid
    for arm, pieces in algorithms.items():
        section = AlgorithmSection(**pieces)
        out[arm] = _searched(scene, arm, section, rates, searches=not out)
        rates = (out[arm][0].rate,)
    return out


def _searched(
    scene: Scene, arm: str, section: AlgorithmSection, rates: Grid, searches: bool
) -> list[Outcome]:
    def attempt(world: Any, grid: Grid, more: int) -> Outcome:
        return federated(world, arm, section, scene.setting, grid, RANKS, more if searches else 0)

    return over_seeds(scene, rates, attempt)


def answer(results: Mapping[str, Any]) -> Answer:
    """Loss and bytes of each arm against per-step synchronisation, and adapters against float32."""
    found = {"per step": outcomes(results, "per step")}
    for name, value in results.items():
        if name != "per step":
            found |= {arm: outcomes(value, arm) for arm in value}
    dense = {arm: _bytes(found[arm]) for arm in found}
    more = {
        arm: mean(o.mean / p.mean - 1 for o, p in zip(found[arm], found["per step"], strict=True))
        for arm in found
    }
    rows = []
    for arm, seen in found.items():
        fewer = dense["per step"] / dense[arm]
        people = len(seen[0].test)
        up, down = (
            mean(getattr(o, f"bytes_{way}") for o in seen) / people / 1000 for way in ("up", "down")
        )
        rate = f"{seen[0].rate:g}{' (edge)' if seen[0].at_edge else ''}"
        cells = [
            arm,
            rate,
            spread(o.mean for o in seen),
            f"{100 * more[arm]:+.2f} %",
            f"{up:.1f}",
            f"{down:.1f}",
        ]
        rows.append([*cells, f"{fewer:.0f} ×"])
    columns = ["arm", "rate", "test loss", "against per step", "kB up", "kB down", "fewer bytes"]
    return Answer(
        [Table(columns, rows)],
        _targets(found, dense, more),
        ["kB: of one participant, in the whole run of 200 steps."],
        {"more": more, "bytes": dense},
        {"bytes.svg": _picture(found)},
    )


def _targets(
    found: Mapping[str, Sequence[Outcome]], dense: Mapping[str, float], more: Mapping[str, float]
) -> list[Target]:
    fewer = {arm: dense["per step"] / total for arm, total in dense.items()}
    good = [arm for arm in found if arm != "per step" and more[arm] <= 0.01]
    best = max(good, key=lambda arm: fewer[arm], default="")
    said = (
        f"{best}: {fewer[best]:.0f} ×, {100 * more[best]:+.2f} %"
        if best
        else "no arm is within 1 %"
    )
    out = [
        Target(
            "200 times fewer bytes at 1 % more loss at most",
            said,
            bool(best) and fewer[best] >= 200,
        )
    ]
    plain = "rolora, H = 2"
    for arm in (name for name in found if name.startswith("rolora") and name != plain):
        costs = mean(o.mean / p.mean - 1 for o, p in zip(found[arm], found[plain], strict=True))
        times = [
            mean(_adapters(found) / getattr(o, way) for o in found[arm])
            for way in ("bytes_up", "bytes_down")
        ]
        words = f"{times[0]:.0f} × up, {times[1]:.0f} × down, {100 * costs:+.2f} %"
        claim = f"{arm}: adapters 100 times under float32 at .5 % over {LONG} rounds"
        out.append(Target(claim, words, times[0] >= 100 and costs <= 0.005))
    for arm in ("H = 25", "H = 50"):
        coded = mean(
            o.mean / p.mean - 1 for o, p in zip(found[f"{arm}, 4 bits"], found[arm], strict=True)
        )
        out.append(
            Target(f"{arm}: 4 bits are free (within .2 %)", f"{100 * coded:+.2f} %", coded <= 0.002)
        )
    return out


def _adapters(found: Mapping[str, Sequence[Outcome]]) -> float:
    """Bytes of whole adapters in float32, one way, in every round of the sparse arms; per-step
    synchronisation sends one a step.
    """
    return mean(o.bytes_up for o in found["per step"]) * LONG / STEPS


def _bytes(seen: Sequence[Outcome]) -> float:
    return mean(o.bytes_up + o.bytes_down for o in seen)


def _picture(found: Mapping[str, Sequence[Outcome]]) -> str:
    """Validation loss of the first seed against the bytes so far, one line an arm."""
    curves = []
    for arm, seen in found.items():
        first = seen[0]
        total, count = first.bytes_up + first.bytes_down, len(first.curve)
        points = [(total * (k + 1) / count, loss) for k, loss in enumerate(first.curve)]
        curves.append(Curve(arm, tuple(points)))
    return picture(
        "Validation loss against bytes, both ways and of all participants, first seed",
        "bytes",
        curves,
    )
