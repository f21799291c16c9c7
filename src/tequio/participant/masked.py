"""A participant of which only masked vectors leave: it answers the steps of secure sums, and no
open training or evaluation.

A reply is built from a short list of what may be in it. Steps are those that were asked for; what
was done with which texts, tokens and counts stay here; energy and money are rounded to two digits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from tequio.core.errors import BudgetError, ProtectionError, TrainingError, UpdateError
from tequio.core.protocols import Participant
from tequio.core.texts.words import refusal
from tequio.core.types import (
    Energy,
    EvaluateRequest,
    GradientRequest,
    Money,
    Reply,
    SumRequest,
    TrainRequest,
)
from tequio.core.update import Update
from tequio.trust.secure_sum.agreement import Context
from tequio.trust.secure_sum.directory import unpack_indices
from tequio.trust.secure_sum.field import Field
from tequio.trust.secure_sum.participant import Member
from tequio.trust.secure_sum.plan import SumPlan

DIGITS = 2  # of energy and money in a reply


@dataclass(frozen=True)
class MaskedNode:
    """A participant in this process. member: the secrets of its sums, the same whichever model it
    is trained on."""

    node: Participant
    member: Member
    plan: SumPlan

    @property
    def name(self) -> str:
        """Return its name."""
        return self.node.name

    def train(self, task: TrainRequest) -> Reply:
        """Refuse: its update would leave in the clear."""
        self._refuse(task.round)

    def evaluate(self, task: EvaluateRequest) -> Reply:
        """Refuse: its loss would leave in the clear."""
        self._refuse(task.round)

    def gradient(self, task: GradientRequest) -> Reply:
        """Refuse, as every participant does."""
        return self.node.gradient(task)

    def _refuse(self, round_: int) -> NoReturn:
        raise refusal(ProtectionError, "open-request", round=round_)

    def add_up(self, task: SumRequest) -> Reply:
        """Take one step of a secure sum. Raises ProtectionError where it would show more than a
        sum, BudgetError if no budget is left."""
        context, member = self.plan.context(task), self.member
        if task.step == "announce":
            return self._reply(task, member.announce(context))
        if task.step == "share":
            return self._reply(task, member.share(context, task.payload))
        if task.step == "unmask":
            return self._reply(task, member.unmask(context, unpack_indices(task.payload)))
        worked: list[Reply] = []

        def vector() -> tuple[NDArray[np.float32], Mapping[str, float]]:
            found, values, figures = self._worked(task, context)
            worked.append(found)
            return values, figures

        hidden = member.mask(context, self.plan.asked(task), task.payload, vector)
        return self._reply(task, hidden, worked[0] if worked else None)

    def _worked(
        self, task: SumRequest, context: Context
    ) -> tuple[Reply, NDArray[np.float32], dict[str, float]]:
        """Train or evaluate; the reply that an open participant would give, and of it the values
        and figures that are added up."""
        most = context.layout.figures
        try:
            if isinstance(task.request, EvaluateRequest):
                found = self.node.evaluate(task.request)
                return (
                    found,
                    np.zeros(0, np.float32),
                    {name: min(found.metrics[name], most[name]) for name in most},
                )
            assert isinstance(task.request, TrainRequest), "the plan has checked it"
            found = self.node.train(task.request)
        except BudgetError:
            raise
        except (TrainingError, UpdateError):  # its words may hold losses
            raise refusal(ProtectionError, "masked-nothing", round=task.round) from None
        update = found.update
        assert isinstance(update, Update), "uploads are plain"
        values = self.plan.places(task.trained).vector(update, context.layout.covers[task.index])
        field = Field(context.layout.bound, len(context.layout.covers))
        clipped = float(np.count_nonzero(np.abs(values) > field.limit))
        losses = {
            name: min(found.metrics[name], most[name]) for name in ("loss_first", "loss_last")
        }
        return found, values, losses | {"clipped": clipped}

    def _reply(self, task: SumRequest, payload: bytes, worked: Reply | None = None) -> Reply:
        steps = task.request.steps if isinstance(task.request, TrainRequest) else 0
        energy = money = None
        if worked is not None:
            energy = None if worked.energy is None else rounded_energy(worked.energy)
            money = (
                None
                if worked.money is None
                else Money(rounded(worked.money.amount), worked.money.currency)
            )
        return Reply(
            task.round,
            task.index,
            task.name,
            payload=payload,
            steps=steps,
            energy=energy,
            money=money,
        )


def rounded(value: float) -> float:
    """Return a number with two digits."""
    return float(f"{value:.{DIGITS - 1}e}")


def rounded_energy(energy: Energy) -> Energy:
    """Return an energy of which two digits are shown: more would tell how long the texts of a round
    are."""
    hosted = None if energy.hosted is None else rounded(energy.hosted)
    embodied = None if energy.embodied is None else rounded(energy.embodied)
    return replace(
        energy,
        joules=rounded(energy.joules),
        seconds=rounded(energy.seconds),
        hosted=hosted,
        embodied=embodied,
    )
