"""Buffered rounds with real arrivals: who is late works on while the others go on, and counts in the window in which its reply comes.

The algebra is that of `buffered.py`; here nobody says when a reply will come. What is at work when the coordinator ends is asked anew after
it; what has arrived and waits for a step is in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from tequio.coordinator.admission import Refused
from tequio.coordinator.aggregation import count_update
from tequio.coordinator.buffered import close
from tequio.coordinator.centre_gradient import central_gradient
from tequio.coordinator.round import ShortRound, in_order, shared_model, task_bytes, training_tasks
from tequio.coordinator.run_spec import RunSpec
from tequio.coordinator.screening import screened
from tequio.core.protocols import Runtime
from tequio.core.types import Failure, InFlightUpdate, Reply, Request, State


class Windowed(Protocol):
    """A runtime in which replies may take longer than a window."""

    def working(self) -> Iterable[int]:
        """Who has a task and has not answered, by index."""

    def window(self, tasks: Iterable[Request], seconds: float) -> Iterator[Reply | Failure]:
        """Hand out tasks; what comes within `seconds`, to these or to earlier ones. It ends sooner where nothing is left to come."""


@dataclass
class Asked:
    """When a task was sent: its round, the accepted steps since, and the bytes that went down with it."""

    sent: int
    staleness: int
    down: int


@dataclass
class Windows:
    """Window after window; an instance serves one run, for it remembers who was asked when."""

    net: Windowed
    asked: dict[int, Asked] = field(default_factory=dict)

    def __call__(self, state: State, run_spec: RunSpec, runtime: Runtime, /) -> tuple[State, dict[str, Any]]:
        """Window state.round + 1. Raises ShortRound if nothing has arrived and nobody is at work."""
        round_ = state.round + 1
        busy = {*self.net.working(), *(flight.index for flight in state.flights)}
        idle = [member for member in run_spec.roster(round_) if member.index not in busy]
        gradient = central_gradient(round_, shared_model(state.shared, run_spec), run_spec, runtime) if idle else None
        down = task_bytes(state, run_spec, gradient)
        self.asked |= {member.index: Asked(round_, 0, down) for member in idle}
        tasks = training_tasks(state, run_spec, idle, gradient)
        came = {reply.index: reply for reply in self.net.window(tasks, run_spec.window_seconds or 0.0)}
        known = (*((run_spec.centre,) if run_spec.centre else ()), *run_spec.members)
        members = [member for member in known if member.index in came]
        flights, refused, alarms = list(state.flights), [], []
        arrivals = in_order((self._of(came[member.index], round_) for member in members), state, run_spec, members)
        for admitted in screened(arrivals, state, run_spec, runtime):
            outcome = count_update(admitted, run_spec)
            alarms += [asdict(alarm) for alarm in outcome.alarms]
            if isinstance(outcome, Refused):
                refused.append(outcome)
                continue
            asked = self.asked[outcome.index]
            row = {**outcome.row, "sent": asked.sent, "bytes_down": asked.down}
            facts = asdict(outcome.facts)
            flights.append(
                InFlightUpdate(outcome.index, asked.sent, round_, asked.staleness, outcome.update, facts, row)
            )
        working = sorted(index for index in self.net.working() if index > 0)
        if not working and not any(flight.index > 0 for flight in flights):
            raise ShortRound(round_, 0, run_spec.buffer, refused)
        after, body = close(state, run_spec, runtime, flights, refused, alarms)
        names = {member.index: member.name for member in run_spec.members}
        for index in working:
            self.asked[index].staleness += int(body["accepted"])
            at = {"sent": self.asked[index].sent, "due": None, "staleness": self.asked[index].staleness}
            body["in_flight"].append({"name": names[index], **at})
        return after, body

    def _of(self, reply: Reply | Failure, round_: int) -> Reply | Failure:
        """A reply to what was asked, as one of this round; another is refused for its round."""
        return replace(reply, round=round_) if reply.round == self.asked[reply.index].sent else reply
