"""Keeping the base's general ability on real worlds: how much of the gain remains at which loss on public texts never seen?

Arms change the [local] terms of a federation (replay of public text, a pull on its answers); each shared model is also taken a part
of the way from the base. Gain: fall of the participants' mean test loss, as a share of the plain arm's. Price: rise of the loss on
the world's `unseen` slices, which neither training nor gate has seen. Results are kept in --out.
Run: python -m benchmarks.study.keeping WORLD… [--seeds 0] [--arms plain replay-0.5 …] [--out runs/keeping]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.study.joining import MOST, ROWS, federated
from benchmarks.study.worlds.catalogue import WORLDS, make_world, write_world
from tequio.app.assembly.build import build
from tequio.app.assembly.setup import RunSetup
from tequio.config import load_federation
from tequio.core.update import Update, zero
from tequio.participant.data import Example
from tequio.participant.personal import score
from tequio.participant.text_tasks import Item

ARMS: Mapping[str, Mapping[str, float]] = {
    "plain": {},
    "replay-0.05": {"replay": 0.05},
    "replay-0.5": {"replay": 0.5},
    "kl-0.5": {"kl": 0.5},
    "kl-2": {"kl": 2.0},
}
PARTS = (1.0, 0.9, 0.8, 0.7, 0.5)  # of the way from the base to the shared model
SHARE, PRICE = 0.9, 0.005  # the target: of the gain, at most such a rise


def main() -> None:
    """Run what is missing, and print each world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worlds", nargs="+", choices=sorted(WORLDS), metavar="WORLD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), default=list(ARMS))
    parser.add_argument("--out", type=Path, default=Path("runs/keeping"))
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for world in chosen.worlds:
        found = {a: [one(world, seed, a, chosen.out) for seed in chosen.seeds] for a in chosen.arms}
        print(summary(world, found), flush=True)


def one(world: str, seed: int, arm: str, out: Path) -> dict[str, Any]:
    """Own and unseen losses of the base and of each part of the shared model; kept in `out`."""
    path = out / f"{world}-{seed}-{arm}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    begin = time.process_time()
    folder = out / f"{world}-{seed}-{arm}"
    shutil.rmtree(folder, ignore_errors=True)
    changes = {"local": {"terms": dict(ARMS[arm])}} if ARMS[arm] else {}
    setup = build(load_federation(write_world(world, folder, seed, ROWS.get(world, MOST), changes)))
    shared, unseen = federated(setup)[1], public(world, seed, setup)
    losses = {"base": measured(setup, zero(shared.spec), unseen)}
    losses |= {f"{part:g}": measured(setup, shared.scaled(part), unseen) for part in PARTS}
    found = {"world": world, "seed": seed, "arm": arm, "losses": losses, "cpu": time.process_time() - begin}
    path.write_text(json.dumps(found))
    return found


def public(world: str, seed: int, setup: RunSetup) -> list[Item]:
    """The world's unseen texts, encoded."""
    samples = [sample for rows in make_world(world, seed).unseen.values() for sample in rows]
    return setup.task.encode([Example(sample.text, sample.label) for sample in samples], "unseen")[0]


def measured(setup: RunSetup, model: Update, unseen: Sequence[Item]) -> dict[str, float]:
    """The participants' mean test loss, and the loss on the unseen texts."""
    people = setup.participants
    own = statistics.fmean(score(node, model, node.data.test).scores().loss for node in people)
    return {"own": own, "unseen": score(people[0], model, unseen).scores().loss}


def summary(world: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Share of the plain arm's gain, and price, of every arm and part, in Markdown."""
    plain = found["plain"] if "plain" in found else next(iter(found.values()))
    full = [r["losses"]["base"]["own"] - r["losses"]["1"]["own"] for r in plain]
    lines = [
        f"## {world}: seeds {', '.join(str(r['seed']) for r in plain)}",
        "",
        "| arm | part | gain | price | target |",
    ]
    lines.append("|---|---|---|---|---|")
    for arm, results in found.items():
        for part in PARTS:
            at = [r["losses"][f"{part:g}"] for r in results]
            base = [r["losses"]["base"] for r in results]
            gain = statistics.fmean((b["own"] - a["own"]) / f for a, b, f in zip(at, base, full, strict=True))
            price = statistics.fmean(a["unseen"] / b["unseen"] - 1 for a, b in zip(at, base, strict=True))
            met = "met" if gain >= SHARE and price <= PRICE else ""
            lines.append(f"| {arm} | {part:g} | {100 * gain:.0f} % | {100 * price:+.2f} % | {met} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
