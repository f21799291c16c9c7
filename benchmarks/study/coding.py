"""Bytes on real worlds: what do codes and a lower rank of the broadcast cost, against plain
float32?

Each arm makes the rounds of a world and prints bytes up and down, validation loss, and the shared
model's test scores. Run: python -m benchmarks.study.coding WORLD… [--seeds 0 1 2] [--arms plain
bits4-rank8 …]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.study.joining import MOST, ROWS, federated
from benchmarks.study.worlds.catalogue import WORLDS, write_world
from tequio.app.assembly.build import build
from tequio.config import load_federation
from tequio.participant.personal import score

WHOLE = 32  # ranks of the broadcast where no arm cuts it: twice the largest rank


def coded(count: int, rank: int = WHOLE, rotate: bool = False) -> dict[str, Any]:
    """[algorithm] with both ways quantised to `count` bits, and the rank of the broadcast."""
    settings = {"bits": count} | ({"rotate": 1} if rotate else {})
    return {
        **dict.fromkeys(("upload", "download"), "quantise"),
        **{f"{way}_settings": settings for way in ("upload", "download")},
        "broadcast_rank": rank,
    }


PLAIN = {
    **dict.fromkeys(("upload", "download"), "plain"),
    **{f"{way}_settings": {} for way in ("upload", "download")},
    "broadcast_rank": WHOLE,
}
ARMS: Mapping[str, Mapping[str, Any]] = {
    "plain": PLAIN,
    "bits8-rank16": coded(8, 16),
    "bits4": coded(4),
    "bits4-rank16": coded(4, 16),
    "bits4-rank8": coded(4, 8),
    "bits2-rank16": coded(2, 16, rotate=True),
    "bits2-rank8": coded(2, 8, rotate=True),
}


def main() -> None:
    """Print one row per world, seed and arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worlds", nargs="+", choices=sorted(WORLDS), metavar="WORLD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), default=list(ARMS))
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(
        "| world | seed | arm | MB up | MB down | validation loss | test loss | accuracy | CPU s "
        "|\n" + "|---" * 9 + "|"
    )
    for world in chosen.worlds:
        for seed in chosen.seeds:
            for arm in chosen.arms:
                print(row(world, seed, arm), flush=True)


def row(world: str, seed: int, arm: str) -> str:
    """Make the rounds of one arm, and measure."""
    with tempfile.TemporaryDirectory(prefix="tequio-coding-") as folder:
        path = write_world(
            world,
            Path(folder) / "federation",
            seed,
            ROWS.get(world, MOST),
            {"algorithm": ARMS[arm]},
        )
        setup = build(load_federation(path))
    begin = time.process_time()
    state, model, records = federated(setup)
    spent = time.process_time() - begin
    rows = [each for record in records for each in record["train"]]
    sent = {way: sum(each[way] for each in rows) for way in ("bytes_up", "bytes_down")}
    tests = [score(node, model, node.data.test).scores() for node in setup.participants]
    rights = [s.accuracy for s in tests if s.accuracy is not None]
    right = f"{statistics.fmean(rights):.4f}" if rights else "–"
    loss = statistics.fmean(s.loss for s in tests)
    megabytes = f"{sent['bytes_up'] / 1e6:.2f} | {sent['bytes_down'] / 1e6:.2f}"
    return (
        f"| {world} | {seed} | {arm} | {megabytes} | {state.best_loss:.4f} | {loss:.4f} | "
        f"{right} | {spent:.0f} |"
    )


if __name__ == "__main__":
    main()
