"""The coordinator's runtime over a network: tasks out as messages, replies in one by one as they arrive, until all came or time is up.

Errors are data: who is away, late or answers nonsense is a Failure of this exchange, and the round goes on without it. Nothing is lost
silently: a reply after the deadline is looked for until it expires, and told as late. Whose connection is lost has a while to come back;
who connects anew is sent its task again: a process that had done it answers from memory, a new one does it anew, with the same result.
The centre (index 0) trains in the coordinator's own process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import httpx
from flwr.app.message import Message
from flwr.common.constant import ErrorCode
from flwr.superlink.grid import HttpGrid

from tequio.core.errors import NetworkError, UpdateError
from tequio.core.types import Failure, Reply, Task
from tequio.core.wire import LIMIT, REPLIES, pack_message, unpack_message
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.envelope import opened, sealed

POLL = 0.05  # seconds between two looks for replies, and a fifth of it more for each that is waited for
LOOK = 2.0  # seconds between two looks at who is connected, while replies are waited for
BACK = 30.0  # seconds in which who was lost may come back, before the others go on without it
GRACE = 60.0  # seconds that a task lives beyond twice the deadline

Result = TypeVar("Result")


@dataclass(frozen=True)
class Sent:
    """A task on its way: the message's id, when it was sent (seconds, monotonic), and the participant's connection then.

    lost: when its connection was lost (seconds, monotonic); None while it is there.
    """

    message: str
    task: Task
    at: float
    connection: str
    lost: float | None = None

    def away(self, now: float) -> float:
        """Seconds since the connection was lost; 0 while it is there."""
        return 0.0 if self.lost is None else now - self.lost


@dataclass(frozen=True)
class Came:
    """What came of a task; lost: only that its participant is not connected any more."""

    what: Reply | Failure
    lost: bool


@dataclass
class Networked:
    """Participants elsewhere: node number by index. `here` are those in this process; `deadline` in seconds for one exchange.

    A task that is not answered in time is `pending`: its participant is asked nothing until it answers or twice the deadline is over.
    With windows a task is `flying` until it is answered, or the deadline is over.
    """

    grid: HttpGrid
    nodes: Mapping[int, int]
    here: Embedded
    deadline: float
    limit: int = LIMIT
    back: float = BACK
    pending: dict[int, Sent] = field(default_factory=dict)
    flying: dict[int, Sent] = field(default_factory=dict)
    traffic: dict[str, dict[str, int]] = field(default_factory=dict)
    late: list[dict[str, Any]] = field(default_factory=list)

    def connections(self) -> dict[int, str]:
        """Of every participant that is connected now, by index: since when (as the server writes it)."""
        online = {node.node_id: str(node.last_activated_at) for node in _asked(self.grid.get_nodes)}
        return {index: online[node] for index, node in self.nodes.items() if node in online}

    def exchange(self, tasks: Iterable[Task], within: float | None = None) -> Iterator[Reply | Failure]:
        """One Reply or Failure a task, in order of arrival; first those of this process, while the others work.

        within: seconds, where it is less than the deadline.
        """
        limit = min(self.deadline, within or self.deadline)
        end, waiting = time.monotonic() + limit, dict[int, Sent]()
        yield from self._hand_out(tasks, waiting)
        yield from self.arrivals(waiting, end)
        self.pending |= {index: sent for index, sent in waiting.items() if sent.lost is None}
        yield from (_failure(sent.task, f"no reply within {limit:g} s") for sent in waiting.values())

    def window(self, tasks: Iterable[Task], seconds: float) -> Iterator[Reply | Failure]:
        """Hand out tasks; what comes within `seconds`, to these or to earlier ones. It ends sooner where nothing is left to come."""
        end = time.monotonic() + seconds
        yield from self._hand_out(tasks, self.flying)
        yield from self.arrivals(self.flying, end)
        for index, sent in list(self.flying.items()):
            if time.monotonic() - sent.at > self.deadline:
                self.pending[index] = self.flying.pop(index)
                yield _failure(sent.task, f"no reply within {self.deadline:g} s")

    def working(self) -> set[int]:
        """Who has a task of a window and has not answered."""
        return set(self.flying)

    def _hand_out(self, tasks: Iterable[Task], waiting: dict[int, Sent]) -> Iterator[Reply | Failure]:
        """Send each task and note it in `waiting`; yield who cannot be asked, and the replies of this process."""
        self.settle()
        local: list[Task] = []
        away: list[Failure] = []
        connected, busy = self.connections(), {**self.pending, **self.flying}
        for task in tasks:
            if task.index in self.here.participants:
                local.append(task)
            elif task.index in busy:
                away.append(_failure(task, f"it is still at work on round {busy[task.index].task.round}"))
            elif task.index not in connected:
                away.append(_failure(task, "it is not connected"))
            else:
                waiting[task.index] = self.send(task, connected[task.index])
        yield from away
        yield from self.here.exchange(local)

    def arrivals(self, waiting: dict[int, Sent], end: float) -> Iterator[Reply | Failure]:
        """What comes until `end` (seconds, monotonic); who answered is taken out of `waiting`."""
        looked = time.monotonic()
        while waiting:
            before = len(waiting)
            for index, sent in list(waiting.items()):  # one by one: only one reply is held at a time
                found = self._pull(sent) if sent.lost is None else None
                if found is not None and found.lost:
                    waiting[index] = replace(sent, lost=time.monotonic())
                elif found is not None:
                    del waiting[index]
                    yield found.what
            for index in [i for i, sent in waiting.items() if sent.away(time.monotonic()) > self.back]:
                yield _failure(waiting.pop(index).task, "the connection to it was lost")
            if not waiting or time.monotonic() >= end:
                return
            if time.monotonic() - looked > LOOK:
                self._again(waiting)
                looked = time.monotonic()
            if len(waiting) == before:
                time.sleep(POLL * (1 + before / 5))

    def settle(self) -> None:
        """Look for replies to tasks of exchanges that are over: they are told as late, and their participants are free again."""
        connected = self.connections() if self.pending else {}
        for index, sent in list(self.pending.items()):
            found = self._pull(sent)
            if found is None and connected.get(index, sent.connection) == sent.connection:
                continue  # still at work, as far as anybody knows
            del self.pending[index]
            after = time.monotonic() - sent.at
            row = {"name": sent.task.name, "sent": sent.task.round, "task": type(sent.task).__name__}
            reason = "it was connected anew and asked again" if found is None else "the round was over"
            if found is not None and isinstance(found.what, Failure):
                reason = f"{found.what.error}: {found.what.message}"
            self.late.append(row | {"late_seconds": max(0.0, after - self.deadline), "reason": reason})

    def carried(self) -> dict[str, Any]:
        """Bytes of messages that went to and from each participant, and late replies; both since this was last asked."""
        self.settle()
        body = {"wire": self.traffic} | ({"late": self.late} if self.late else {})
        self.traffic, self.late = {}, []
        return body

    def send(self, task: Task, connection: str) -> Sent:
        """Hand a task to the server."""
        run = self.grid.run.run_id
        data = pack_message(task)
        life = 2.0 * self.deadline + GRACE
        message = sealed(data, run, self.grid.node.node_id, self.nodes[task.index], str(task.round), life)
        (identity,) = _asked(lambda: self.grid.push_messages([message]))
        self._count(task.name, "down", len(data))
        return Sent(str(identity), task, time.monotonic(), connection)

    def _again(self, waiting: dict[int, Sent]) -> None:
        """Send a task again to who connected anew since: a message is delivered once, and its reader may have been killed."""
        connected = self.connections()
        for index, sent in waiting.items():
            if index in connected and (sent.lost is not None or connected[index] != sent.connection):
                waiting[index] = replace(self.send(sent.task, connected[index]), at=sent.at)

    def _pull(self, sent: Sent) -> Came | None:
        for message in _asked(lambda: self.grid.pull_messages([sent.message])):
            lost = message.has_error() and message.error.code == ErrorCode.NODE_UNAVAILABLE
            return Came(self.read(message, sent.task), lost)
        return None

    def read(self, message: Message, task: Task) -> Reply | Failure:
        """The reply in a message, of the participant that was asked and for the round that was asked."""
        if message.has_error():
            return _failure(task, "the connection to it was lost")
        try:
            data = opened(message, self.limit)
            self._count(task.name, "up", len(data))
            found = unpack_message(data, f"the reply of {task.name}", REPLIES, self.limit)
        except UpdateError as error:
            return _failure(task, str(error))
        if not isinstance(found, Reply | Failure):
            return _failure(task, "it sent no reply")
        if (found.round, found.index, found.name) != (task.round, task.index, task.name):
            return _failure(task, "its reply is of another round or participant")
        return found

    def _count(self, name: str, way: str, size: int) -> None:
        row = self.traffic.setdefault(name, {"down": 0, "up": 0})
        row[way] += size


def _asked(question: Callable[[], Result]) -> Result:
    """An answer of the server. Raises NetworkError where it gives none."""
    try:
        return question()
    except httpx.HTTPError as error:
        why = f"{type(error).__name__}; superlink/superlink.log in the coordinator's folder says more."
        raise NetworkError(
            "SuperLink does not answer.", why, "Start again: nothing that was finished is lost."
        ) from None


def _failure(task: Task, why: str) -> Failure:
    return Failure(task.round, task.index, task.name, "NetworkError", why)
