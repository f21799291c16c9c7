"""Arms of a question on a real base: each searches its learning rates in the first seed, and the
others take its best one.

Rates and members of a family are chosen on validation, figures are of test data. Each result is
kept in a folder by world, arm, seed and rate, so a study that was cut off resumes. The arms
themselves are in `real_hybrids`, `real_backdoors` and `real_steps`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.study.coding import PLAIN
from benchmarks.study.joining import ENCODER, MOST, ROWS
from benchmarks.study.worlds.catalogue import write_world
from tequio.app.assembly.algorithm import build_chain
from tequio.app.assembly.build import build
from tequio.app.assembly.setup import RunSetup
from tequio.config import AlgorithmSection, load_federation
from tequio.coordinator.round import open_state, run_round, shared_model
from tequio.coordinator.run_spec import RunSpec
from tequio.core.errors import RunError
from tequio.core.protocols import Runtime
from tequio.core.update import Update
from tequio.participant.personal import score
from tequio.runtimes.embedded import Embedded

Json = dict[str, Any]
RATES = ENCODER["federated"]
FEW = {
    "max_train": 40,
    "max_validation": 30,
}  # texts per participant, so that a federation takes seconds


@dataclass(frozen=True)
class Made:
    """A federation that was made: the shared model of least validation loss, the records of its
    rounds, and other figures.
    """

    model: Update
    validation: float
    best_round: int
    records: Sequence[Json]
    more: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """What is compared: how a federation is made at a rate, and the rates to search in the
    first seed.

    family: of its arms only the one that is best on validation in the first seed goes to the other
        seeds.
    """

    name: str
    make: Callable[[RunSetup, float], Made]
    rates: Sequence[float] = RATES
    family: str = ""

    @property
    def group(self) -> str:
        """The family, or the arm's own name."""
        return self.family or self.name


@cache
def opened(world: str, seed: int, folder: Path) -> RunSetup:
    """The world over its base, with plain codes; see `judged`."""
    place = folder / f"{world}-{seed}"
    found = place / "federation.toml"
    if not found.exists():
        few = {} if world.startswith("manual") else FEW
        changes = {"algorithm": PLAIN}
        found = write_world(world, place, seed, {**ROWS.get(world, MOST), **few}, changes)
    return judged(build(load_federation(found)))


def judged(setup: RunSetup) -> RunSetup:
    """The setup with all its rounds and a centre that neither trains nor refuses."""
    spec = replace(
        setup.run_spec,
        patience=setup.run_spec.rounds * 100,
        gate_margin=math.inf,
        federated_share=1.0,
    )
    return replace(setup, run_spec=spec)


def with_pieces(plan: RunSpec, **pieces: Any) -> RunSpec:
    """The plan with these keys of [algorithm]."""
    section = AlgorithmSection(**{**PLAIN, **pieces})
    chosen = build_chain(section)
    return replace(
        plan,
        aggregator=chosen.reduce,
        start=chosen.start,
        weighting=chosen.weights,
        server=chosen.server,
        upload=chosen.upload,
        download=chosen.download,
        broadcast_rank=section.broadcast_rank or plan.broadcast_rank,
    )


def with_steps(plan: RunSpec, share: float) -> RunSpec:
    """The plan with this share of each participant's steps per round."""
    few = tuple(
        replace(member, steps=max(1, round(member.steps * share))) for member in plan.members
    )
    return replace(plan, members=few)


def played(setup: RunSetup, plan: RunSpec, runtime: Runtime | None = None) -> Made:
    """Make all rounds of a plan."""
    runtime = runtime or Embedded(setup.nodes)
    state, _ = open_state(plan, runtime)
    records = list[Json]()
    while state.round < plan.rounds:
        state, record = run_round(state, plan, runtime)
        records.append(record)
    return Made(shared_model(state.best, plan), state.best_loss, state.best_round, records)


def measured(setup: RunSetup, made: Made) -> Json:
    """Test figures of the shared model, and what the rounds took."""
    tests = {
        node.name: score(node, made.model, node.data.test).scores() for node in setup.participants
    }
    rows = [row for record in made.records for row in record["train"]]
    looks = [row for record in made.records for row in record["evaluation"]]
    return {
        "validation": made.validation,
        "best_round": made.best_round,
        "curve": [record["mean_validation_loss"] for record in made.records],
        "test": {name: scores.loss for name, scores in tests.items()},
        "right": {name: scores.accuracy for name, scores in tests.items()},
        "tokens": sum(row["tokens"] for row in rows if row["weight"] is not None),
        "bytes_up": sum(row["bytes_up"] for row in rows),
        "bytes_down": sum(row["bytes_down"] for row in rows),
        "joules": sum(row["joules"] or 0.0 for row in rows),
        "joules_evaluation": sum(row["joules"] or 0.0 for row in looks),
        **made.more,
    }


@dataclass(frozen=True)
class Study:
    """Where results are kept, the world, and its seeds; the first one chooses."""

    out: Path
    world: str
    seeds: Sequence[int]

    def result(self, arm: Arm, seed: int, rate: float) -> Json | None:
        """One federation's figures, made or kept; None where it diverged."""
        path = self.out / self.world / f"{arm.name}, seed {seed}, rate {rate:g}.json"
        if not path.exists():
            setup, begin = opened(self.world, seed, self.out / "worlds"), time.process_time()
            try:
                found: Json | None = measured(setup, arm.make(setup, rate))
            except RunError as error:
                found = None
                print(f"{arm.name}, rate {rate:g}: {error}", flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            spent = time.process_time() - begin
            path.write_text(
                json.dumps(None if found is None else {**found, "rate": rate, "cpu": spent})
            )
            shown = "diverged" if found is None else f"validation {found['validation']:.4f}"
            print(f"{self.world}, {path.stem}: {shown}, {spent:.0f} s of CPU", flush=True)
        return json.loads(path.read_text())  # type: ignore[no-any-return]

    def searched(self, arm: Arm) -> Json:
        """The figures of the first seed at the arm's best rate;

        `tried` has the validation loss of each.
        """
        tried = {rate: self.result(arm, self.seeds[0], rate) for rate in arm.rates}
        best = min(
            (row for row in tried.values() if row is not None),
            key=lambda row: float(row["validation"]),
        )
        return {
            **best,
            "tried": {
                rate: None if row is None else row["validation"] for rate, row in tried.items()
            },
        }

    def compared(self, arms: Sequence[Arm]) -> dict[str, list[Json]]:
        """Each family's best arm in all seeds: family -> a row per seed, the first with the arm's
        name and the rates tried.
        """
        out: dict[str, list[Json]] = {}
        for group in dict.fromkeys(arm.group for arm in arms):
            first = {arm.name: self.searched(arm) for arm in arms if arm.group == group}
            name = min(first, key=lambda key: float(first[key]["validation"]))
            chosen = next(arm for arm in arms if arm.name == name)
            rows = [{**first[name], "arm": name}]
            for seed in self.seeds[1:]:
                found = self.result(chosen, seed, rows[0]["rate"])
                if found is not None:
                    rows.append(found)
            out[group] = rows
        return out


def loss(row: Json, without: Sequence[str] = ()) -> float:
    """Mean test loss over participants, each counting the same."""
    return statistics.fmean(value for name, value in row["test"].items() if name not in without)


def over(rows: Sequence[Json], others: Sequence[Json]) -> list[float]:
    """Percent by which the test loss is above the others', seed by seed."""
    return [100 * (loss(row) / loss(other) - 1) for row, other in zip(rows, others, strict=False)]


def spread(values: Sequence[float], form: str = "+.1f") -> str:
    """A mean with its range."""
    mean = format(statistics.fmean(values), form)
    return (
        mean
        if len(values) == 1
        else f"{mean} ({format(min(values), form)} to {format(max(values), form)})"
    )


def table(found: Mapping[str, Sequence[Json]], against: str) -> str:
    """One row per family: its best arm and rate, test loss against another family's, accuracy,
    bytes and joules.
    """
    lines = [
        "| family | best | rate | validation | test loss | % over | right | MB up, down | J |",
        "|---" * 9 + "|",
    ]
    for name, rows in found.items():
        right = [
            100 * statistics.fmean(row["right"].values())
            for row in rows
            if None not in row["right"].values()
        ]
        size = [
            statistics.fmean(row[key] for row in rows) / 1e6 for key in ("bytes_up", "bytes_down")
        ]
        edge = (
            rows[0]["rate"] in (min(tried := [float(x) for x in rows[0]["tried"]]), max(tried))
            and len(tried) > 1
        )
        cells = [
            name,
            rows[0]["arm"],
            f"{rows[0]['rate']:g}{' (edge)' if edge else ''}",
            f"{statistics.fmean(row['validation'] for row in rows):.4f}",
            f"{statistics.fmean(map(loss, rows)):.4f}",
            spread(over(rows, found[against])),
            spread(right, ".1f") if right else "–",
            ", ".join(f"{x:.2f}" for x in size),
            f"{statistics.fmean(row['joules'] for row in rows):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def compared(
    about: str | None,
    worlds: Sequence[str],
    arms: Sequence[Arm],
    always: str,
    report: Callable[[Mapping[str, Any]], str],
) -> list[tuple[Path, str, Mapping[str, Sequence[Json]]]]:
    """Read the options, run what is missing of the chosen arms and `always`, and print each world's
    report.

    Return by world: the folder of results, the world, and its rows by arm.
    """
    chosen = arguments(about, worlds)
    wanted = [
        arm for arm in arms if not chosen.only or {arm.name, arm.group} & {*chosen.only, always}
    ]
    results: list[tuple[Path, str, Mapping[str, Sequence[Json]]]] = []
    for world in chosen.worlds:
        found = Study(chosen.out, world, chosen.seeds).compared(wanted)
        print(
            f"## {world}, seeds {', '.join(map(str, chosen.seeds))}\n\n{report(found)}\n",
            flush=True,
        )
        results.append((chosen.out, world, found))
    return results


def arguments(about: str | None, worlds: Sequence[str]) -> argparse.Namespace:
    """The options that these questions share; one thread."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("worlds", nargs="*", default=list(worlds), metavar="WORLD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", default=[], help="arms or families; all unless named")
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    return chosen
