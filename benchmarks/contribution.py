"""Does the first-order contribution rank participants like exact Shapley values do?

Six airlines, one with noise for labels.

    python -m benchmarks.contribution [--seeds 0,1,2]

MiniLM on the demo's tweets, no centre. Labels of one airline (another one for each seed) are drawn
at random, for training and validation. The value of a coalition is how far the mean validation loss
of the other five falls below the base's when that coalition alone federates; all 64 are trained.
The first-order credits and leave-one-out are of the one run of all six, as a ledger records them.
Printed: Spearman's ρ with Shapley, and who is last.
"""

from __future__ import annotations

from tequio.cli.environment import prepare_process

prepare_process()

import argparse
import json
import math
import random
import statistics
import tempfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from tequio.app.assembly.build import build
from tequio.app.assembly.setup import RunSetup
from tequio.app.demos.catalogue import write_demo
from tequio.config import load_federation
from tequio.coordinator.round import evaluate, open_state, run_round
from tequio.coordinator.run_spec import RunSpec
from tequio.measure.statistics import spearman
from tequio.runtimes.embedded import Embedded

ROUNDS, STEPS = 3, 5


def world(folder: Path, seed: int) -> tuple[RunSetup, RunSpec, int]:
    """The wired federation, its plan, and the index of the participant with noise labels."""
    path, _ = write_demo("sentiment", folder, seed)
    config = load_federation(path)
    noisy = seed % len(config.participants)
    draw = random.Random(seed)
    labels = config.task.label_names()
    own = load_rows(config.participants[noisy].file)
    for file in own:
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        text = "\n".join(json.dumps({**row, "label": draw.choice(labels)}) for row in rows)
        noise = folder / f"noise-{file.name}"
        noise.write_text(text + "\n")
        toml = config.participants[noisy].file
        assert toml is not None
        toml.write_text(toml.read_text().replace(str(file), str(noise)))
    setup = build(config)
    members = tuple(replace(m, steps=STEPS) for m in setup.run_spec.members)
    run_spec = replace(
        setup.run_spec, members=members, centre=None, rounds=ROUNDS, patience=ROUNDS, credit=True
    )
    return setup, run_spec, noisy + 1


def load_rows(file: Path | None) -> list[Path]:
    """The data files that a participant.toml names."""
    import tomllib

    assert file is not None
    data = tomllib.loads(file.read_text())["data"]
    return [
        (file.parent / data[key]).resolve()
        for key in ("path", "train", "validation", "test")
        if key in data
    ]


def run(
    run_spec: RunSpec, runtime: Embedded, judges: RunSpec
) -> tuple[float, list[dict[str, Any]]]:
    """(mean validation loss of the judges in the end, the records of the rounds)."""
    state, _ = open_state(run_spec, runtime)
    bodies = []
    while state.round < run_spec.rounds:
        state, body = run_round(state, run_spec, runtime)
        bodies.append(body)
    return evaluate(run_spec.rounds + 1, state.shared, judges, runtime).mean_loss, bodies


def one(seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        setup, run_spec, noisy = world(Path(folder) / "fed", seed)
        runtime = Embedded({i: node for i, node in setup.nodes.items() if i > 0})
        judges = replace(
            run_spec, members=tuple(m for m in run_spec.members if m.index != noisy), credit=False
        )
        indices = [m.index for m in run_spec.members]
        _, bodies = run(replace(run_spec, leave_one_out=True), runtime, judges)
        value: dict[tuple[int, ...], float] = {}
        value[()] = -evaluate(0, open_state(run_spec, runtime)[0].shared, judges, runtime).mean_loss
        for size in range(1, len(indices) + 1):
            for coalition in combinations(indices, size):
                part = tuple(m for m in run_spec.members if m.index in coalition)
                loss, _ = run(replace(run_spec, members=part, credit=False), runtime, judges)
                value[coalition] = -loss
    shapley = {i: exact(i, indices, value) for i in indices}
    names = {m.name: m.index for m in run_spec.members}
    found = {}
    for key in ("agreement", "leave_one_out"):
        sums = dict.fromkeys(indices, 0.0)
        for body in bodies:
            for row in body["credit"]:
                sums[names[row["name"]]] += row[key]
        found[key] = spearman([sums[i] for i in indices], [shapley[i] for i in indices])
        found[f"{key}: last is noise"] = float(min(sums, key=lambda i: sums[i]) == noisy)
        print(f"  seed {seed} {key}: {', '.join(f'{sums[i]:+.4f}' for i in indices)}", flush=True)
    print(
        f"  seed {seed} Shapley: {', '.join(f'{shapley[i]:+.4f}' for i in indices)}; noise is "
        f"number {noisy}",
        flush=True,
    )
    found["Shapley: last is noise"] = float(min(shapley, key=lambda i: shapley[i]) == noisy)
    return {key: float(value_ or 0.0) for key, value_ in found.items()}


def exact(i: int, indices: list[int], value: dict[tuple[int, ...], float]) -> float:
    """Shapley's value of i: the mean over all orders of what it adds when it comes."""
    n, total = len(indices), 0.0
    for coalition, before in value.items():
        if i not in coalition:
            weight = (
                math.factorial(len(coalition))
                * math.factorial(n - len(coalition) - 1)
                / math.factorial(n)
            )
            total += weight * (value[tuple(sorted((*coalition, i)))] - before)
    return total


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2")
    torch.set_num_threads(1)
    results = [one(int(seed)) for seed in parser.parse_args().seeds.split(",")]
    for key in results[0]:
        values = ", ".join(f"{r[key]:.2f}" for r in results)
        print(f"{key}: {values}; mean {statistics.fmean(r[key] for r in results):.2f}")
    print("targets: rank correlation of agreement at least .8, noise last")


if __name__ == "__main__":
    main()
