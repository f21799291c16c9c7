"""Several participants of one process trained in lock-step over one frozen base: one product with a
frozen weight for all of their texts,
small ones with each one's own factors, and for each its own loss, clipping and state of AdamW.

What a participant learns is what it would learn alone, but for rounding. Ranks may differ: smaller
factors are filled up with zeros, whose gradients are zero. The factors of G participants are
stacked, a (G × r × n) and b (G × m × r); so are heads.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, nn

from tequio.core.errors import TrainingError
from tequio.core.reason import Reason
from tequio.core.types import Energy, Reply, TrainRequest
from tequio.core.update import Update
from tequio.participant.adapted_model import AdaptedModel, Attached
from tequio.participant.loop import CLIP, Trained, adamw, bad, summed_up
from tequio.participant.node import Node
from tequio.participant.text_tasks import IGNORE, Item, TextTask, batches

FILL = Item((0,), (IGNORE,))  # a text without a target, where batches are of unequal size


def alike(node: Node, task: TrainRequest, other: TrainRequest) -> bool:
    """Whether `node` can make `task` in lock-step with another's: plain steps, as many, from one
    shared model, no budget.
    """
    plain = (
        not task.terms
        and task.method == "plain"
        and node.together.size == 1
        and not node.adapted.full
    )
    same = (task.round, task.steps, task.learning_rate, task.layout, task.trained)
    theirs = (other.round, other.steps, other.learning_rate, other.layout, other.trained)
    free = (
        not task.budget and not node.books.left()
    )  # a budget is kept step by step, by each one alone
    return (
        plain
        and free
        and same == theirs
        and task.held is other.held
        and node.adapted.stacks(node.task.max_tokens)
    )


def train_together(
    nodes: Sequence[Node], tasks: Sequence[TrainRequest]
) -> list[Reply | TrainingError]:
    """The answers to tasks that are `alike`, of participants on one adapted model.

    One that diverges does not disturb the others.
    """
    adapted = nodes[0].adapted
    updates: list[Update | None] = []
    with ExitStack() as stack:
        meters = [node.meter.at(task.hours) for node, task in zip(nodes, tasks, strict=True)]
        readings = [stack.enter_context(meter.measure()) for meter in meters]
        try:
            own = []
            for node, task in zip(nodes, tasks, strict=True):
                node.attach(task)
                own.append(adapted.attached())
            parameters = _stack(adapted, own)
            streams = [
                batches(n.data.train, n.batch_size, t.seed)
                for n, t in zip(nodes, tasks, strict=True)
            ]
            rates, names = [tasks[0].learning_rate] * tasks[0].steps, [node.name for node in nodes]
            trained = _train(adapted, nodes[0].task, parameters, streams, rates, names)
            whole = adapted.attached()
            for i, before in enumerate(own):
                adapted.attach_again(_one(whole, before, i))
                updates.append(adapted.extract() if isinstance(trained[i], Trained) else None)
        finally:
            adapted.detach()
    tokens = sum(one.tokens for one in trained if isinstance(one, Trained))
    answers: list[Reply | TrainingError] = []
    for node, task, one, update, reading in zip(
        nodes, tasks, trained, updates, readings, strict=True
    ):
        if isinstance(one, TrainingError) or update is None:
            answers.append(
                one
                if isinstance(one, TrainingError)
                else bad(node.name, Reason("update-not-finite"))
            )
            continue
        answers.append(node.reply(task, one, _share(reading.energy, one.tokens / tokens), update))
    return answers


def _train(
    adapted: AdaptedModel,
    task: TextTask,
    parameters: Sequence[nn.Parameter],
    streams: Sequence[Iterator[list[Item]]],
    rates: Sequence[float],
    names: Sequence[str],
) -> list[Trained | TrainingError]:
    """The local loop (`loop.train`) of all of them at once."""
    optimizer = adamw(parameters)
    losses: list[list[float]] = []
    tokens = [0] * len(streams)
    for rate in rates:
        parts = [next(stream) for stream in streams]
        size = max(map(len, parts))
        rows = list(chain.from_iterable(part + [FILL] * (size - len(part)) for part in parts))
        total, terms = (t.view(len(parts), size).sum(1) for t in task.totals(adapted, rows))
        own = total / terms
        optimizer.param_groups[0]["lr"] = rate
        own.sum().backward()  # type: ignore[no-untyped-call]
        _clip(parameters)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(own.detach().tolist())
        tokens = [
            n + sum(len(item.ids) for item in part) for n, part in zip(tokens, parts, strict=True)
        ]
    out: list[Trained | TrainingError] = []
    for name, seen, many in zip(names, zip(*losses, strict=True), tokens, strict=True):
        try:
            out.append(summed_up(list(seen), many, name))
        except TrainingError as error:
            out.append(error)
    return out


def _clip(parameters: Sequence[nn.Parameter]) -> None:
    """Each participant's gradient to a norm of at most CLIP, as `torch.nn.utils.clip_grad_norm_`
    does for one.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    squares = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
    factor = (CLIP / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(factor.view(-1, *[1] * (g.dim() - 1)))


def _stack(adapted: AdaptedModel, own: Sequence[Attached]) -> list[nn.Parameter]:
    """Attach everybody's factors and heads, stacked; returns what is to be trained."""
    rank = {name: max(len(one.factors[name][0]) for one in own) for name in adapted.layers}
    factors = {}
    for name, r in rank.items():
        a = torch.stack([_filled(one.factors[name][0], 0, r) for one in own])
        b = torch.stack([_filled(one.factors[name][1], 1, r) for one in own])
        wanted = [p.requires_grad for p in own[0].factors[name]]
        factors[name] = (nn.Parameter(a, wanted[0]), nn.Parameter(b, wanted[1]))
    head = {
        key: nn.Parameter(torch.stack([one.head[key].detach() for one in own]))
        for key in adapted.head
    }
    adapted.attach_again(replace(own[0], factors=factors, head=dict(head)))
    return [p for pair in factors.values() for p in pair if p.requires_grad] + list(head.values())


def _filled(factor: Tensor, dim: int, size: int) -> Tensor:
    """Zeros added along one dimension."""
    shape = list(factor.shape)
    shape[dim] = size - shape[dim]
    return torch.cat([factor.detach(), factor.new_zeros(shape)], dim)


def _one(whole: Attached, before: Attached, i: int) -> Attached:
    """The i-th participant's part, of its own rank."""
    factors = {}
    for name, (a, b) in before.factors.items():
        stacked_a, stacked_b = whole.factors[name]
        factors[name] = (
            nn.Parameter(stacked_a.detach()[i, : len(a)]),
            nn.Parameter(stacked_b.detach()[i, :, : b.shape[1]]),
        )
    return replace(
        before, factors=factors, head={key: t.detach()[i] for key, t in whole.head.items()}
    )


def _share(energy: Energy, share: float) -> Energy:
    """A participant's share of what was measured for all, by its tokens."""
    embodied = None if energy.embodied is None else energy.embodied * share
    hosted = None if energy.hosted is None else energy.hosted * share
    seconds = energy.seconds * share
    return replace(
        energy, joules=energy.joules * share, seconds=seconds, embodied=embodied, hosted=hosted
    )
