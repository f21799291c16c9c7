"""Keeping the base's general ability on real worlds: how much of the gain remains at which loss on
public texts never seen?

Arms change how a federation trains: terms on public text, or public text mixed into the
participants' batches. Each shared model is also changed after training (`posthoc`). Gain: fall of
the participants' mean test loss, as a share of the plain arm's. Price: mean relative rise of the
losses of `ability`. KL: of the model from the base on the participants' own test texts. Results are
kept in --out. Run: python -m benchmarks.study.keeping WORLD… [--seeds 0] [--arms plain replay-0.5
…] [--extras plain] [--out runs/keeping]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.study.ability import SEEN, Ability, ability, drift, losses, seen_texts, spread
from benchmarks.study.joining import CAUSAL, MOST, ROWS, federated
from benchmarks.study.posthoc import federated_away, points
from benchmarks.study.worlds.catalogue import WORLDS, write_world
from tequio.app.assembly.build import build
from tequio.app.assembly.setup import RunSetup
from tequio.config import load_federation
from tequio.core.canonical import pack, unpack
from tequio.core.update import Update, zero
from tequio.participant.personal import score
from tequio.participant.text_tasks import Item

ARMS: Mapping[str, Mapping[str, float]] = {
    "plain": {},
    "replay-0.05": {"replay": 0.05},
    "replay-0.5": {"replay": 0.5},
    "kl-0.5": {"kl": 0.5},
    "kl-2": {"kl": 2.0},
    "fedprox-0.1": {"fedprox": 0.1},
    "away-64": {},
    "away-128": {},
    "mix-0.01": {},
    "mix-0.05": {},
    "mix-0.25": {},
}
OWN, DRIFT = (
    12,
    2,
)  # blocks of each participant's test texts that are measured, and of these for the KL
LABELLED = 100, 25  # the same of an encoder, in texts
SHARE, PRICE = 0.9, 0.005  # the target: of the gain, at most such a rise


def main() -> None:
    """Run what is missing, and print each world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worlds", nargs="+", choices=sorted(WORLDS), metavar="WORLD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), default=list(ARMS))
    parser.add_argument("--extras", nargs="*", choices=sorted(ARMS), default=["plain"])
    parser.add_argument("--points", nargs="*", default=None, help="only these, by name")
    parser.add_argument("--out", type=Path, default=Path("runs/keeping"))
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for world in chosen.worlds:
        found = {}
        for arm in chosen.arms:
            found[arm] = [
                one(world, seed, arm, chosen.out, arm in chosen.extras, chosen.points)
                for seed in chosen.seeds
            ]
        print(summary(world, found), flush=True)


def one(
    world: str, seed: int, arm: str, out: Path, extras: bool, only: Sequence[str] | None = None
) -> dict[str, Any]:
    """What base and every point of one arm lose; the shared model and each point are kept in
    `out`.
    """
    path = out / f"{world}-{seed}-{arm}.json"
    found: dict[str, Any] = {"world": world, "seed": seed, "arm": arm, "points": {}}
    if path.exists():
        found = json.loads(path.read_text())
    setup, shared = trained(world, seed, arm, out)
    what = ability(world, seed, setup)
    own = [item for node in setup.participants for item in spread(node.data.train, 10)]
    centre = spread(setup.nodes[0].data.train, SEEN) if 0 in setup.nodes else []
    made: dict[str, Callable[[], Update]] = {"base": lambda: zero(shared.spec)}
    made |= points(setup, shared, {"public": what.seen, "centre": centre, "own": own}, extras)
    for name, update in made.items():
        if name in found["points"] or (only is not None and name not in (*only, "base", "1")):
            continue
        begin = time.process_time()
        found["points"][name] = measured(setup, update(), what)
        path.write_text(json.dumps(found))
        print(f"{world} {seed} {arm} {name}: {time.process_time() - begin:.0f} s", flush=True)
    return found


def trained(world: str, seed: int, arm: str, out: Path) -> tuple[RunSetup, Update]:
    """The federation of one arm, and its shared model; trained once."""
    folder = out / f"{world}-{seed}-{arm}"
    shutil.rmtree(folder, ignore_errors=True)
    changes: dict[str, dict[str, Any]] = {"local": {"terms": dict(ARMS[arm])}} if ARMS[arm] else {}
    if changes and world in CAUSAL:
        changes["local"]["data"] = "public.jsonl"
    path = write_world(world, folder, seed, ROWS.get(world, MOST), changes)
    (folder / "public.jsonl").write_text(
        "".join(json.dumps({"text": t}) + "\n" for t in seen_texts(seed))
    )
    setup = build(load_federation(path))
    if arm.startswith("mix-"):
        public = ability(world, seed, setup).seen if world in CAUSAL else setup.nodes[0].data.train
        setup = mixed(setup, float(arm.removeprefix("mix-")), public)
    file = out / f"{world}-{seed}-{arm}.update"
    if not file.exists():
        begin = time.process_time()
        if arm.startswith("away-"):
            shared = federated_away(
                setup, ability(world, seed, setup).seen, int(arm.removeprefix("away-"))
            )
        else:
            shared = federated(setup)[1]
        file.write_bytes(pack(shared))
        print(f"{world} {seed} {arm}: trained, {time.process_time() - begin:.0f} s", flush=True)
    return setup, unpack(file.read_bytes())


def mixed(setup: RunSetup, share: float, public: Sequence[Item]) -> RunSetup:
    """Every participant with public items among its own, so that they are this share of what it
    trains on.
    """
    nodes = dict(setup.nodes)
    for index, node in nodes.items():
        if index > 0:
            count = max(1, round(share / (1.0 - share) * len(node.data.train)))
            more = spread(public[index:], count)
            nodes[index] = replace(node, data=replace(node.data, train=[*node.data.train, *more]))
    return replace(setup, nodes=nodes)


def measured(setup: RunSetup, model: Update, what: Ability) -> dict[str, Any]:
    """The participants' mean test loss, the KL from the base on these texts, and the losses of what
    nobody trains on.
    """
    most, least = LABELLED if what.probes else (OWN, DRIFT)
    tests = [spread(node.data.test, most) for node in setup.participants]
    own = [
        score(node, model, items).scores().loss
        for node, items in zip(setup.participants, tests, strict=True)
    ]
    few = [item for items in tests for item in spread(items, least)]
    return {
        "own": statistics.fmean(own),
        "kl": drift(setup, model, few),
        "price": losses(setup, model, what),
    }


def rows(
    found: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Iterator[tuple[str, str, float, dict[str, float], float]]:
    """Arm, point, gain, price by kind of text (mean and worst without the world's own), and KL:
    means over seeds.
    """
    plain = found["plain"] if "plain" in found else next(iter(found.values()))
    full = [r["points"]["base"]["own"] - r["points"]["1"]["own"] for r in plain]
    for arm, results in found.items():
        for name in results[0]["points"]:
            both = [
                (r["points"][name], r["points"]["base"]) for r in results if name in r["points"]
            ]
            if len(both) < len(results):
                continue
            gain = statistics.fmean(
                (b["own"] - a["own"]) / f for (a, b), f in zip(both, full, strict=True)
            )
            price = {
                kind: statistics.fmean(a["price"][kind] / b["price"][kind] - 1 for a, b in both)
                for kind in both[0][0]["price"]
            }
            others = [value for kind, value in price.items() if kind != "world"]
            price |= {"mean": statistics.fmean(others), "worst": max(others)}
            yield arm, name, gain, price, statistics.fmean(a["kl"] for a, _ in both)


def summary(world: str, found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Gain, price and KL of every arm and point in Markdown, and how the KL goes with the price."""
    table = [row for row in rows(found) if row[1] != "base"]
    kinds = ["worst", *(kind for kind in table[0][3] if kind not in ("mean", "worst"))]
    seeds = [str(r["seed"]) for r in next(iter(found.values()))]
    lines = [
        f"## {world}: seeds {', '.join(seeds)}",
        "",
        f"| arm | point | gain | price | {' | '.join(kinds)} | KL | |",
    ]
    lines.append("|" + "---|" * (6 + len(kinds)))
    for arm, name, gain, price, kl in table:
        met = "met" if gain >= SHARE and price["mean"] <= PRICE else ""
        better = any(g > gain and p["mean"] < price["mean"] for _, _, g, p, _ in table)
        cells = " | ".join(f"{100 * price[kind]:+.2f} %" for kind in ("mean", *kinds))
        lines.append(
            f"| {arm} | {name} | {100 * gain:.0f} % | {cells} | {kl:.4f} | "
            f"{met}{'' if better else ' front'} |"
        )
    pairs = [(kl, price["mean"]) for *_, price, kl in table]
    lines += [
        "",
        f"Rank correlation of KL and price: {correlation(*zip(*pairs, strict=True)):+.2f} over "
        f"{len(pairs)} points.",
    ]
    return "\n".join(lines) + "\n"


def correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's, without ties."""
    first, second = (np.argsort(np.argsort(values)).astype(np.float64) for values in (x, y))
    return float(np.corrcoef(first, second)[0, 1])


if __name__ == "__main__":
    main()
