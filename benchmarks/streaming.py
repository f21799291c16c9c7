"""How much memory does a coordinator need to add up full-weight updates? Peak resident memory over its start ÷ the size of one update,
for updates that are streamed entry by entry and for whole ones, when the first participant of the roster answers first, and last.

Each measurement is a process of its own (Linux). Made-up numbers; nobody trains.

Run: python benchmarks/streaming.py [--megabytes 200] [--participants 8]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from tequio.algorithms.registry import (
    reduce_by_name,
    server_by_name,
    start_by_name,
    weights_by_name,
)
from tequio.coordinator.aggregation import aggregate, count_update
from tequio.coordinator.round import in_order
from tequio.coordinator.run_spec import Coding, Member, RunSpec
from tequio.core.seeds import derive
from tequio.core.types import Reply, State
from tequio.core.update import Dense, Update, zero
from tequio.participant.spool import Spool

SPEC = "made-up"
MODES = ("streamed", "whole")
ORDERS = ("first", "last")
ENTRY = 1 << 20  # bytes, 512 × 512 float32


def plan_of(megabytes: int, participants: int) -> RunSpec:
    """A plan of `megabytes` entries of 1 MiB."""
    members = tuple(Member(f"p{i}", i, 512, 1) for i in range(1, participants + 1))
    return RunSpec(
        seed=0,
        rounds=1,
        spec=SPEC,
        scale=1.0,
        shapes={f"layer.{i:04d}": (512, 512) for i in range(megabytes)},
        members=members,
        centre=None,
        federated_share=1.0,
        learning_rate=1e-3,
        final_rate=1.0,
        aggregator=reduce_by_name("stack"),
        start=start_by_name("fresh"),
        weighting=weights_by_name("norm_equalised"),
        server=server_by_name("sgd"),
        broadcast_rank=512,
        patience=1,
        gate_margin=0.0,
        full=True,
    )


def replies(run_spec: RunSpec, mode: str, order: str) -> Iterator[Reply]:
    """One made-up reply a member; with order "last", the first of the roster comes last, and all others wait."""
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
            spool.append(Coding().codec().encode(Update({name: entry}, SPEC), 0))
        yield Reply(1, member.index, member.name, parts=spool, examples=1, steps=1)
        del spool


def made_up(name: str, index: int) -> Dense:
    """A 512 × 512 matrix of normal numbers."""
    return Dense(torch.randn(512, 512, generator=torch.Generator().manual_seed(derive(index, name))))


def measure(megabytes: int, participants: int, mode: str, order: str) -> dict[str, float]:
    """Peak over start ÷ one update, and seconds of processor time; in this process."""
    torch.set_num_threads(1)
    run_spec = plan_of(megabytes, participants)
    state = State(0, zero(SPEC), zero(SPEC), zero(SPEC), zero(SPEC), 1.0, 0)
    made_up("warm", 0)
    before, began = psutil.Process().memory_info().rss, time.process_time()
    arrivals = in_order(replies(run_spec, mode, order), state, run_spec, run_spec.members)
    fold = aggregate((count_update(outcome, run_spec) for outcome in arrivals), run_spec)
    seconds = time.process_time() - began
    return {"folded": len(fold.facts), "ratio": (peak_bytes() - before) / (megabytes * ENTRY), "seconds": seconds}


def peak_bytes() -> int:
    """Most memory that this process ever had resident. (ru_maxrss would also count the process that started this one.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def measured_separately(megabytes: int, participants: int, mode: str, order: str) -> dict[str, float]:
    """The same in a process of its own, in which freed memory goes back to the system at once."""
    numbers = ["--megabytes", str(megabytes), "--participants", str(participants)]
    command = [sys.executable, __file__, *numbers, "--mode", mode, "--order", order]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--participants", type=int, default=8)
    parser.add_argument("--mode", choices=MODES)
    parser.add_argument("--order", choices=ORDERS)
    chosen = parser.parse_args()
    if chosen.mode and chosen.order:
        print(json.dumps(measure(chosen.megabytes, chosen.participants, chosen.mode, chosen.order)))
        return
    print(f"{chosen.participants} updates of {chosen.megabytes} MiB, in entries of 1 MiB")
    print(f"{'updates':<10}{'roster first answers':>22}{'peak ÷ one update':>20}{'CPU s':>10}")
    for mode in MODES:
        for order in ORDERS:
            found = measured_separately(chosen.megabytes, chosen.participants, mode, order)
            print(f"{mode:<10}{order:>22}{found['ratio']:>20.2f}{found['seconds']:>10.1f}")


if __name__ == "__main__":
    main()
