"""Does joining pay? A demo over seeds, every arm with its own learning-rate grid, chosen on validation (the federation's on the
first seed, those of local-only, private and pooled in every run), reported on test.

Arms: base, local-only, federated + personal (delivered), the shared model, pooled central; equal tokens for local, federated and pooled.
Run: python benchmarks/joining.py [--demo sentiment] [--seeds 0 1 2] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tequio.cli.environment import prepare_process

prepare_process()

import torch

from tequio.app.assembly.build import build
from tequio.app.demos.catalogue import write_demo
from tequio.app.simulation.run import start
from tequio.config import Federation, load_federation
from tequio.coordinator.round import open_state, run_round
from tequio.ledger.record import Ledger
from tequio.runtimes.embedded import Embedded

GRIDS = {
    "sentiment": {
        "federated": (3e-3, 6e-3, 1e-2),
        "local": (1e-3, 2e-3, 4e-3),
        "private": (5e-4, 2e-3),
        "pooled": (2.5e-4, 5e-4, 1e-3),
    },
    "manuals": {"federated": (1e-2, 2e-2), "local": (3e-3, 1e-2, 2e-2), "private": (1e-3, 4e-3)},
    "heart": {"federated": (3e-3, 6e-3, 1e-2), "local": (1e-3, 2e-3, 4e-3), "private": (5e-4, 2e-3)},
}
# a demo has no time for more, and accuracy needs more
TEST_ROWS: dict[str, dict[str, int]] = {
    "sentiment": {"max_test": 200},
    "manuals": {"max_test": 10},
    "heart": {},
}


def best_rate(config: Federation, grid: tuple[float, ...]) -> float:
    """The federation's learning rate that is best on the participants' validation data."""
    setup = build(config)
    losses = {}
    for rate in grid:
        plan = replace(setup.run_spec, learning_rate=rate)
        state, _ = open_state(plan, Embedded(setup.nodes))
        while state.round < plan.rounds and state.stale_rounds < plan.patience:
            state, _ = run_round(state, plan, Embedded(setup.nodes))
        losses[rate] = state.best_loss
    best = min(losses, key=lambda rate: losses[rate])
    print(f"federated grid on validation: { {r: round(x, 4) for r, x in losses.items()} } → {best}", flush=True)
    return best


def with_rates(config: Federation, rate: float, grid: dict[str, tuple[float, ...]]) -> Federation:
    """The federation at `rate`; local-only, private and pooled arms try their whole grids in every run."""
    train = config.train.model_copy(update={"learning_rate": rate})
    rates = {"local_rates": list(grid["local"]), "private_rates": list(grid["private"])}
    rates["pooled_rates"] = list(grid.get("pooled", grid["local"]))
    return config.model_copy(update={"train": train, "personal": config.personal.model_copy(update=rates)})


def one(demo: str, seed: int, out: Path, rate: float, grid: dict[str, tuple[float, ...]], pool: bool) -> dict[str, Any]:
    """Run, with the pooled model and everybody's test data if `pool`, and read the figures from the ledger."""
    path, _ = write_demo(demo, out / f"seed{seed}", seed, TEST_ROWS[demo])
    begin = time.perf_counter()
    config = with_rates(load_federation(path), rate, grid)
    outcome = start(config, out / f"seed{seed}" / "run", counterfactuals=pool)
    with Ledger.open(outcome.folder / "ledger.sqlite", read_only=True) as ledger:
        entries = list(ledger.entries())
    personal = {e.body["name"]: e.body for e in entries if e.kind == "personal"}
    found = {
        kind: next((e.body for e in entries if e.kind == kind), None) for kind in ("pooled", "everybody", "general")
    }
    print(f"seed {seed}: {time.perf_counter() - begin:.0f} s")
    return {"seed": seed, "personal": personal, **found}


def show(result: dict[str, Any]) -> dict[str, float]:
    """Print one seed; return its means."""
    measure = "accuracy" if next(iter(result["personal"].values()))["test"]["base"]["accuracy"] is not None else "loss"
    sign = 1.0 if measure == "accuracy" else -1.0
    print(
        f"| participant | base | local | shared | delivered | pooled | delivered − local [95 %] | chosen | ({measure})"
    )
    print("|---|---|---|---|---|---|---|---|")
    worse = 0
    for name, body in result["personal"].items():
        t, gain = body["test"], body["gains"]["personal_over_local"][measure]
        cells = [t[m][measure] for m in ("base", "local", "shared", "personal")]
        cells += [result["pooled"]["test"][name][measure] if result["pooled"] else math.nan]
        worse += gain["high"] < 0
        interval = f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
        print(f"| {name} | " + " | ".join(f"{c:.3f}" for c in cells) + f" | {interval} | {body['chosen']} |")

    def mean(model: str) -> float:
        return statistics.fmean(body["test"][model][measure] for body in result["personal"].values())

    figures = {
        "delivered − local, own test": sign * (mean("personal") - mean("local")),
        "shared − local, own test": sign * (mean("shared") - mean("local")),
        "participants surely worse than local": float(worse),
    }
    if result["general"]:
        changes = [sign * (s["shared"][measure] - s["base"][measure]) for s in result["general"].values()]
        figures["general, shared − base"] = statistics.fmean(changes)
    if result["pooled"]:
        all_ = result["everybody"]
        alone = statistics.fmean(p["local"][measure] for p in all_["participants"].values())
        delivered = statistics.fmean(p["personal"][measure] for p in all_["participants"].values())
        own = statistics.fmean(x[measure] for x in result["pooled"]["test"].values())
        figures |= {
            "delivered − local, everybody": sign * (delivered - alone),
            "shared − local, everybody": sign * (all_["shared"][measure] - alone),
            "pooled − local, own test": sign * (own - mean("local")),
            "pooled − local, everybody": sign * (all_["pooled"][measure] - alone),
        }
    for key, value in figures.items():
        print(f"  {key}: {value:+.4f}")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", default="sentiment", choices=sorted(GRIDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--rate", type=float, default=None, help="the federation's, from an earlier tuning")
    parser.add_argument("--pooled-rate", type=float, default=None, help="pooled central's, from an earlier tuning")
    parser.add_argument("--no-pooled", action="store_true", help="leave out pooled central and everybody's test data")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    out = arguments.out or Path(tempfile.mkdtemp(prefix="tequio-bench-"))
    grid = dict(GRIDS[arguments.demo])
    if arguments.pooled_rate is not None:
        grid["pooled"] = (arguments.pooled_rate,)
    rate = arguments.rate
    if rate is None:
        path, _ = write_demo(arguments.demo, out / "tuning", arguments.seeds[0])
        rate = best_rate(load_federation(path), grid["federated"])
    seen = []
    for seed in arguments.seeds:
        result = one(arguments.demo, seed, out, rate, grid, not arguments.no_pooled)
        (out / f"seed{seed}.json").write_text(json.dumps(result))
        seen.append(show(result))
    print(f"\n{arguments.demo}, mean over seeds {arguments.seeds}:")
    for key in seen[0]:
        values = [s[key] for s in seen]
        print(f"  {key}: {statistics.fmean(values):+.4f}  ({', '.join(f'{v:+.4f}' for v in values)})")


if __name__ == "__main__":
    main()
