"""A newcomer on real worlds: how many labelled examples does it save by starting from the others' shared model?

One participant stays out, another one in each seed; the others federate. It then adapts with k examples of its own, alone from
the base (a grid of rates) and from the shared model (fine-tuned, and taken a part of the way, as `tequio adapt` does). Both
choose on the same validation texts, and are measured on test; alone makes three times the steps. Results are kept in --out.
Run: python -m benchmarks.study.adapting WORLD… [--seeds 0 1 2] [--rate 6e-3] [--out runs/adapting]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.study.joining import ENCODER, federated, written
from benchmarks.study.worlds.catalogue import WORLDS
from tequio.app.assembly.build import build
from tequio.config import Federation
from tequio.core.update import Update, zero
from tequio.participant.choice import private_share
from tequio.participant.fit import fit
from tequio.participant.node import Node
from tequio.participant.personal import score
from tequio.participant.personal_budget import FitBudget

EXAMPLES = (8, 16, 32, 64, 128)
PRIVATE = (1e-3,)
RANK, EPOCHS, LEAST, CHECKS = 8, 6, 24, 6  # of every fit; LEAST: the fewest steps of one


def main() -> None:
    """Run what is missing, and print each world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worlds", nargs="+", choices=sorted(WORLDS), metavar="WORLD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rate", type=float, default=6e-3, help="the federation's")
    parser.add_argument("--out", type=Path, default=Path("runs/adapting"))
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for world in chosen.worlds:
        found = [one(world, seed, chosen.rate, chosen.out) for seed in chosen.seeds]
        print(summary(world, found), flush=True)


def one(world: str, seed: int, rate: float, out: Path) -> dict[str, Any]:
    """The curves of one newcomer; kept in `out`."""
    path = out / f"{world}-{seed}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    begin = time.process_time()
    config = written(world, seed, out / f"{world}-{seed}")
    names = [entry.name for entry in config.participants]
    who = names[seed % len(names)]
    shared = shared_without(config, who, rate)
    setup = build(config)
    node = next(node for node in setup.participants if node.name == who)
    shared = Update(shared.entries, setup.run_spec.spec)
    none = _test(node, zero(setup.run_spec.spec)), _test(node, shared)
    curves: dict[str, dict[str, float]] = {"alone": {"0": none[0]}, "shared": {"0": none[1]}}
    for k in sorted({k for k in EXAMPLES if k < len(node.data.train)} | {len(node.data.train)}):
        steps = max(LEAST, round(EPOCHS * k / node.batch_size))
        data = (node.data.train[:k], node.data.validation)
        alone = fit(node, zero(setup.run_spec.spec), data, FitBudget(RANK, steps, ENCODER["local_rates"], CHECKS), seed)
        curves["alone"][str(k)] = _test(node, alone.tail)
        curves["shared"][str(k)] = _test(
            node, adapted(node, shared, data, max(4, round(2 * k / node.batch_size)), seed)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"world": world, "seed": seed, "newcomer": who, "curves": curves, "cpu": time.process_time() - begin}
    path.write_text(json.dumps(found))
    return found


def shared_without(config: Federation, who: str, rate: float) -> Update:
    """The shared model of all participants but `who`."""
    others = [entry for entry in config.participants if entry.name != who]
    return federated(build(config.model_copy(update={"participants": others})), rate)[1]


def adapted(node: Node, shared: Update, data: tuple[Sequence[Any], Sequence[Any]], steps: int, seed: int) -> Update:
    """The shared model, fine-tuned for two epochs and taken a part of the way, as a participant's rule does."""
    tuned = fit(node, shared, data, FitBudget(RANK, steps, PRIVATE, 1), seed, whole=True)
    looks = {share: shared.plus(tuned.tail.scaled(share)) for share in (0.5, 1.0)}
    evaluated = {0.0: tuned.before} | {share: score(node, model, data[1]) for share, model in looks.items()}
    return shared.plus(tuned.tail.scaled(private_share(evaluated, seed)[0]))


def _test(node: Node, model: Update) -> float:
    return score(node, model, node.data.test).scores().loss


def needed(alone: Mapping[str, float], loss: float) -> float:
    """How many examples alone needs for that loss, between those measured in log k; infinite where none was enough."""
    points = sorted((int(k), value) for k, value in alone.items())
    before: tuple[int, float] | None = None
    for k, value in points:
        if value <= loss:
            if before is None or before[1] <= value or k == 0:
                return float(k)
            share = (before[1] - loss) / (before[1] - value)
            low = math.log(max(1, before[0]))
            return math.exp(low + share * (math.log(k) - low))
        before = (k, value)
    return math.inf


def summary(world: str, found: Sequence[Mapping[str, Any]]) -> str:
    """The curves, and how many times fewer examples, in Markdown."""
    lines = [f"## {world}: newcomers {', '.join(r['newcomer'] for r in found)} (test loss, mean over seeds)", ""]
    counts = sorted({int(k) for r in found for k in r["curves"]["alone"]})
    common = [k for k in counts if all(str(k) in r["curves"]["alone"] for r in found)]
    lines += ["| examples | " + " | ".join(map(str, common)) + " |", "|---" * (len(common) + 1) + "|"]
    for name in ("alone", "shared"):
        cells = [f"{statistics.fmean(r['curves'][name][str(k)] for r in found):.3f}" for k in common]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for k in (0, 8, 16):
        times = []
        for r in found:
            if (loss := r["curves"]["shared"].get(str(k))) is not None:
                most = max(int(n) for n in r["curves"]["alone"])
                need = needed(r["curves"]["alone"], loss)
                times.append(f"more than {most}" if math.isinf(need) else f"{need:.0f}")
        lines.append(f"- from the shared model with {k}: alone needs {', '.join(times)} examples")
    return "\n".join(lines) + f"\n- CPU: {statistics.fmean(r['cpu'] for r in found):.0f} s a seed\n"


if __name__ == "__main__":
    main()
