"""Does a pilot of one round foretell who gains by joining?

Its forecast beside what the same federation came to in the end.

The pilot looks at validation data alone. The benefit in the end is the share of the local model's
test loss that the kept model saves, as `joining` recorded it for the same world, seed and rates.
Results are kept in --out. Run: python -m benchmarks.study.foretelling WORLD… [--joined
runs/joining] [--out runs/foretelling]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.study.joining import CAUSAL, DECODER, ENCODER, at_rates, written
from tequio.app.simulation.pilot import run_pilot
from tequio.measure.statistics import spearman

Json = dict[str, Any]
TARGET = 0.8  # rank correlation of forecast and benefit


def main() -> None:
    """Run the pilots that are missing, print each world, and all worlds together."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("worlds", nargs="+", metavar="WORLD")
    parser.add_argument(
        "--joined", type=Path, default=Path("runs/joining"), help="where `joining` left its results"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/foretelling"))
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    every = list[Json]()
    for world in chosen.worlds:
        for path in sorted(chosen.joined.glob(f"{world}-[0-9]*.json")):
            every += one(json.loads(path.read_text()), chosen.out)
        print(summary(world, [row for row in every if row["world"] == world]), flush=True)
    print(summary("all worlds", every))


def one(joined: Mapping[str, Any], out: Path) -> list[Json]:
    """Return a row per participant: the pilot's forecast and the benefit in the end; kept in
    `out`.
    """
    world, seed = joined["world"], joined["seed"]
    path = out / f"{world}-{seed}.json"
    if not path.exists():
        begin = time.process_time()
        grid = DECODER if world in CAUSAL else ENCODER
        rows = run_pilot(
            at_rates(written(world, seed, out / f"{world}-{seed}"), joined["rate"], grid)
        )
        path.write_text(json.dumps({"rows": rows, "cpu": time.process_time() - begin}))
    found = json.loads(path.read_text())
    return [
        {
            **row,
            "world": world,
            "seed": seed,
            "cpu": found["cpu"],
            "end": ended(joined["personal"][row["name"]]),
        }
        for row in found["rows"]
    ]


def ended(body: Mapping[str, Any]) -> float:
    """Return the share of the local model's test loss that the kept model saves."""
    return 1.0 - float(body["test"]["personal"]["loss"]) / float(body["test"]["local"]["loss"])


def summary(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rank correlation, verdicts with how each ended, and how often the interval held, in
    Markdown.
    """
    rows = [row for row in rows if row["benefit"] is not None]
    if not rows:
        return f"## {title}: no joining result to compare with\n"
    runs = {(row["world"], row["seed"]): row["cpu"] for row in rows}
    lines = [f"## {title}: {len(rows)} participants, {len(runs)} runs", ""]
    rho = spearman([row["benefit"] for row in rows], [row["end"] for row in rows])
    met = rho is not None and rho >= TARGET
    lines.append(
        f"- Spearman {'–' if rho is None else f'{rho:.2f}'} (target {TARGET:g}: "
        f"{'met' if met else 'missed'})"
    )
    counts = Counter((row["verdict"], row["end"] > 0.0) for row in rows)
    verdicts = ("pays", "open", "does_not_pay")
    lines += [
        f"- {name}: {counts[name, True]} gained, {counts[name, False]} lost" for name in verdicts
    ]
    held = sum(row["low"] <= row["end"] <= row["high"] for row in rows)
    off = [row["benefit"] - row["end"] for row in rows]
    lines.append(
        f"- the interval held the benefit for {held} of {len(rows)}; mean error "
        f"{statistics.fmean(off):+.3f}"
    )
    return "\n".join([*lines, f"- CPU: {statistics.fmean(runs.values()):.0f} s a pilot", ""])


if __name__ == "__main__":
    main()
