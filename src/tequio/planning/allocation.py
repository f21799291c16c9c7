"""The rank and the steps that each participant can finish before the deadline, from its declared or
probed
hardware."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tequio.core.errors import ConfigError, TrainingError
from tequio.core.reason import Reason
from tequio.core.texts.words import refusal, refuse_first

RANK_COST = 0.005
"""What one more rank adds to the time of a step, relative to the base alone.

Measured with LoRA on 384- and
576-wide models on one CPU core: 0.002 (query and value, ranks up to 64) to 0.005 (all linear
layers). A wider model pays less.
"""


@dataclass(frozen=True)
class Hardware:
    """What a participant has. None means: not known, so not a limit."""

    tokens_per_second: float | None = None
    uplink_mbit: float | None = None
    memory_gib: float | None = None
    max_rank: int | None = None


@dataclass(frozen=True)
class Workload:
    """What a full round asks. `ranks` is the ladder;

    `bytes_per_rank` is what one rank adds to the upload.

    memory_bytes and memory_bytes_per_rank: the sum of planning.memory at rank 0 and what one rank
        adds; 0
    leaves memory out. rank_cost: what one more rank adds to a step; 0 where the speed is that of
    the whole step.
    """

    tokens_per_step: int
    steps: int
    ranks: tuple[int, ...]
    bytes_per_rank: int
    deadline_seconds: float | None = None
    min_steps: int = 1
    memory_bytes: int = 0
    memory_bytes_per_rank: int = 0
    rank_cost: float = RANK_COST


@dataclass(frozen=True)
class Assignment:
    """What a participant is given.

    `seconds` is the expected time of a round (None: speed not known);
    `reason`: why it is given that."""

    rank: int
    steps: int
    seconds: float | None
    reason: Reason


def allocate(hardware: Hardware, workload: Workload) -> Assignment:
    """The largest allowed rank whose full steps and upload fit the deadline; else the smallest,
    with as many
    steps as fit.

    Never fewer than `min_steps`: where even those do not fit, they are given all the same and the
    reason says that it will be late. Without a deadline or a known speed, the largest allowed rank
    and full steps. seconds(r, k) = k · tokens_per_step / tokens_per_second · (1 + 0.005 r) + 8 ·
    bytes_per_rank · r / uplink. Raises ConfigError when the workload is not possible, or when no
    rank of the ladder is allowed.
    """
    _check(hardware, workload)
    allowed, why = _allowed(hardware, workload)
    top, full = allowed[-1], workload.steps
    seconds = _seconds(hardware, workload, top, full)
    if seconds is None:
        return Assignment(top, full, None, _reason("allotted-unknown", top, full, why=why))
    deadline = workload.deadline_seconds
    if deadline is None:
        return Assignment(
            top, full, seconds, _reason("allotted-free", top, full, why=why, seconds=seconds)
        )
    for rank in reversed(allowed):
        seconds = _seconds(hardware, workload, rank, full)
        if seconds is not None and seconds <= deadline:
            why = why if rank == top else Reason("rank-in-time").as_record()
            facts = {"why": why, "seconds": seconds, "deadline": deadline}
            return Assignment(rank, full, seconds, _reason("allotted", rank, full, **facts))
    return _fewer_steps(hardware, workload, allowed[0], deadline)


def _fewer_steps(hardware: Hardware, workload: Workload, rank: int, deadline: float) -> Assignment:
    """The smallest rank, with the steps between min_steps and full that fit."""
    upload = _seconds(hardware, workload, rank, 0) or 0.0
    one = (_seconds(hardware, workload, rank, 1) or 0.0) - upload
    fit = math.floor((deadline - upload) / one) if one > 0 else 0
    steps = max(workload.min_steps, min(workload.steps, fit))
    seconds = _seconds(hardware, workload, rank, steps) or 0.0
    facts = {"full": workload.steps, "seconds": seconds, "deadline": deadline}
    if fit >= workload.min_steps:
        return Assignment(rank, steps, seconds, _reason("allotted-fewer", rank, steps, **facts))
    late = _reason("allotted-late", rank, steps, **facts, late=seconds - deadline)
    return Assignment(rank, steps, seconds, late)


def _reason(code: str, rank: int, steps: int, **facts: Any) -> Reason:
    return Reason(code, {"rank": rank, "steps": steps, **facts})


def _seconds(hardware: Hardware, workload: Workload, rank: int, steps: int) -> float | None:
    """Expected time of training and upload; None where the speed is not known.

    An unknown uplink counts as no
    time."""
    if hardware.tokens_per_second is None:
        return None
    step = workload.tokens_per_step / hardware.tokens_per_second * (1 + workload.rank_cost * rank)
    upload = (
        8 * workload.bytes_per_rank * rank / (hardware.uplink_mbit * 1e6)
        if hardware.uplink_mbit
        else 0.0
    )
    return steps * step + upload


def _allowed(hardware: Hardware, workload: Workload) -> tuple[list[int], dict[str, Any]]:
    """Ranks of the ladder within max_rank and memory, rising, and why the largest of them is the
    largest.
    """
    ladder = sorted(set(workload.ranks))
    ranks, why = ladder, Reason("rank-largest")
    if hardware.max_rank is not None:
        ranks = [rank for rank in ranks if rank <= hardware.max_rank]
        if not ranks:
            raise refusal(ConfigError, "rank-too-small", max_rank=hardware.max_rank, rank=ladder[0])
        if len(ranks) < len(ladder):
            why = Reason("rank-capped", {"max_rank": hardware.max_rank})
    if hardware.memory_gib is not None:
        room = hardware.memory_gib * 2**30 - workload.memory_bytes
        small = [rank for rank in ranks if rank * workload.memory_bytes_per_rank <= room]
        if len(small) < len(ranks):
            why = (
                Reason("rank-fits", {"memory_gib": hardware.memory_gib})
                if small
                else Reason("rank-may-not-fit")
            )
        ranks = small or ranks[:1]
    return ranks, why.as_record()


def _check(hardware: Hardware, workload: Workload) -> None:
    found = {
        "ranks-unusable": min(workload.ranks, default=0) < 1,
        "steps-unusable": not 1 <= workload.min_steps <= workload.steps,
    }
    ranks, least = list(workload.ranks), workload.min_steps
    refuse_first(ConfigError, found, ranks=ranks, minimum=least, steps=workload.steps)
    positive = {
        "tokens_per_step": workload.tokens_per_step,
        "deadline": workload.deadline_seconds,
        "[hardware] tokens_per_second": hardware.tokens_per_second,
        "[hardware] uplink_mbit": hardware.uplink_mbit,
        "[hardware] memory_gib": hardware.memory_gib,
    }
    for key, value in positive.items():
        if value is not None and not 0 < value < math.inf:
            raise refusal(ConfigError, "not-above-zero", key=key, value=str(value))


def probe_tokens_per_second(
    step: Callable[[], int],
    seconds: float = 2.0,
    minimum: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Tokens a second of real training steps: the median over at least `minimum` of them, and about
    `seconds` of time.

    step: makes one step and returns the tokens it trained on. A first step, which pays for
        allocations, is not timed.
    Raises TrainingError when a step trains on no token.
    """
    rates: list[float] = []
    _timed(step, clock)
    start = clock()
    while len(rates) < max(1, minimum) or clock() - start < seconds:
        tokens, elapsed = _timed(step, clock)
        rates.append(tokens / max(elapsed, 1e-9))
    return statistics.median(rates)


def _timed(step: Callable[[], int], clock: Callable[[], float]) -> tuple[int, float]:
    start = clock()
    tokens = step()
    elapsed = clock() - start
    if tokens < 1:
        raise refusal(TrainingError, "probe-without-tokens")
    return tokens, elapsed
