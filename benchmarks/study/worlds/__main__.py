"""`python -m benchmarks.study.worlds NAME --seed 0`: shows a world's sizes and licences, and writes
it if asked to.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.study.worlds import hospitals
from benchmarks.study.worlds.catalogue import WORLDS, make_world, write_world
from benchmarks.study.worlds.types import RealWorld
from tequio.app.demos.catalogue import RECIPES
from tequio.config.cache import cache_folder
from tequio.core.errors import TequioError


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 1 on an error, which is written to standard error."""
    chosen = _parser().parse_args(arguments)
    try:
        world = make_world(chosen.name, chosen.seed)
        sys.stdout.write(summary(world))
        if chosen.tabular:
            sys.stdout.write(_tabular(chosen.seed))
        if chosen.out is not None:
            sys.stdout.write(f"{write_world(chosen.name, chosen.out, chosen.seed)}\n")
    except TequioError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study.worlds", description=__doc__)
    parser.add_argument("name", help=", ".join(WORLDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, help="write the world as a federation into this new folder"
    )
    parser.add_argument(
        "--tabular", action="store_true", help="hospitals: score the table's own model too"
    )
    return parser


def summary(world: RealWorld) -> str:
    """Return the table of participants, the public texts, and the licences."""
    lines = [
        f"{world.name}, seed {world.seed}: {world.task} on {world.base}",
        "",
        "| participant | rank | train | validation | test | classes | majority (test) |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, split in world.participants.items():
        labels = Counter(sample.label for sample in split.test)
        share = f"{max(labels.values()) / len(split.test):.3f}" if world.labels else "-"
        classes = str(len(labels)) if world.labels else "-"
        counts = " | ".join(str(len(rows)) for rows in split.parts().values())
        lines.append(f"| {name} | {world.ranks[name]} | {counts} | {classes} | {share} |")
    lines += ["", f"centre: {'none' if world.centre is None else len(world.centre)}"]
    for title, group in (("slice", world.slices), ("unseen", world.unseen)):
        lines += [f"{title} {name}: {len(rows)}" for name, rows in group.items()]
    lines += ["", "licences:"]
    for entry in (*world.provenance, RECIPES[world.like].model):
        lines.append(f"- {entry.name} {entry.version}: {entry.licence} ({entry.used_for})")
    return "\n".join(lines) + "\n"


def _tabular(seed: int) -> str:
    """Return the accuracies of the hospitals' tables."""
    lines = [
        "",
        "| hospital | test | majority | table, local | table, pooled |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, s in hospitals.tabular(cache_folder(), seed).items():
        lines.append(f"| {name} | {s.test} | {s.majority:.3f} | {s.local:.3f} | {s.pooled:.3f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
