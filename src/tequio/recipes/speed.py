"""How a federation would be computed on this machine, and why: precision, layers, threads. Nothing is trained."""

from __future__ import annotations

from typing import Any

import torch

from tequio.recipes.config import Federation
from tequio.recipes.cores import choose_workers
from tequio.recipes.wire import read_roster, wire


def explain(config: Federation, workers: int | None = None) -> dict[str, Any]:
    """`device`, `instructions`, `workers`, `threads` (a worker), and for each base its `model`, `dtype`, `why` and `path`; `lockstep`, and
    `could_stack`: whether more participants at a time would fill a GPU better.

    Loads the bases and reads the data, as a run does, and raises what a run raises.
    """
    roster = read_roster(config)
    count = choose_workers(config, workers)
    wired = wire(config, roster=roster)
    lockstep = config.train.lockstep
    small = wired.bench.device.type == "cuda" and lockstep < len(config.participants) and config.adapter.kind != "full"
    bases = [_base(group.config, group.bench.base.dtype, group.bench.path.why) for group in wired.groups]
    return {
        "device": str(wired.bench.device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "workers": count,
        "threads": torch.get_num_threads(),
        "bases": bases,
        "lockstep": lockstep,
        "could_stack": small and wired.bench.stacks(config.task.max_tokens),
    }


def _base(config: Federation, dtype: torch.dtype, path: str) -> dict[str, str]:
    told = config.base.dtype
    short = str(dtype).removeprefix("torch.")
    found = "this machine computes in it" if short == "bfloat16" else "this machine does not compute in bfloat16"
    why = f"dtype = {told!r}" if told != "auto" else found
    return {"model": config.base.model, "dtype": short, "why": why, "path": path}
