"""One fit: train an adapter on a start, look at validation data on the way, and keep the checkpoint
that is best there.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tequio.algorithms.local._products import still
from tequio.algorithms.local.fedprox import FedProx
from tequio.core.errors import TrainingError
from tequio.core.seeds import derive
from tequio.core.update import Update, zero
from tequio.participant.loop import adamw, train
from tequio.participant.node import Node
from tequio.participant.objective import Objective
from tequio.participant.personal_budget import FitBudget, PersonalModelBudget
from tequio.participant.text_tasks import Item, Losses, batches

Moved = Callable[[float, float | None], None]
"""Called with the steps that were made since it was called last, and the loss on validation data
(for progress; it decides nothing).
"""


def ignore_moves(steps: float, loss: float | None) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Fitted:
    """The best adapter of a fit on validation (what it adds to its start), losses there before and
    after, and how it was reached.

    steps, tokens: made in all, with every rate that was tried; longest: steps at the rate that got
        furthest.
    looks: losses of the start and of every checkpoint of a finite loss, among which the best was
        chosen.
    """

    tail: Update
    before: Losses
    after: Losses
    rate: float
    step: int
    diverged: tuple[float, ...] = ()  # rates that were tried in vain
    steps: int = 0
    tokens: int = 0
    longest: int = 0
    looks: tuple[Losses, ...] = ()


def fit(
    node: Node,
    start: Update,
    data: tuple[Sequence[Item], Sequence[Item]],
    budget: FitBudget,
    seed: int,
    pull: float = 0.0,
    budgeted: PersonalModelBudget | None = None,
    name: str = "",
    moved: Moved = ignore_moves,
    whole: bool = False,
) -> Fitted:
    """Train an adapter over base + `start` on data[0]; keep the checkpoint, over all rates, that is
    best on data[1].

    The start itself is the first checkpoint, so that a fit never ends worse than it began (on
    validation). A rate that diverges is given up and named; its checkpoints from before that count.
    pull: λ of Ditto, towards `start`. budgeted: what may still be spent; it knows this fit by
    `name`. whole: of each rate only its end counts, and the start does not: few validation texts
    find a good checkpoint by luck, and miss that a fit helps.
    """
    adapted, task, budgeted = node.adapted, node.task, budgeted or PersonalModelBudget()
    items, validation = data
    adapted.fold_in(start)
    with budgeted.looking():
        before = node.losses(validation)
    budget = budgeted.planned(replace(budget, checks=1) if whole else budget, name)
    best = Fitted(zero(adapted.spec), before, before, 0.0, 0)
    steps = tokens = longest = 0
    looks = [before]
    for rate in budget.rates:
        adapted.fold_in(start)
        parameters = (
            adapted.attach_full()
            if budget.full
            else adapted.attach(budget.rank, derive(seed, "factors"))
        )
        stream = batches(items, node.batch_size, derive(seed, "batches"))
        objective = Objective((FedProx(pull),) if pull else (), start=still(adapted.moving()))
        optimizer = adamw(
            parameters
        )  # one for the whole fit: looking at validation does not disturb it
        done = 0
        for end in _marks(budget):
            rates = [rate * _decay(step, budget) for step in range(done, end)]
            if not budgeted.may(name, done, budget):
                break
            try:
                fitting = budgeted.steps(rates)
                made = train(
                    adapted,
                    task,
                    parameters,
                    stream,
                    fitting,
                    node.name,
                    optimizer,
                    objective,
                    node.together,
                )
            except TrainingError:
                best = replace(best, diverged=(*best.diverged, rate))
                break
            done, steps, tokens = done + made.steps, steps + made.steps, tokens + made.tokens
            longest = max(longest, done)
            after = node.losses(validation)
            moved(made.steps, after.scores().loss)
            looks.append(after)
            first = whole and not best.tail.entries and math.isfinite(after.scores().loss)
            if first or after.scores().loss < best.after.scores().loss:  # never true of NaN
                best = replace(best, tail=adapted.extract(), after=after, rate=rate, step=done)
    adapted.detach()
    finite = tuple(look for look in looks if math.isfinite(look.scores().loss))
    return replace(best, steps=steps, tokens=tokens, longest=longest, looks=finite)


def _marks(budget: FitBudget) -> list[int]:
    """Steps after which to look at validation; the last is the end."""
    return sorted(
        {max(1, round(budget.steps * k / budget.checks)) for k in range(1, budget.checks + 1)}
    )


def _decay(step: int, budget: FitBudget) -> float:
    return 1.0 - (1.0 - budget.final_rate) * step / max(1, budget.steps)
