"""What everybody saw of a shared model: their validation losses, and the centre's view of the public slices."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tequio.coordinator.aggregation import reply_cost
from tequio.coordinator.run_spec import Member
from tequio.core.errors import BudgetError
from tequio.core.types import Failure, Reply


@dataclass(frozen=True)
class Evaluation:
    """A shared model seen through everybody's eyes: validation by name, their mean loss, per-example harm of the public slices."""

    validation: dict[str, dict[str, Any]]
    mean_loss: float
    slices: Mapping[str, tuple[float, ...]]
    failed: Mapping[str, str]
    costs: Sequence[Mapping[str, Any]] = ()

    def losses(self) -> dict[str, float]:
        """Validation loss by participant."""
        return {name: float(scores["loss"]) for name, scores in self.validation.items()}


def collect_evaluation(replies: Iterable[Reply | Failure], panel: Sequence[Member]) -> Evaluation:
    """What came back of an evaluation, in the order of the panel."""
    validation: dict[str, dict[str, Any]] = {}
    slices: Mapping[str, tuple[float, ...]] = {}
    failed: dict[str, str] = {}
    costs: list[dict[str, Any]] = []
    for reply in replies:
        if isinstance(reply, Failure):
            failed[reply.name] = failure_reason(reply)
        elif reply.index == 0:
            slices = reply.slices
        elif reply.metrics:
            scores = dict(reply.metrics)
            costs.append({"name": reply.name, **reply_cost(reply)})
            validation[reply.name] = {
                "loss": scores["loss"],
                "accuracy": scores.get("accuracy"),
                "examples": reply.examples,
            }
    order = {m.name: m.index for m in panel}
    validation = dict(sorted(validation.items(), key=lambda item: order[item[0]]))
    costs.sort(key=lambda row: order[row["name"]])
    losses = [v["loss"] for v in validation.values()]
    return Evaluation(validation, statistics.fmean(losses) if losses else math.inf, slices, failed, costs)


def failure_reason(failure: Failure) -> str:
    """For the record: the kind of error, and its words; a spent budget is no error."""
    return failure.message if failure.error == BudgetError.__name__ else f"{failure.error}: {failure.message}"
