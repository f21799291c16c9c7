"""Rounds in which the coordinator learns sums alone: of updates while training, of losses while a
model is looked at.

It is the seam of ADR 14: `gather` exchanges messages four times where an open round does once, and
gives one `OpenedSum`; the rest of the round is the same code. The centre's texts are public, so its
update and its view of public slices come in the clear.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from tequio.coordinator.admission import Admitted, Refused, reply_cost
from tequio.coordinator.aggregation import OpenedSum
from tequio.coordinator.evaluation import Evaluation, collect_evaluation, failure_reason
from tequio.coordinator.round import in_order
from tequio.coordinator.run_spec import Member, RunSpec
from tequio.core.canonical import digest_update
from tequio.core.errors import ProtectionError
from tequio.core.reason import Reason
from tequio.core.texts.words import refusal
from tequio.core.types import (
    EvaluateRequest,
    Failure,
    Reply,
    Request,
    State,
    SumRequest,
    TrainRequest,
)
from tequio.core.update import zero
from tequio.trust.secure_sum.coordinator import Collector, Opened
from tequio.trust.secure_sum.directory import pack_indices
from tequio.trust.secure_sum.plan import SumPlan

ATTEMPTS = (
    3  # times that keys and shares are exchanged before a sum is given up; values are sent once
)


class SumRuntime(Protocol):
    """A runtime that carries the steps of secure sums as well."""

    def exchange(self, tasks: Iterable[Request | SumRequest]) -> Iterator[Reply | Failure]:
        """Yield one Reply or Failure per task, in order of arrival."""


@dataclass(frozen=True)
class SumRounds:
    """A runtime for masked rounds: what it carries of participants are steps of secure sums; the
    centre is asked as ever."""

    inner: SumRuntime
    plan: SumPlan

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        """Carry what is asked of the centre. Raises ProtectionError for a request that a
        participant would answer in the clear."""
        for task in tasks:
            if task.index > 0:
                raise refusal(ProtectionError, "open-request", round=task.round)
            yield from self.inner.exchange([task])

    def gather(
        self,
        tasks: Iterator[Request],
        roster: Sequence[Member],
        state: State,
        run_spec: RunSpec,
        _: object,
        /,
    ) -> OpenedSum:
        """Have the participants of a round train, and open the sum of their updates."""
        requests = [task for task in tasks if isinstance(task, TrainRequest)]
        centre, refused = self._centre(requests, roster, state, run_spec)
        head = digest_update(state.shared)
        made = _Sum(
            self.inner,
            self.plan,
            [_step_of(task, "train", head) for task in requests if task.index > 0],
        )
        opened = made.run()
        refused += [
            _refused(member, made.failed[member.index])
            for member in roster
            if member.index in made.failed
        ]
        if opened is None:
            return OpenedSum(zero(run_spec.spec), 0.0, [], refused, centre)
        update = self.plan.places(made.trained).update(opened.values, run_spec.spec)
        rows = [made.row(member) for member in roster if member.index in opened.survivors]
        figures = {**means(opened), "rank": float(self.plan.tiers[len(opened.counts) - 1])}
        return OpenedSum(update, float(len(rows)), rows, refused, centre, figures)

    def _centre(
        self,
        requests: Sequence[TrainRequest],
        roster: Sequence[Member],
        state: State,
        run_spec: RunSpec,
    ) -> tuple[Admitted | None, list[Refused]]:
        """Have the centre train, in the clear: its texts are public."""
        own, member = (
            [task for task in requests if task.index == 0],
            [m for m in roster if m.index == 0],
        )
        for outcome in in_order(self.inner.exchange(own), state, run_spec, member):
            return (None, [outcome]) if isinstance(outcome, Refused) else (outcome, [])
        return None, []

    def look(self, requests: Iterable[EvaluateRequest], panel: Sequence[Member]) -> Evaluation:
        """Have a model scored: the participants' means as one sum, the centre's public slices in
        the clear."""
        every = list(requests)
        seen = collect_evaluation(
            self.inner.exchange([task for task in every if task.index == 0]), panel
        )
        asked = [
            _step_of(task, "validate", digest_update(task.held)) for task in every if task.index > 0
        ]
        if not asked:
            return seen
        made = _Sum(self.inner, self.plan, asked)
        opened = made.run()
        lost = {m.name: made.failed[m.index] for m in panel if m.index in made.failed}
        seen = replace(seen, failed={**seen.failed, **lost})
        if opened is None:
            return replace(seen, mean_loss=math.inf)
        costs = [made.cost(member) for member in panel if member.index in opened.survivors]
        found = means(opened)
        return replace(seen, mean_loss=found["loss"], costs=costs, summed=found)


def means(opened: Opened) -> dict[str, float]:
    """Return what the figures of a sum tell: means per member, a count of clipped values, and how
    many members."""
    count = len(opened.survivors)
    found = {
        name: value if name == "clipped" else value / count
        for name, value in opened.figures.items()
    }
    return {"members": float(count), **found}


def _step_of(task: TrainRequest | EvaluateRequest, purpose: Any, head: str) -> SumRequest:
    """Return the first step of a sum in which a request is answered."""
    step = SumRequest(task.round, task.index, task.name, purpose, 1, head, "announce", request=task)
    return (
        replace(step, trained=task.trained, rate=task.learning_rate)
        if isinstance(task, TrainRequest)
        else step
    )


def _refused(member: Member, reason: Reason) -> Refused:
    return Refused(member, reason, "withheld" if reason.code == "own-budget-spent" else "failed")


class _Sum:
    """One secure sum over a runtime: who is left in it, who fell out and why, and what each one
    sent."""

    def __init__(self, inner: SumRuntime, plan: SumPlan, first: Sequence[SumRequest]) -> None:
        self._inner, self._plan = inner, plan
        self._left = {step.index: step for step in first}
        self._replies: dict[int, Reply] = {}
        self._sent: dict[int, int] = dict.fromkeys(self._left, 0)
        self.failed: dict[int, Reason] = {}
        self.trained = first[0].trained if first else "b"

    def run(self) -> Opened | None:
        """Make it; None where too few are left, or what was opened is no sum: then everybody fell
        out."""
        try:
            collector, inboxes = self._begun()
            for reply in self._ask("mask", inboxes):
                if self._try(
                    reply.index, partial(collector.receive, reply.index, reply.payload or b"")
                ):
                    # its vector is in the sum, and held nowhere
                    self._replies[reply.index] = replace(reply, payload=None)
            survivors = collector.close()
            for reply in self._ask(
                "unmask", dict.fromkeys(survivors, pack_indices(survivors)), drop=False
            ):
                with suppress(
                    ProtectionError
                ):  # a survivor that gives something else has given nothing
                    collector.answer(reply.index, reply.payload or b"")
            return collector.open()
        except ProtectionError as error:
            self.failed |= dict.fromkeys(self._left, error.as_reason())
            self._left = {}
            return None

    def _begun(self) -> tuple[Collector, Mapping[int, bytes]]:
        """Exchange keys and shares; again without those that fall out, for everybody of a directory
        must have shared."""
        for attempt in range(1, ATTEMPTS + 1):
            self._left = {
                index: replace(step, attempt=attempt) for index, step in self._left.items()
            }
            if not self._left:
                break
            first = next(iter(self._left.values()))
            collector = Collector(self._plan.context(first), self._plan.asked(first))
            announced: dict[int, bytes] = {}
            for reply in self._ask("announce"):
                keys = reply.payload or b""
                if self._try(reply.index, partial(collector.check_keys, reply.index, keys)):
                    announced[reply.index] = keys
            directory = collector.directory(announced)
            shared: dict[int, bytes] = {}
            for reply in self._ask("share", dict.fromkeys(announced, directory)):
                sealed = reply.payload or b""
                if self._try(reply.index, partial(collector.check_shares, reply.index, sealed)):
                    shared[reply.index] = sealed
            if shared.keys() == announced.keys():
                return collector, collector.inboxes(shared)
        least = self._plan.policy.least
        raise refusal(ProtectionError, "secure-sum-few-left", members=len(self._left), fewest=least)

    def _ask(
        self, step: Any, payloads: Mapping[int, bytes] | None = None, drop: bool = True
    ) -> Iterator[Reply]:
        """Ask everybody who is left for a step; the replies that came, once per member. drop:
        whoever gives none falls out."""
        asked = [
            replace(
                one,
                step=step,
                payload=payloads[index] if payloads else b"",
                request=one.request if step == "mask" else None,
            )
            for index, one in self._left.items()
            if payloads is None or index in payloads
        ]
        waiting = {one.index for one in asked}
        for reply in self._inner.exchange(asked):
            if reply.index not in waiting:
                continue
            waiting.discard(reply.index)
            if isinstance(reply, Reply):
                self._sent[reply.index] += len(reply.payload or b"")
                yield reply
            elif drop:
                self._drop(reply.index, failure_reason(reply))
        for index in waiting if drop else ():
            self._drop(index, Reason("no-reply"))

    def _try(self, index: int, done: Callable[[], None]) -> bool:
        """Do something with what a member sent; where it is not as agreed, the member falls out."""
        try:
            done()
        except ProtectionError as error:
            self._drop(index, error.as_reason())
            return False
        return True

    def _drop(self, index: int, reason: Reason) -> None:
        self._left.pop(index, None)
        self.failed[index] = reason

    def row(self, member: Member) -> dict[str, Any]:
        """Return the row of a member for the record: what it was asked for, and what it cost;
        nothing of its update."""
        hidden = dict.fromkeys(("tokens", "examples", "loss_first", "loss_last", "norm"))
        known = {"name": member.name, "rank": member.rank, "steps": member.steps, "weight": 1.0}
        return {**known, **hidden, "bytes_up": self._sent[member.index], **self._cost(member)}

    def cost(self, member: Member) -> dict[str, Any]:
        """Return what a look cost a member, for the record."""
        return {"name": member.name, **self._cost(member)}

    def _cost(self, member: Member) -> dict[str, Any]:
        return reply_cost(self._replies[member.index])
