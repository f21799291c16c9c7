"""Does the coordinator scale?

Time and peak memory with 100, 1,000 and 10,000 participants that each train once, all of them in
one
round or in rounds of cohorts of 100 (targets: memory flat, time linear), and the exact
re-factorisation of 120 stacked ranks at 2048 × 8192 (target ≤ 0.2 s on one thread).

Participants are made up: each sends a random update of rank 4 on two 256 × 256 layers, without
training, so that what is measured is the coordinator's own: admission, sum, step, broadcast, gate,
record and checkpoint. Each size runs in a process of its own.

And how much memory does it need to add up full-weight updates? Peak resident memory over its start
÷ the size of one update, for updates that are streamed entry by entry and for whole ones, when the
first participant of the roster answers first, and last.

Run: python -m benchmarks.scale [--quick] [--megabytes 200] [--participants 8]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.common.memory import peak_bytes, status_bytes
from tequio.algorithms.registry import (
    reduce_by_name,
    server_by_name,
    start_by_name,
    weights_by_name,
)
from tequio.coordinator.aggregation import aggregate
from tequio.coordinator.federate import federate, star
from tequio.coordinator.round import in_order
from tequio.coordinator.run_spec import Coding, Member, RunSpec
from tequio.core.protocols import Participant
from tequio.core.seeds import derive
from tequio.core.types import EvaluateRequest, GradientRequest, Reply, State, TrainRequest
from tequio.core.update import Dense, Factored, Update, plain, zero
from tequio.ledger.record import Ledger
from tequio.measure.energy import open_meter
from tequio.participant.spool import Spool
from tequio.runtimes.embedded import Embedded

SIZES = (100, 1_000, 10_000)
COHORT = 100
RANK = 4
SHAPES = {f"layer{i}": (256, 256) for i in range(2)}
MODES = ("one round", f"cohorts of {COHORT}")
SPEC = "made-up"
WAYS = ("streamed", "whole")
ORDERS = ("first", "last")
ENTRY = 1 << 20  # bytes, 512 × 512 float32


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
            name: Factored(
                torch.randn(m, task.rank, generator=draw) / m,
                torch.randn(task.rank, n, generator=draw),
            )
            for name, (m, n) in SHAPES.items()
        }
        return Reply(
            task.round,
            task.index,
            self.name,
            Update(entries),
            examples=10,
            steps=task.steps,
            tokens=100,
        )

    def evaluate(self, task: EvaluateRequest) -> Reply:
        """A loss that falls round by round, so that the run goes on."""
        loss = 1.0 / (1 + task.round)
        return Reply(task.round, task.index, self.name, examples=10, metrics={"loss": loss})

    def gradient(self, task: GradientRequest) -> Reply:
        """Not asked for: no local term needs it here."""
        return Reply(task.round, task.index, self.name)


@dataclass(frozen=True)
class Crowd(Mapping[int, Participant]):
    """Participants by index, made when they are asked for: the coordinator's memory is looked at,
    not theirs.
    """

    size: int

    def __getitem__(self, index: int) -> Participant:
        return MadeUp(index)

    def __iter__(self) -> Iterator[int]:
        return iter(range(1, self.size + 1))

    def __len__(self) -> int:
        return self.size


def made_spec(
    rounds: int, shapes: dict[str, tuple[int, int]], members: Iterable[Member], **changes: Any
) -> RunSpec:
    """A run without a centre or a gate, of members that are made up."""
    chosen: dict[str, Any] = {"spec": "", "broadcast_rank": 8, "patience": 1} | changes
    return RunSpec(
        seed=0,
        rounds=rounds,
        scale=1.0,
        shapes=shapes,
        members=tuple(members),
        centre=None,
        federated_share=1.0,
        learning_rate=1e-3,
        final_rate=1.0,
        aggregator=reduce_by_name("stack"),
        start=start_by_name("fresh"),
        weighting=weights_by_name("norm_equalised"),
        server=server_by_name("sgd"),
        gate_margin=0.0,
        **chosen,
    )


def crowd_spec(size: int, mode: str) -> RunSpec:
    """Everybody in one round, or as many rounds of cohorts as make `size` trainings."""
    cohort = None if mode == "one round" else COHORT
    members = (Member(f"p{i}", i, RANK, 1) for i in range(1, size + 1))
    return made_spec(
        1 if cohort is None else size // cohort, SHAPES, members, patience=size, cohort=cohort
    )


def weights_spec(megabytes: int, participants: int) -> RunSpec:
    """Full weights in `megabytes` entries of 1 MiB."""
    shapes = {f"layer.{i:04d}": (512, 512) for i in range(megabytes)}
    members = (Member(f"p{i}", i, 512, 1) for i in range(1, participants + 1))
    return made_spec(1, shapes, members, spec=SPEC, broadcast_rank=512, full=True)


def in_own_process(*options: str, **environment: str) -> dict[str, float]:
    """What this script prints last with these options, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.scale", *options]
    env, root = {**os.environ, **environment}, Path(__file__).resolve().parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env, cwd=root)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def one(size: int, mode: str) -> dict[str, float]:
    """Run it here: seconds of CPU and of wall, MiB before and at the peak."""
    torch.set_num_threads(1)
    run_spec, before = crowd_spec(size, mode), status_bytes("VmRSS") / 2**20
    cpu, wall, trained = time.process_time(), time.perf_counter(), 0
    with (
        tempfile.TemporaryDirectory() as name,
        Ledger.create(Path(name) / "ledger.sqlite", {"size": size}) as ledger,
    ):
        for _, body in federate(star(run_spec, Embedded(Crowd(size))), ledger, open_meter()):
            trained += 0 if body is None else len(body["train"])
    if trained != size:
        raise SystemExit(f"{trained} of {size} were trained")
    seconds = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
    return {**seconds, "before": before, "peak": peak_bytes() / 2**20}


def separate(size: int, mode: str) -> dict[str, float]:
    """The same in a fresh process."""
    return in_own_process("--size", str(size), "--mode", mode)


def crowds(sizes: tuple[int, ...]) -> None:
    """Print a table a mode, and how far from flat and from linear it is."""
    for mode in MODES:
        found = {size: separate(size, mode) for size in sizes}
        print(
            f"\n{mode}\n| participants | CPU s | wall s | CPU ms each | peak MiB | above start MiB "
            "|"
        )
        print("|---|---|---|---|---|---|")
        for size, f in found.items():
            each, above = 1000 * f["cpu"] / size, f["peak"] - f["before"]
            print(
                f"| {size:,} | {f['cpu']:.2f} | {f['wall']:.2f} | {each:.2f} | {f['peak']:.0f} | "
                f"{above:.0f} |"
            )
        for small, large in itertools.pairwise(sizes):
            more = found[large]["peak"] / found[small]["peak"]
            growth = (found[large]["cpu"] / large) / (found[small]["cpu"] / small)
            print(
                f"  {small:,} → {large:,}: peak memory × {more:.3f}, CPU time a participant × "
                f"{growth:.2f}"
            )


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
    print(
        f"  median {middle:.3f} s, least {min(whole):.3f} s (target ≤ 0.2): {middle / 0.2:.2f} of "
        "the target"
    )
    print(
        f"  of it QR {statistics.median(qr) / middle:.2f}, SVD of the core "
        f"{statistics.median(svd) / middle:.2f}"
    )
    head, tail = (plain(part.entries["w"]) for part in update.split_rank(rank // 2))
    off = (head + tail - b @ a).double().norm() / (b @ a).double().norm()
    lost = (head - b @ a).double().norm() / torch.linalg.svdvals(core.double())[rank // 2 :].norm()
    print(
        f"  head + tail − whole, relative: {float(off):.1e}; what the head lacks ÷ the least "
        f"possible: {float(lost):.6f}"
    )


def replies(run_spec: RunSpec, mode: str, order: str) -> Iterator[Reply]:
    """One made-up reply a member; with order "last", the first of the roster comes last, and all
    others wait.
    """
    members = run_spec.members if order == "first" else (*run_spec.members[1:], run_spec.members[0])
    for member in members:
        entries = ((name, made_up(name, member.index)) for name in sorted(run_spec.shapes))
        if mode == "whole":
            update = Update(dict(entries), SPEC)
            yield Reply(1, member.index, member.name, update=update, examples=1, steps=1)
            del update
            continue
        spool = Spool()
        for name, entry in entries:
            spool.append(Coding().codec.encode(Update({name: entry}, SPEC), 0))
        yield Reply(1, member.index, member.name, parts=spool, examples=1, steps=1)
        del spool


def made_up(name: str, index: int) -> Dense:
    """A 512 × 512 matrix of normal numbers."""
    return Dense(
        torch.randn(512, 512, generator=torch.Generator().manual_seed(derive(index, name)))
    )


def measure(megabytes: int, participants: int, mode: str, order: str) -> dict[str, float]:
    """Peak over start ÷ one update, and seconds of processor time; in this process."""
    torch.set_num_threads(1)
    run_spec = weights_spec(megabytes, participants)
    state = State(0, zero(SPEC), zero(SPEC), zero(SPEC), zero(SPEC), 1.0, 0)
    made_up("warm", 0)
    before, began = psutil.Process().memory_info().rss, time.process_time()
    arrivals = in_order(replies(run_spec, mode, order), state, run_spec, run_spec.members)
    fold = aggregate(arrivals, run_spec)
    seconds = time.process_time() - began
    return {
        "folded": fold.count,
        "ratio": (peak_bytes() - before) / (megabytes * ENTRY),
        "seconds": seconds,
    }


def measured_separately(
    megabytes: int, participants: int, mode: str, order: str
) -> dict[str, float]:
    """The same in a process of its own, in which freed memory goes back to the system at once."""
    numbers = ("--megabytes", str(megabytes), "--participants", str(participants))
    return in_own_process(*numbers, "--way", mode, "--order", order, MALLOC_MMAP_THRESHOLD_="65536")


def full_weights(megabytes: int, participants: int) -> None:
    """Print what adding up full-weight updates takes."""
    print(f"\n{participants} updates of {megabytes} MiB, in entries of 1 MiB")
    print(f"{'updates':<10}{'roster first answers':>22}{'peak ÷ one update':>20}{'CPU s':>10}")
    for mode in WAYS:
        for order in ORDERS:
            found = measured_separately(megabytes, participants, mode, order)
            print(f"{mode:<10}{order:>22}{found['ratio']:>20.2f}{found['seconds']:>10.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 1,000 participants")
    parser.add_argument("--megabytes", type=int, default=200, help="of a full-weight update")
    parser.add_argument("--participants", type=int, default=8, help="that send full-weight updates")
    parser.add_argument("--size", type=int, default=0, help="(for its own processes)")
    parser.add_argument("--mode", choices=MODES, default=MODES[0])
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--order", choices=ORDERS, default=ORDERS[0])
    chosen = parser.parse_args()
    if chosen.size:
        print(json.dumps(one(chosen.size, chosen.mode)))
        return
    if chosen.way:
        print(json.dumps(measure(chosen.megabytes, chosen.participants, chosen.way, chosen.order)))
        return
    refactor(5 if chosen.quick else 15)
    crowds(SIZES[:2] if chosen.quick else SIZES)
    full_weights(chosen.megabytes, chosen.participants)


if __name__ == "__main__":
    main()
