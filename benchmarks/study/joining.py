"""Does joining pay?

Real worlds and demos over seeds, against models trained alone and one pooled central model.

Every arm has its own grid of learning rates and equal tokens; rates and checkpoints are chosen on
validation, figures are of test data. The federation's rate is chosen in the first seed, those of
local-only, pooled and fine-tuning in every run. Results are kept in --out, so a study that was cut
off goes on where it stopped. Run: python -m benchmarks.study.joining WORLD… [--seeds 0 1 2]
[--pooled 3] [--out runs/joining]
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.study.worlds.catalogue import WORLDS, write_world
from tequio.app.assembly.build import build
from tequio.app.assembly.setup import RunSetup
from tequio.app.demos.catalogue import RECIPES, write_demo
from tequio.app.models.open import open_models
from tequio.app.simulation.run import start
from tequio.config import Federation, load_federation
from tequio.coordinator.round import open_state, run_round, shared_model
from tequio.core.canonical import unpack
from tequio.core.types import State
from tequio.core.update import Update, zero
from tequio.ledger.record import Ledger
from tequio.measure.verdicts import sign_test
from tequio.participant.choice import one_error
from tequio.participant.personal import score
from tequio.participant.text_tasks import Losses
from tequio.runtimes.embedded import Embedded

Json = dict[str, Any]
ENCODER: Mapping[str, tuple[float, ...]] = {
    "federated": (3e-3, 6e-3, 1e-2),
    "local_rates": (1e-3, 2e-3, 4e-3),
    "pooled_rates": (5e-4, 1e-3, 2e-3),
}
DECODER: Mapping[str, tuple[float, ...]] = {
    "federated": (1e-2, 2e-2),
    "local_rates": (3e-3, 1e-2),
    "pooled_rates": (3e-3, 1e-2),
}
CAUSAL = ("manuals", "manual-sections", "manual-languages")
ROWS: Mapping[str, Mapping[str, int]] = {
    **{world: {"max_test": 24, "max_validation": 12} for world in CAUSAL},
    "sentiment": {"max_test": 1500},
    "heart": {},
}
MOST = {"max_test": 300}  # of the other worlds, at a site
HALVES = 10  # times that test data are halved, for the regret of the choice


def main() -> None:
    """Run what is missing, and print each world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worlds", nargs="+", choices=sorted({*WORLDS, *RECIPES}), metavar="WORLD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--pooled", type=int, default=3, help="seeds with a pooled model and everybody's test data"
    )
    parser.add_argument(
        "--rate", type=float, default=None, help="the federation's, from an earlier tuning"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/joining"))
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for world in chosen.worlds:
        grid = DECODER if world in CAUSAL else ENCODER
        rate = chosen.rate or tuned(world, chosen.seeds[0], chosen.out, grid["federated"])
        found = []
        for place, seed in enumerate(chosen.seeds):
            found.append(one(world, seed, chosen.out, rate, grid, place < chosen.pooled))
        print(summary(world, rate, found), flush=True)


def tuned(world: str, seed: int, out: Path, grid: Sequence[float]) -> float:
    """The federation's learning rate of least validation loss in this seed; remembered in `out`."""
    path = out / f"{world}-rate.json"
    if not path.exists():
        config = written(world, seed, out / f"{world}-tuning")
        setup = build(config)
        losses = {rate: federated(setup, rate)[0].best_loss for rate in grid}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(losses))
    found = json.loads(path.read_text())
    return float(min(found, key=lambda rate: found[rate]))


def federated(setup: RunSetup, rate: float | None = None) -> tuple[State, Update, list[Json]]:
    """Make all rounds, at the federation's rate or another one: the last state, the shared model,
    and what each round records.
    """
    plan = setup.run_spec if rate is None else replace(setup.run_spec, learning_rate=rate)
    runtime, records = Embedded(setup.nodes), list[Json]()
    state, _ = open_state(plan, runtime)
    while state.round < plan.rounds and state.stale_rounds < plan.patience:
        state, record = run_round(state, plan, runtime)
        records.append(record)
    return state, shared_model(state.best, plan), records


def written(world: str, seed: int, folder: Path) -> Federation:
    """The world's or demo's files, written again."""
    shutil.rmtree(folder, ignore_errors=True)
    rows = ROWS.get(world, MOST)
    path = (
        write_demo(world, folder, seed, rows)[0]
        if world in RECIPES
        else write_world(world, folder, seed, rows)
    )
    return load_federation(path)


def at_rates(config: Federation, rate: float, grid: Mapping[str, Sequence[float]]) -> Federation:
    """Return the federation at this rate, with the rates of `grid` for what is trained alone and
    pooled.
    """
    rates = {key: list(grid[key]) for key in ("local_rates", "pooled_rates")}
    personal = config.personal.model_copy(update=rates)
    train = config.train.model_copy(update={"learning_rate": rate})
    return config.model_copy(update={"personal": personal, "train": train})


def one(
    world: str, seed: int, out: Path, rate: float, grid: Mapping[str, Sequence[float]], pooled: bool
) -> Json:
    """One run as a user makes it, read from its ledger, with the regret of the choice; kept in
    `out`.
    """
    path = out / f"{world}-{seed}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    begin = time.process_time()
    config = at_rates(written(world, seed, out / f"{world}-{seed}"), rate, grid)
    outcome = start(config, out / f"{world}-{seed}" / "run", counterfactuals=pooled)
    with Ledger.open(outcome.folder / "ledger.sqlite", read_only=True) as ledger:
        entries = list(ledger.entries())
    bodies = {e.body["name"]: dict(e.body) for e in entries if e.kind == "personal"}
    last = {
        kind: next((e.body for e in entries if e.kind == kind), None)
        for kind in ("pooled", "everybody", "general")
    }
    rounds = [e.body for e in entries if e.kind == "round"]
    setup = build(config)
    sizes = {
        n.name: [len(n.data.train), len(n.data.validation), len(n.data.test)]
        for n in setup.participants
    }
    ranks = {row["name"]: row["rank"] for row in rounds[0]["train"]}
    sent = {
        way: sum(row[way] for body in rounds for row in body["train"])
        for way in ("bytes_up", "bytes_down")
    }
    found = {
        **{
            "world": world,
            "seed": seed,
            "rate": rate,
            "sizes": sizes,
            "ranks": ranks,
            "personal": bodies,
        },
        **{kind: None if body is None else dict(body) for kind, body in last.items()},
        **{
            "sent": sent,
            "regret": regrets(outcome.folder, setup, bodies),
            "cpu": time.process_time() - begin,
        },
    }
    path.write_text(json.dumps(found))
    print(f"{world}, seed {seed}: {found['cpu']:.0f} s of CPU", flush=True)
    return found


def regrets(run: Path, setup: RunSetup, bodies: Mapping[str, Json]) -> dict[str, Json]:
    """For each participant how far the choice is from the best candidate: the best on one half of
    the test data, measured on the other.

    new, earlier: mean excess loss over that of the best, by the rule of today and by the one before
        it.
    """
    out: dict[str, Json] = {}
    for node in setup.participants:
        body = bodies[node.name]
        own, shared = (open_models(run, who)[0].model for who in (node.name, "shared"))
        models = _candidates(run, setup, node.name, body, own, shared)
        test = {name: score(node, model, node.data.test) for name, model in models.items()}
        look = {
            name: score(node, model, node.data.validation)
            for name, model in models.items()
            if name != "kept"
        }
        look = {
            name: losses for name, losses in look.items() if math.isfinite(losses.scores().loss)
        }
        before = one_error(look).name
        rng, new, earlier, level = (
            np.random.default_rng(0),
            list[float](),
            list[float](),
            list[float](),
        )
        for _ in range(HALVES):
            order = rng.permutation(len(node.data.test))
            middle = len(order) // 2
            for first, second in (
                (order[:middle], order[middle:]),
                (order[middle:], order[:middle]),
            ):
                best = min(
                    (n for n in test if n != "kept"), key=lambda name: _mean(test[name], first)
                )
                level.append(_mean(test[best], second))
                new.append(_mean(test["kept"], second))
                earlier.append(_mean(test[before], second))
        mean = statistics.fmean
        excess = {key: mean(x) / mean(level) - 1 for key, x in (("new", new), ("earlier", earlier))}
        named = {"kept": test["kept"].scores(), "before": test[before].scores()}
        rights = {key: scores.accuracy for key, scores in named.items()}
        losses = {key: scores.loss for key, scores in named.items()}
        out[node.name] = {**excess, "right": rights, "loss": losses, "before": before}
    return out


def _candidates(
    run: Path, setup: RunSetup, name: str, body: Json, own: Update, shared: Update
) -> dict[str, Update]:
    """The candidates again: what was trained at home on top of the shared model follows from what
    was kept.
    """
    local = _local(run, name, setup)
    models = {"base": zero(setup.run_spec.spec), "local": local, "shared": shared, "kept": own}
    models["0.5 shared + 0.5 local"] = shared.scaled(0.5).plus(local.scaled(0.5))
    share = body["choice"].get("share")
    if body["chosen"].endswith("private") and share:
        tail = own.minus(shared).scaled(1.0 / share)
        models |= {
            f"shared + {alpha:g} private": shared.plus(tail.scaled(alpha)) for alpha in (0.5, 1.0)
        }
    return models


def _local(run: Path, name: str, setup: RunSetup) -> Update:
    path = run / "participants" / name / "local.safetensors"
    return unpack(path.read_bytes(), str(path))


def _mean(losses: Losses, where: Any) -> float:
    return float(losses.total[where].sum() / losses.terms[where].sum())


def summary(world: str, rate: float, found: Sequence[Json]) -> str:
    """The table of a world and its targets, in Markdown."""
    accuracy = next(iter(found[0]["personal"].values()))["test"]["base"]["accuracy"] is not None
    measure, sign, unit = ("accuracy", 1.0, 100.0) if accuracy else ("loss", -1.0, 1.0)
    names = list(found[0]["personal"])

    def of(result: Json, name: str, model: str) -> float:
        return float(result["personal"][name]["test"][model][measure])

    def gain(model: str, over: str = "local") -> Callable[[str], list[float]]:
        return lambda name: [sign * unit * (of(r, name, model) - of(r, name, over)) for r in found]

    def cell(values: Sequence[float]) -> str:
        low, high = min(values), max(values)
        return f"{statistics.fmean(values):+.2f}" + (
            f" ({low:+.1f} to {high:+.1f})" if len(values) > 1 else ""
        )

    lines = [
        f"## {world}: federated rate {rate:g}, seeds {', '.join(str(r['seed']) for r in found)} "
        f"({measure})",
        "",
    ]
    lines += [
        "| participant | rank | test texts | base | local | shared | kept − local | general − "
        "local | shared − local |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for name in names:
        levels = [
            statistics.fmean(unit * of(r, name, model) for r in found)
            for model in ("base", "local", "shared")
        ]
        gains = [cell(gain(model)(name)) for model in ("personal", "general", "shared")]
        size, rank = found[0]["sizes"][name][2], found[0]["ranks"].get(name, "–")
        lines.append(
            f"| {name} | {rank} | {size} | "
            + " | ".join([*(f"{x:.2f}" for x in levels), *gains])
            + " |"
        )
    means = {
        m: [statistics.fmean(gain(m)(n)[k] for n in names) for k in range(len(found))]
        for m in ("personal", "general", "shared")
    }
    lines += ["", *(f"- mean gain over local, {m}: {cell(v)}" for m, v in means.items())]
    lines.append(
        f"- significantly below local (Holm, 5 %, {len(names) * len(found)} comparisons): "
        f"{_below(found)}"
    )
    other = sum(r["personal"][n]["chosen"] != "local" for r in found for n in names)
    lines.append(
        f"- keep something other than their local model: {other} of {len(names) * len(found)}"
    )
    for key in ("new", "earlier"):
        values = [r["regret"][n][key] for r in found for n in names]
        lines.append(
            f"- regret of the choice, {key} rule: {100 * statistics.fmean(values):+.2f} % of the "
            "loss"
        )
    lines += _everybody(found, names, measure, sign, unit)
    sent = {
        way: statistics.fmean(r["sent"][way] for r in found) / 1e6
        for way in ("bytes_up", "bytes_down")
    }
    lines.append(f"- sent: {sent['bytes_up']:.2f} MB up, {sent['bytes_down']:.2f} MB down")
    lines.append(f"- CPU: {statistics.fmean(r['cpu'] for r in found):.0f} s a seed")
    return "\n".join(lines) + "\n"


def _below(found: Sequence[Json]) -> str:
    """Participants whose kept model is worse than their local one, by the sign test on texts that
    only one of them gets right.
    """
    tests = []
    for result in found:
        for name, body in result["personal"].items():
            pairs, loss = (
                body["gains"]["personal_over_local"].get("pairs"),
                body["gains"]["personal_over_local"]["loss"],
            )
            if pairs is not None:
                tests.append((sign_test(pairs["worse"], pairs["better"]), name, result["seed"]))
            elif loss is not None:
                spread = (loss["high"] - loss["low"]) / 3.92
                z = loss["mean"] / spread if spread else 0.0
                tests.append(
                    (math.erfc(abs(z) / math.sqrt(2)) if z < 0 else 1.0, name, result["seed"])
                )
    out = []
    for place, (chance, name, seed) in enumerate(sorted(tests)):
        if chance > 0.05 / (len(tests) - place):
            break
        out.append(f"{name} (seed {seed}, p {chance:.1g})")
    return ", ".join(out) or "none"


def _everybody(
    found: Sequence[Json], names: Sequence[str], measure: str, sign: float, unit: float
) -> list[str]:
    """Everybody's test data, the gap that the shared model closes, and both bounds of the general
    model.
    """
    known = [r for r in found if r["everybody"]]
    if not known:
        return []
    lines = []
    for model in ("local", "personal", "general"):
        values = [
            statistics.fmean(r["everybody"]["participants"][n][model][measure] for n in names)
            for r in known
        ]
        lines.append(f"- everybody's test data, {model}: {unit * statistics.fmean(values):.2f}")
    levels = {m: [r["everybody"][m][measure] for r in known] for m in ("base", "shared", "pooled")}
    lines += [
        f"- everybody's test data, {m}: {unit * statistics.fmean(v):.2f}" for m, v in levels.items()
    ]
    closed = [
        (s - b) / (p - b)
        for b, s, p in zip(*(levels[m] for m in ("base", "shared", "pooled")), strict=True)
    ]
    lines.append(
        f"- base → pooled, closed by the shared model: {100 * statistics.fmean(closed):.0f} %"
    )
    both = 0
    for result in known:
        for name in names:
            test = result["personal"][name]["test"]
            own = test["general"]["loss"] <= 1.01 * min(
                test[m]["loss"] for m in ("local", "shared", "personal")
            )
            everybody = result["everybody"]["participants"][name]["general"]["loss"]
            both += own and everybody <= 1.02 * result["everybody"]["shared"]["loss"]
    lines.append(
        "- general: own loss within 1 % of the best and everybody's within 2 % of the shared: "
        f"{both} of {len(known) * len(names)}"
    )
    return lines


if __name__ == "__main__":
    main()
