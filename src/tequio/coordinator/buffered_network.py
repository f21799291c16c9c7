"""Buffered rounds with real arrivals: a late participant works on, and counts in the window of its
reply.

The window is that of `buffered.py`; here the arrival of a reply is not known beforehand. A task
that is unanswered when the coordinator ends is sent again after it. A reply that waits for a step
is in the checkpoint.
"""

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from tequio.coordinator.admission import Admitted
from tequio.coordinator.buffered import run_window
from tequio.coordinator.run_spec import Member, RunSpec
from tequio.core.protocols import Runtime
from tequio.core.types import Failure, InFlightUpdate, Reply, Request, State


class Windowed(Protocol):
    """A runtime in which replies may take longer than a window."""

    def working(self) -> Iterable[int]:
        """Return the indices of the participants that have a task and have not answered."""

    def window(self, tasks: Iterable[Request], seconds: float) -> Iterator[Reply | Failure]:
        """Hand out tasks; yield the replies within `seconds` to these or to earlier tasks.

        It ends sooner where no reply is left to come.
        """


@dataclass
class Asked:
    """When a task was sent: its round, the accepted steps since, and the bytes that went down
    with it.
    """

    sent: int
    staleness: int = 0
    down: int = 0


@dataclass
class Windows:
    """Window after window; an instance serves one run, for it remembers who was asked when."""

    net: Windowed
    asked: dict[int, Asked] = field(default_factory=dict)
    round: int = 0  # the window's

    def __call__(
        self, state: State, run_spec: RunSpec, runtime: Runtime, /
    ) -> tuple[State, dict[str, Any]]:
        """Window state.round + 1.

        Raises ShortRound if nothing has arrived and nobody is at work.
        """
        return run_window(state, run_spec, runtime, self)

    def working(self) -> Set[int]:
        """Return the participants that the network waits for."""
        return frozenset(self.net.working())

    def ask(self, idle: Sequence[Member], round_: int, bytes_down: int) -> None:
        """Remember when each was asked."""
        self.round = round_
        self.asked |= {member.index: Asked(round_, down=bytes_down) for member in idle}

    def gather(
        self, tasks: Iterable[Request], idle: Sequence[Member], run_spec: RunSpec, runtime: Runtime
    ) -> tuple[Sequence[Member], Iterable[Reply | Failure]]:
        """Return the participants that answer within the window, and their replies; the centre
        first.

        They may answer these tasks or earlier ones.
        """
        came = {
            reply.index: reply for reply in self.net.window(tasks, run_spec.window_seconds or 0.0)
        }
        known = (*((run_spec.centre,) if run_spec.centre else ()), *run_spec.members)
        members = [member for member in known if member.index in came]
        return members, (self._of(came[member.index]) for member in members)

    def _of(self, reply: Reply | Failure) -> Reply | Failure:
        """A reply to what was asked, as one of this round; another is refused for its round."""
        return (
            replace(reply, round=self.round)
            if reply.round == self.asked[reply.index].sent
            else reply
        )

    def flight(self, admitted: Admitted, round_: int, run_spec: RunSpec) -> InFlightUpdate:
        """Return an update that has arrived: it counts from this window on."""
        index, facts = admitted.member.index, asdict(admitted.facts)
        asked = self.asked[index]
        row = {**admitted.row, "sent": asked.sent, "bytes_down": asked.down}
        return InFlightUpdate(
            index, asked.sent, round_, asked.staleness, admitted.update, facts, row
        )

    def passed(self, run_spec: RunSpec, accepted: bool) -> list[dict[str, Any]]:
        """Return the tasks still at work: the model has moved on, if the round was accepted."""
        working = [
            (m.name, self.asked[m.index]) for m in run_spec.members if m.index in self.working()
        ]
        for _, asked in working:
            asked.staleness += int(accepted)
        return [
            {"name": name, "sent": asked.sent, "due": None, "staleness": asked.staleness}
            for name, asked in working
        ]
