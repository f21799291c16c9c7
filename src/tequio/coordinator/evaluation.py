"""What everybody saw of a shared model: their validation losses, and the centre's view of the
public slices.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from tequio.coordinator.admission import reply_cost
from tequio.coordinator.run_spec import Member
from tequio.core.errors import MessageError
from tequio.core.protocols import Runtime
from tequio.core.reason import Reason
from tequio.core.replies import too_many
from tequio.core.texts.words import sent_reason
from tequio.core.types import EvaluateRequest, Failure, Reply


@dataclass(frozen=True)
class Evaluation:
    """A shared model seen through everybody's eyes: validation by name, their mean loss,
    per-example harm of the public slices.
    """

    validation: dict[str, dict[str, Any]]
    mean_loss: float
    slices: Mapping[str, tuple[float, ...]]
    failed: Mapping[str, Reason]
    costs: Sequence[Mapping[str, Any]] = ()
    refused: frozenset[str] = (
        frozenset()
    )  # of those that failed: whose reply cannot be used, which says nothing of the model
    summed: Mapping[str, float] = field(
        default_factory=dict
    )  # means that a sum told, where no single figure is known

    @property
    def known(self) -> bool:
        """Return whether a participant's validation data were looked at."""
        return bool(self.validation or self.summed)

    def losses(self) -> dict[str, float]:
        """Validation loss by participant."""
        return {name: float(scores["loss"]) for name, scores in self.validation.items()}


@runtime_checkable
class LooksAtSums(Protocol):
    """A runtime whose participants give no loss of their own."""

    def look(self, requests: Iterable[EvaluateRequest], panel: Sequence[Member]) -> Evaluation:
        """Have a model scored, and tell what the sum tells."""


def ask_panel(
    requests: Iterable[EvaluateRequest], panel: Sequence[Member], runtime: Runtime
) -> Evaluation:
    """Have a panel score a model: each for itself, or as a sum where the runtime gives no more."""
    if isinstance(runtime, LooksAtSums):
        return runtime.look(requests, panel)
    return collect_evaluation(runtime.exchange(requests), panel)


def collect_evaluation(replies: Iterable[Reply | Failure], panel: Sequence[Member]) -> Evaluation:
    """What came back of an evaluation, in the order of the panel."""
    validation: dict[str, dict[str, Any]] = {}
    slices: Mapping[str, tuple[float, ...]] = {}
    failed: dict[str, Reason] = {}
    refused: set[str] = set()
    members = {member.name: member for member in panel}
    costs: list[dict[str, Any]] = []
    for reply in replies:
        why = None if isinstance(reply, Failure) else _implausible(reply, members[reply.name])
        if isinstance(reply, Failure):
            failed[reply.name] = failure_reason(reply)
            refused |= {reply.name} if reply.error == MessageError.__name__ else set()
        elif reply.index == 0:
            slices = reply.slices
        elif why:
            failed[reply.name] = why
            refused.add(reply.name)
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
    mean = statistics.fmean(losses) if losses else math.inf
    return Evaluation(validation, mean, slices, failed, costs, frozenset(refused))


def _implausible(reply: Reply, member: Member) -> Reason | None:
    """Say what of its figures cannot be; None where they can."""
    if reply.metrics and "loss" not in reply.metrics:
        return Reason("no-loss")
    return too_many(reply.examples, member.sizes, "validation")


def failure_reason(failure: Failure) -> Reason:
    """Return why a participant failed: the reason that came with its words, or the kind of error
    and the words.
    """
    return sent_reason(failure.message, failure.error)


def recorded(reasons: Mapping[str, Reason]) -> dict[str, dict[str, Any]]:
    """Return the reasons of participants for the record."""
    return {name: reason.as_record() for name, reason in reasons.items()}


def record_sums(trained: Mapping[str, float], seen: Mapping[str, float]) -> dict[str, Any]:
    """Return what sums told, for the record of a masked round; nothing of an open one."""
    found = {"train": dict(trained), "validation": dict(seen)}
    return (
        {"sums": {key: value for key, value in found.items() if value}} if trained or seen else {}
    )
