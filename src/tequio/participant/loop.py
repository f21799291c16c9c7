"""The local loop, on one page:

AdamW on the factors (and head), gradient clipped at 1, no schedule of its own.

What is minimised, the own loss or more, and where its gradient is taken, says an `Objective`.
Losses that are reported are the own ones.

Raises ConfigError where several processes meet a term or a method,
TrainingError when the loss is NaN or infinite, or when training diverges.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tequio.core.errors import ConfigError, TrainingError
from tequio.core.protocols import LocalMethod
from tequio.core.reason import Reason
from tequio.core.texts.words import refusal
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.objective import Objective
from tequio.participant.process_group import ALONE, ProcessGroup
from tequio.participant.text_tasks import Item, TextTask

CLIP = 1.0  # gradient norm
DIVERGED = 3.0  # the mean of the last losses may not exceed this many times the first loss, plus 1


@dataclass(frozen=True)
class Trained:
    """What a stretch of training did: the first and last losses (mean of up to five steps), steps
    and tokens.
    """

    loss_first: float
    loss_last: float
    steps: int
    tokens: int


def adamw(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW with betas (.9, .999) and no decay; `train` sets the rate of each step."""
    on_gpu = any(p.is_cuda for p in parameters)
    return torch.optim.AdamW(list(parameters), weight_decay=0.0, foreach=not on_gpu, fused=on_gpu)


def train(
    adapted: AdaptedModel,
    task: TextTask,
    parameters: Sequence[nn.Parameter],
    stream: Iterator[list[Item]],
    rates: Iterable[float],
    who: str,
    optimizer: torch.optim.Optimizer | None = None,
    objective: Objective | None = None,
    together: ProcessGroup = ALONE,
) -> Trained:
    """One AdamW step (betas .9, .999, no decay) for each rate in `rates`, on the adapted model's
    attached factors.

    together: the processes that share each batch.
    """
    optimizer = optimizer or adamw(parameters)
    objective = objective or Objective()
    if together.size > 1 and (objective.terms or objective.method.batches > 1):
        raise refusal(ConfigError, "team-terms", processes=together.size)
    losses: list[float] = []
    tokens = 0
    for rate in rates:
        saved: list[Tensor] = []
        if (
            objective.method.batches > 1
        ):  # look ahead: the gradient below is taken where a step on this batch leads
            support = next(stream)
            saved = _look_ahead(parameters, task.loss(adapted, support), objective.method)
            tokens += sum(len(item.ids) for item in support)
        batch = next(stream)
        optimizer.param_groups[0]["lr"] = rate
        own = _own(adapted, task, batch, together)
        loss = objective.total(own, adapted, task)
        value = together.total(float(loss.detach()))
        if not math.isfinite(value):
            raise bad(who, Reason("diverged", {"loss": str(value), "step": len(losses) + 1}))
        loss.backward()  # type: ignore[no-untyped-call]
        together.add([p.grad for p in parameters if p.grad is not None])
        if saved:
            _put_back(parameters, saved)
        torch.nn.utils.clip_grad_norm_(parameters, CLIP, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(together.total(float(own.detach())))
        tokens += sum(len(item.ids) for item in batch)
    return summed_up(losses, tokens, who)


def summed_up(losses: Sequence[float], tokens: int, who: str) -> Trained:
    """What a stretch of training did, by its losses.

    Raises TrainingError if one is not a number, or if they rose.
    """
    odd = next((k for k, loss in enumerate(losses, 1) if not math.isfinite(loss)), None)
    if odd is not None:
        raise bad(who, Reason("diverged", {"loss": str(losses[odd - 1]), "step": odd}))
    few = max(1, min(5, len(losses) // 2))
    first, last = sum(losses[:few]) / few, sum(losses[-few:]) / few
    if (
        last > DIVERGED * losses[0] + 1.0
    ):  # against the loss before any step: later ones may be huge already
        raise bad(who, Reason("loss-rose", {"first": losses[0], "last": last}))
    return Trained(first, last, len(losses), tokens)


def _own(
    adapted: AdaptedModel, task: TextTask, batch: list[Item], together: ProcessGroup
) -> Tensor:
    """This process's share of the batch's mean loss; the shares add up to it."""
    if together.size == 1:
        return task.loss(adapted, batch)
    counted = [item for item in batch if task.row_count(item)]
    part = together.part(counted)
    share = sum(map(task.row_count, part)) / max(1, sum(map(task.row_count, counted)))
    return (
        task.loss(adapted, part or counted[:1] or batch) * share
    )  # with no item of its own: a gradient of 0


def _look_ahead(
    parameters: Sequence[nn.Parameter], loss: Tensor, method: LocalMethod
) -> list[Tensor]:
    """Move the parameters ahead by the clipped gradient of `loss`; returns what they were."""
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(parameters, CLIP, foreach=True)
    saved = [p.detach().clone() for p in parameters]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    with torch.no_grad():
        for p, value in zip(parameters, method.ahead(saved, gradients), strict=True):
            p.copy_(value)
            p.grad = None
    return saved


def _put_back(parameters: Sequence[nn.Parameter], saved: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for p, value in zip(parameters, saved, strict=True):
            p.copy_(value)


def bad(who: str, why: Reason) -> TrainingError:
    """Training that diverged."""
    return refusal(TrainingError, why.code, **why.facts).within(f"Participant {who}")
