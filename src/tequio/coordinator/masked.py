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
from tequio.core.texts.words import refusal, refuse_first
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
OPENINGS = 3  # times that survivors are asked for the shares that open a sum


class SumRuntime(Protocol):
    """A runtime that carries the steps of secure sums as well."""

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        """Yield one Reply or Failure per task, in order of arrival."""


@dataclass(frozen=True)
class SumOutcome:
    """What a sum came to: None for `opened` where too few were left, or it was no sum; why members
    fell out, bytes that each one sent, and what its work cost it."""

    opened: Opened | None
    failed: Mapping[int, Reason]
    sent: Mapping[int, int]
    costs: Mapping[int, Mapping[str, Any]]

    def row(self, member: Member) -> dict[str, Any]:
        """Return the row of a member for the record: what it was asked for, and what it cost;
        nothing of its update."""
        hidden = dict.fromkeys(("tokens", "examples", "loss_first", "loss_last", "norm"))
        known = {"name": member.name, "rank": member.rank, "steps": member.steps, "weight": 1.0}
        return {**known, **hidden, "bytes_up": self.sent[member.index], **self.costs[member.index]}


class SumRecord(Protocol):
    """What outlives a coordinator that is killed: members take part in one opened sum of a round,
    and each attempt has a number of its own."""

    def number(self, purpose: str, round_: int) -> int:
        """Return the number of the next attempt at a sum."""

    def find(self, purpose: str, round_: int, head: str) -> SumOutcome | None:
        """Return what this sum came to, if it was opened before."""

    def write(self, purpose: str, round_: int, head: str, outcome: SumOutcome) -> None:
        """Record what was opened."""


@dataclass(frozen=True)
class SumRounds:
    """A runtime for masked rounds: what it carries of participants are steps of secure sums; the
    centre is asked as ever. record: None where the members' secrets end with this process."""

    inner: SumRuntime
    plan: SumPlan
    record: SumRecord | None = None

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
        first = [_step_of(task, "train", head) for task in requests if task.index > 0]
        made = self._made(first, run_spec.quorum)
        opened = made.opened
        refused += [
            _refused(member, made.failed[member.index])
            for member in roster
            if member.index in made.failed
        ]
        if opened is None:
            return OpenedSum(zero(run_spec.spec), 0.0, [], refused, centre)
        update = self.plan.places(first[0].trained).update(opened.values, run_spec.spec)
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
        made = self._made(asked)
        opened = made.opened
        lost = {m.name: made.failed[m.index] for m in panel if m.index in made.failed}
        seen = replace(seen, failed={**seen.failed, **lost})
        if opened is None:
            return replace(seen, mean_loss=math.inf)
        costs = [
            {"name": m.name, **made.costs[m.index]} for m in panel if m.index in opened.survivors
        ]
        found = means(opened)
        # a member that fell out says nothing of the model: the others' scores are there
        return replace(
            seen,
            mean_loss=found["loss"],
            costs=costs,
            summed=found,
            refused=seen.refused | lost.keys(),
        )

    def _made(self, first: Sequence[SumRequest], least: int = 0) -> SumOutcome:
        """Make a sum, unless the record has it."""
        if not first:
            return SumOutcome(None, {}, {}, {})
        place = (first[0].purpose, first[0].round)
        known = None if self.record is None else self.record.find(*place, first[0].head)
        if known is not None:
            return known
        number = None if self.record is None else partial(self.record.number, *place)
        outcome = _Sum(self.inner, self.plan, first, number, least).run()
        if self.record is not None and outcome.opened is not None:
            self.record.write(*place, first[0].head, outcome)
        return outcome


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

    def __init__(
        self,
        inner: SumRuntime,
        plan: SumPlan,
        first: Sequence[SumRequest],
        number: Callable[[], int] | None = None,
        least: int = 0,
    ) -> None:
        self._inner, self._plan, self._number, self._least = inner, plan, number, least
        self._left = {step.index: step for step in first}
        self._replies: dict[int, Reply] = {}
        self._sent: dict[int, int] = dict.fromkeys(self._left, 0)
        self._failed: dict[int, Reason] = {}

    def run(self) -> SumOutcome:
        """Make it; where too few are left, or what was opened is no sum, everybody fell out."""
        opened: Opened | None = None
        try:
            collector, inboxes = self._begun()
            for reply in self._ask("mask", inboxes):
                if self._try(
                    reply.index, partial(collector.receive, reply.index, reply.payload or b"")
                ):
                    # its vector is in the sum, and held nowhere
                    self._replies[reply.index] = replace(reply, payload=None)
            survivors = collector.close()
            few = {
                "secure-sum-few-left": len(survivors) < self._least
            }  # no share is given for a sum of no use
            refuse_first(ProtectionError, few, members=len(survivors), fewest=self._least)
            self._unmask(collector, survivors)
            opened = collector.open()
        except ProtectionError as error:
            self._failed |= dict.fromkeys(self._left, error.as_reason())
        costs = {index: reply_cost(reply) for index, reply in self._replies.items()}
        return SumOutcome(opened, self._failed, self._sent, costs)

    def _unmask(self, collector: Collector, survivors: Sequence[int]) -> None:
        """Ask for the shares that open the sum; those again who gave none, while too few did: a
        member that gave its shares takes part in no other sum of this round."""
        waiting = set(survivors)
        for _ in range(OPENINGS):
            asked = dict.fromkeys(sorted(waiting), pack_indices(survivors))
            for reply in self._ask("unmask", asked, drop=False):
                with suppress(
                    ProtectionError
                ):  # a survivor that gives something else has given nothing
                    collector.answer(reply.index, reply.payload or b"")
                    waiting.discard(reply.index)
            if len(survivors) - len(waiting) >= self._plan.policy.threshold:
                return

    def _begun(self) -> tuple[Collector, Mapping[int, bytes]]:
        """Exchange keys and shares; again without those that fall out, for everybody of a directory
        must have shared."""
        for turn in range(1, ATTEMPTS + 1):
            if not self._left:
                break
            attempt = turn if self._number is None else self._number()
            self._left = {
                index: replace(step, attempt=attempt) for index, step in self._left.items()
            }
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
        self._failed[index] = reason
