"""How a federation would be computed on this machine, and why: precision, layers, threads.

Nothing is trained.
"""

from itertools import pairwise
from typing import Any

import torch

from tequio.app.assembly.build import build, read_participants
from tequio.app.assembly.checks import check_pieces
from tequio.app.assembly.setup import RunSetup
from tequio.app.simulation.parallelism import choose_workers
from tequio.config import Federation
from tequio.participant.fused.select import LONGEST


def explain(config: Federation, workers: int | None = None) -> dict[str, Any]:
    """`device`, `instructions`, `workers`, `threads` (a worker), and for each base its `model`,
    `dtype`, `why` and `path`;

    `at_a_time`,
    participants in lock-step, and `alone`, why none can be (else empty); `lockstep` as asked for,
    and `could_stack`: whether more at a time would fill a GPU better.

    Loads the bases and reads the data, as a run does, and raises what a run raises.
    """
    algorithm, roster = check_pieces(config), read_participants(config)
    count = choose_workers(config, algorithm, workers)
    setup = build(config, participants=roster, algorithm=algorithm)
    lockstep = config.train.lockstep
    small = setup.adapted.device.type == "cuda" and lockstep < len(config.participants)
    bases = [_base(group, lockstep) for group in setup.groups]
    return {
        "device": str(setup.adapted.device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "workers": count,
        "threads": torch.get_num_threads(),
        "bases": bases,
        "lockstep": lockstep,
        "could_stack": small and not all(base["alone"] for base in bases),
    }


def _base(group: RunSetup, lockstep: int) -> dict[str, Any]:
    asked, short = group.config.base.dtype, str(group.adapted.base.dtype).removeprefix("torch.")
    found = (
        "this machine computes in it"
        if short == "bfloat16"
        else "this machine does not compute in bfloat16"
    )
    why = f"dtype = {asked!r}" if asked != "auto" else found
    alone = alone_for(group)
    many = (
        1
        if alone
        else min(lockstep, group.config.train.cohort or lockstep, len(group.participants))
    )
    row = {
        "model": group.config.base.model,
        "dtype": short,
        "why": why,
        "path": group.adapted.path.why,
    }
    return row | {"at_a_time": many, "alone": alone}


def alone_for(group: RunSetup) -> str:
    """Why no two participants of a base would train in lock-step (`participant.lockstep.alike`),
    however set; else nothing.
    """
    config, local, people = group.config, group.run_spec.local, group.participants
    if config.adapter.kind == "full":
        return "whole weights are trained"
    if group.adapted.path.layers is None:
        return "the base is not computed by Tequio's own layers"
    if not group.adapted.stacks(config.task.max_tokens):
        return f"texts may have {config.task.max_tokens} tokens, over {LONGEST}"
    if local.terms or local.method_name != "plain":
        return "[local] adds to each one's steps"
    if config.topology.kind != "star":
        return "each peer has a model of its own"
    if config.budget.limits() or sum(not node.books.limits for node in people) < min(
        2, len(people)
    ):
        return "budgets are kept step by step, by each one alone"
    same = any(one.steps == two.steps for one, two in pairwise(group.run_spec.members))
    if len(people) < 2 or not (same or config.train.cohort):
        return "no two neighbours on the roster make the same number of steps"
    return ""
