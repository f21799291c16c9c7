"""Does the coordinator scale? Time and peak memory with 100, 1,000 and 10,000 participants that each train once, all of them in one
round or in rounds of cohorts of 100 (targets: memory flat, time linear), and the exact re-factorisation of 120 stacked ranks at
2048 × 8192 (target ≤ 0.2 s on one thread).

Participants are made up: each sends a random update of rank 4 on two 256 × 256 layers, without training, so that what is measured is
the coordinator's own: admission, sum, step, broadcast, gate, record and checkpoint. Each size runs in a process of its own.

Run: python benchmarks/scale.py [--quick]
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tequio.algorithms.registry import (
    reduce_by_name,
    server_by_name,
    start_by_name,
    weights_by_name,
)
from tequio.coordinator.federate import federate
from tequio.coordinator.run_spec import Member, RunSpec
from tequio.core.protocols import Participant
from tequio.core.types import EvaluateRequest, GradientRequest, Reply, TrainRequest
from tequio.core.update import Factored, Update, plain
from tequio.ledger.record import Ledger
from tequio.measure.energy import open_meter
from tequio.runtimes.embedded import Embedded

SIZES = (100, 1_000, 10_000)
COHORT = 100
RANK = 4
SHAPES = {f"layer{i}": (256, 256) for i in range(2)}
MODES = ("one round", f"cohorts of {COHORT}")


@dataclass(frozen=True)
class MadeUp:
    """A participant that knows its index and sends noise."""

    index: int

    @property
    def name(self) -> str:
        """p0, p1, …"""
        return f"p{self.index}"

    def train(self, task: TrainRequest) -> Reply:
        """A random update of the task's rank."""
        draw = torch.Generator().manual_seed(task.seed)
        entries = {
            name: Factored(torch.randn(m, task.rank, generator=draw) / m, torch.randn(task.rank, n, generator=draw))
            for name, (m, n) in SHAPES.items()
        }
        return Reply(task.round, task.index, self.name, Update(entries), examples=10, steps=task.steps, tokens=100)

    def evaluate(self, task: EvaluateRequest) -> Reply:
        """A loss that falls round by round, so that the run goes on."""
        loss = 1.0 / (1 + task.round)
        return Reply(task.round, task.index, self.name, examples=10, metrics={"loss": loss})

    def gradient(self, task: GradientRequest) -> Reply:
        """Not asked for: no local term needs it here."""
        return Reply(task.round, task.index, self.name)


@dataclass(frozen=True)
class Crowd(Mapping[int, Participant]):
    """Participants by index, made when they are asked for: the coordinator's memory is looked at, not theirs."""

    size: int

    def __getitem__(self, index: int) -> Participant:
        return MadeUp(index)

    def __iter__(self) -> Iterator[int]:
        return iter(range(1, self.size + 1))

    def __len__(self) -> int:
        return self.size


def plan_of(size: int, mode: str) -> RunSpec:
    """Everybody in one round, or as many rounds of cohorts as make `size` trainings."""
    cohort = None if mode == "one round" else COHORT
    return RunSpec(
        seed=0,
        rounds=1 if cohort is None else size // cohort,
        spec="",
        scale=1.0,
        shapes=SHAPES,
        members=tuple(Member(f"p{i}", i, RANK, 1) for i in range(1, size + 1)),
        centre=None,
        federated_share=1.0,
        learning_rate=1e-3,
        final_rate=1.0,
        aggregator=reduce_by_name("stack"),
        start=start_by_name("fresh"),
        weighting=weights_by_name("norm_equalised"),
        server=server_by_name("sgd"),
        broadcast_rank=8,
        patience=size,
        gate_margin=0.0,
        cohort=cohort,
    )


def memory(key: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at the peak (of this process: getrusage also counts the one that started it)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


def one(size: int, mode: str) -> dict[str, float]:
    """Run it here: seconds of CPU and of wall, MiB before and at the peak."""
    torch.set_num_threads(1)
    run_spec, before = plan_of(size, mode), memory("VmRSS")
    cpu, wall, trained = time.process_time(), time.perf_counter(), 0
    with tempfile.TemporaryDirectory() as name, Ledger.create(Path(name) / "ledger.sqlite", {"size": size}) as ledger:
        for _, body in federate(run_spec, Embedded(Crowd(size)), ledger, open_meter()):
            trained += 0 if body is None else len(body["train"])
    if trained != size:
        raise SystemExit(f"{trained} of {size} were trained")
    seconds = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    return {**seconds, "before": before, "peak": memory("VmHWM")}


def separate(size: int, mode: str) -> dict[str, float]:
    """The same in a fresh process."""
    command = [sys.executable, __file__, "--size", str(size), "--mode", mode]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def crowds(sizes: tuple[int, ...]) -> None:
    """Print a table a mode, and how far from flat and from linear it is."""
    for mode in MODES:
        found = {size: separate(size, mode) for size in sizes}
        print(f"\n{mode}\n| participants | CPU s | wall s | CPU ms each | peak MiB | above start MiB |")
        print("|---|---|---|---|---|---|")
        for size, f in found.items():
            each, above = 1000 * f["cpu"] / size, f["peak"] - f["before"]
            print(f"| {size:,} | {f['cpu']:.2f} | {f['wall']:.2f} | {each:.2f} | {f['peak']:.0f} | {above:.0f} |")
        for small, large in itertools.pairwise(sizes):
            more = found[large]["peak"] / found[small]["peak"]
            growth = (found[large]["cpu"] / large) / (found[small]["cpu"] / small)
            print(f"  {small:,} → {large:,}: peak memory × {more:.3f}, CPU time a participant × {growth:.2f}")


def timed(work: Callable[[], Any], times: int) -> list[float]:
    """CPU seconds of this thread, one figure a run; the first run is not counted."""
    work()
    out = []
    for _ in range(times):
        begin = time.thread_time()
        work()
        out.append(time.thread_time() - begin)
    return out


def refactor(times: int, rank: int = 120, m: int = 2048, n: int = 8192) -> None:
    """Time `split_rank`, and its parts; and how exact it is."""
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    b, a = torch.randn(m, rank, generator=draw), torch.randn(rank, n, generator=draw)
    update = Update({"w": Factored(b, a)})
    core = torch.linalg.qr(b)[1] @ torch.linalg.qr(a.T)[1].T
    whole = timed(lambda: update.split_rank(rank // 2), times)
    qr = timed(lambda: (torch.linalg.qr(b), torch.linalg.qr(a.T)), times)
    svd = timed(lambda: torch.linalg.svd(core, full_matrices=False), times)
    middle = statistics.median(whole)
    print(f"\nre-factorisation of {rank} ranks at {m} × {n}, one thread, CPU time of {times} runs")
    print(f"  median {middle:.3f} s, least {min(whole):.3f} s (target ≤ 0.2): {middle / 0.2:.2f} of the target")
    print(f"  of it QR {statistics.median(qr) / middle:.2f}, SVD of the core {statistics.median(svd) / middle:.2f}")
    head, tail = (plain(part.entries["w"]) for part in update.split_rank(rank // 2))
    off = (head + tail - b @ a).double().norm() / (b @ a).double().norm()
    lost = (head - b @ a).double().norm() / torch.linalg.svdvals(core.double())[rank // 2 :].norm()
    print(
        f"  head + tail − whole, relative: {float(off):.1e}; what the head lacks ÷ the least possible: {float(lost):.6f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 1,000 participants")
    parser.add_argument("--size", type=int, default=0, help="(for its own processes)")
    parser.add_argument("--mode", choices=MODES, default=MODES[0])
    arguments = parser.parse_args()
    if arguments.size:
        print(json.dumps(one(arguments.size, arguments.mode)))
        return
    refactor(5 if arguments.quick else 15)
    crowds(SIZES[:2] if arguments.quick else SIZES)


if __name__ == "__main__":
    main()
