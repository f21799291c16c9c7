"""This machine's speed by real steps: a few batches of several participants, timed and metered;
what they changed is thrown away.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice

from torch import nn
from torch.optim import Optimizer

from tequio.core.errors import TrainingError
from tequio.core.texts.words import refusal
from tequio.core.update import zero
from tequio.measure.sensors import settle
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.loop import adamw, train
from tequio.participant.node import Node
from tequio.participant.text_tasks import Item, batches, by_length
from tequio.planning.throughput import Probed, line

STEPS = 6  # of each of at most three participants; the first one is not timed
EVALUATIONS = 48  # items of an evaluation that is timed
EVALUATIONS_ON_CARD = (
    512  # and on a graphics card, the middle of three times: a few short batches say little there
)
# on a graphics card so long at least: its steps are short, and its counter of energy moves ten
# times a second
CARD_SECONDS = 0.5


def probe(
    nodes: Sequence[Node], rank: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, Probed]:
    """By name: lines through the steps and evaluations of the participants with the shortest, the
    middle and the longest texts.

    Times are this machine's, the same for all; watts are of each one's own meter, whose rated power
    it may have stated. A graphics card, which works on after a call has returned, is waited for,
    and gets going before anything is timed: `start`. The steps meet what a
    run meets at most: a folded model, and the batch of the longest texts. Raises TrainingError if
        no step could be timed.
    """
    chosen, clock = spread(nodes), _settled(clock)
    adapted = chosen[0].adapted
    begun = clock()
    if _on_card(adapted):
        _turn(chosen[-1], rank, clock)
        _longest(chosen[-1], rank, clock)
        _look(chosen[-1], clock)
    start = clock() - begun
    steps: list[tuple[float, float]] = []
    looks: list[tuple[float, float]] = []
    turns: list[float] = []
    before = clock()
    meters = {node.meter.watts: node.meter for node in nodes}
    with ExitStack() as stack:
        readings = {watts: stack.enter_context(meter.measure()) for watts, meter in meters.items()}
        for node in chosen:
            turns.append(_turn(node, rank, clock))
            steps += _steps(node, rank, clock)
            looks.append(_look(node, clock))
        steps.append(_longest(chosen[-1], rank, clock))
    seconds = clock() - before
    adapted.fold_in(zero(adapted.spec))
    if not steps:
        raise refusal(TrainingError, "probe-without-step")
    probed = Probed(
        steps=line(*zip(*steps, strict=True)),
        evaluations=line(*zip(*looks, strict=True)),
        turn=sorted(turns)[len(turns) // 2],
        watts=0.0,
        rank=rank,
        batch_tokens=sum(tokens for tokens, _ in looks) / len(looks),
        start=start,
    )
    mean = {
        watts: reading.energy.joules / max(seconds, 1e-9) for watts, reading in readings.items()
    }
    return {node.name: replace(probed, watts=mean[node.meter.watts]) for node in nodes}


def spread(nodes: Sequence[Node]) -> list[Node]:
    """At most three: of the shortest, the middle and the longest texts."""
    ranked = sorted(nodes, key=lambda node: padded(node)[1])
    return [ranked[i] for i in sorted({0, len(ranked) // 2, len(ranked) - 1})]


def padded(node: Node, seed: int = 0) -> tuple[float, float]:
    """(padded tokens of a batch, length of a padded sequence), means over about an epoch of
    batches.
    """
    count = max(1, -(-len(node.data.train) // node.batch_size))
    drawn = list(islice(batches(node.data.train, node.batch_size, seed), min(count, 64)))
    sizes = [len(batch) * max(len(item.ids) for item in batch) for batch in drawn]
    return sum(sizes) / len(sizes), sum(max(len(i.ids) for i in batch) for batch in drawn) / len(
        drawn
    )


def pass_tokens(items: Sequence[Item], batch_tokens: int) -> float:
    """Padded tokens of one pass over `items`, as evaluation batches them."""
    return float(
        sum(
            len(where) * max(len(items[i].ids) for i in where)
            for where in by_length(items, batch_tokens)
        )
    )


def _steps(node: Node, rank: int, clock: Callable[[], float]) -> list[tuple[float, float]]:
    parameters = _attached(node.adapted, rank)
    optimizer = adamw(parameters)
    timed: list[tuple[float, float]] = []
    first = clock()
    for number, batch in enumerate(batches(node.data.train, node.batch_size, 1)):
        if number >= STEPS and not (_on_card(node.adapted) and clock() - first < CARD_SECONDS):
            break
        point = _step(node, batch, parameters, optimizer, clock)
        if number:
            timed.append(point)
    return timed


def _step(
    node: Node,
    batch: list[Item],
    parameters: list[nn.Parameter],
    optimizer: Optimizer,
    clock: Callable[[], float],
) -> tuple[float, float]:
    start = clock()
    train(node.adapted, node.task, parameters, iter([batch]), [1e-9], node.name, optimizer)
    return float(len(batch) * max(len(item.ids) for item in batch)), clock() - start


def _longest(node: Node, rank: int, clock: Callable[[], float]) -> tuple[float, float]:
    """A step on the longest texts, which decide over memory; the second, for the first is
    slower.
    """
    parameters = _attached(node.adapted, rank)
    optimizer = adamw(parameters)
    batch = sorted(node.data.train, key=lambda item: len(item.ids))[-node.batch_size :]
    _step(node, batch, parameters, optimizer, clock)
    return _step(node, batch, parameters, optimizer, clock)


def _settled(clock: Callable[[], float]) -> Callable[[], float]:
    """The time once the cards have done what they were given."""

    def now() -> float:
        settle()
        return clock()

    return now


def _on_card(adapted: AdaptedModel) -> bool:
    return adapted.device.type != "cpu"


def _look(node: Node, clock: Callable[[], float]) -> tuple[float, float]:
    card, seconds = _on_card(node.adapted), list[float]()
    items = node.data.validation[: EVALUATIONS_ON_CARD if card else EVALUATIONS]
    if card:
        node.task.losses(node.adapted, items)  # kernels for these sizes are looked for once
    for _ in range(3 if card else 1):
        start = clock()
        node.task.losses(node.adapted, items)
        seconds.append(clock() - start)
    return pass_tokens(items, node.task.batch_tokens), sorted(seconds)[len(seconds) // 2]


def _turn(node: Node, rank: int, clock: Callable[[], float]) -> float:
    """Seconds to take factors off, hold the model that they make, and attach new ones.

    It stays held: B is 0, so it is the base still.
    """
    adapted = node.adapted
    _attached(adapted, rank)
    start = clock()
    adapted.fold_in(adapted.extract())
    _attached(adapted, rank)
    return clock() - start


def _attached(adapted: AdaptedModel, rank: int) -> list[nn.Parameter]:
    return adapted.attach_full() if adapted.full else adapted.attach(rank, 0)
