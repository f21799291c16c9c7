"""The local loop, on one page: AdamW on the factors (and head), gradient clipped at 1, no schedule of its own.

Raises TrainingError when the loss is NaN or infinite, or when training diverges.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from tequio.core.errors import TrainingError
from tequio.participant.bench import Bench
from tequio.participant.tasks import Item, TextTask

CLIP = 1.0  # gradient norm
DIVERGED = 3.0  # the mean of the last losses may not exceed this many times the first loss, plus 1


@dataclass(frozen=True)
class Trained:
    """What a stretch of training did: the first and last losses (mean of up to five steps), steps and tokens."""

    loss_first: float
    loss_last: float
    steps: int
    tokens: int


def adamw(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW with betas (.9, .999) and no decay; `train` sets the rate of each step."""
    return torch.optim.AdamW(list(parameters), weight_decay=0.0, foreach=True)


def train(
    bench: Bench,
    task: TextTask,
    parameters: Sequence[nn.Parameter],
    stream: Iterator[list[Item]],
    rates: Sequence[float],
    who: str,
    optimizer: torch.optim.Optimizer | None = None,
) -> Trained:
    """One AdamW step (betas .9, .999, no decay) for each rate in `rates`, on the bench's attached factors."""
    optimizer = optimizer or adamw(parameters)
    losses: list[float] = []
    tokens = 0
    for rate in rates:
        batch = next(stream)
        optimizer.param_groups[0]["lr"] = rate
        loss = task.loss(bench, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise _bad(who, f"The loss became {value} at step {len(losses) + 1}.")
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, CLIP, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(value)
        tokens += sum(len(item.ids) for item in batch)
    few = max(1, min(5, len(losses) // 2))
    first, last = sum(losses[:few]) / few, sum(losses[-few:]) / few
    if last > DIVERGED * losses[0] + 1.0:  # against the loss before any step: later ones may be huge already
        raise _bad(who, f"The loss went from {losses[0]:.3g} to {last:.3g}.")
    return Trained(first, last, len(losses), tokens)


def _bad(who: str, why: str) -> TrainingError:
    fix = "Lower [train] learning_rate in federation.toml, and look for odd rows in its data."
    return TrainingError(f"Participant {who}: training diverged.", why, fix)
