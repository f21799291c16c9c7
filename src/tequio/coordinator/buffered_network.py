"""Buffered rounds with real arrivals: who is late works on while the others go on, and counts in
the window in which its reply comes.

The window is that of `buffered.py`; here nobody says when a reply will come. What is at work when
the coordinator ends is asked again after it; what has arrived and waits for a step is in the
checkpoint.
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
        """Who has a task and has not answered, by index."""

    def window(self, tasks: Iterable[Request], seconds: float) -> Iterator[Reply | Failure]:
        """Hand out tasks; what comes within `seconds`, to these or to earlier ones.

        It ends sooner where nothing is left to come.
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
        """As the network says."""
        return frozenset(self.net.working())

    def ask(self, idle: Sequence[Member], round_: int, bytes_down: int) -> None:
        """Remember when each was asked."""
        self.round = round_
        self.asked |= {member.index: Asked(round_, down=bytes_down) for member in idle}

    def gather(
        self, tasks: Iterable[Request], idle: Sequence[Member], run_spec: RunSpec, runtime: Runtime
    ) -> tuple[Sequence[Member], Iterable[Reply | Failure]]:
        """Whoever answers within the window, to these tasks or to earlier ones; the centre
        first.
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
        """One that has arrived: it counts from this window on."""
        index, facts = admitted.member.index, asdict(admitted.facts)
        asked = self.asked[index]
        row = {**admitted.row, "sent": asked.sent, "bytes_down": asked.down}
        return InFlightUpdate(
            index, asked.sent, round_, asked.staleness, admitted.update, facts, row
        )

    def passed(self, run_spec: RunSpec, accepted: bool) -> list[dict[str, Any]]:
        """Who is still at work: the shared model has moved on, if the round was accepted."""
        rows = []
        for member in run_spec.members:
            if member.index in self.working():
                asked = self.asked[member.index]
                asked.staleness += int(accepted)
                at = {"sent": asked.sent, "due": None, "staleness": asked.staleness}
                rows.append({"name": member.name, **at})
        return rows
