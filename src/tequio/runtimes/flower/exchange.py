"""The coordinator's runtime over a network: tasks out as messages, replies in one by one as they arrive, until all came or time is up.

Errors are data: who is away, late or answers nonsense is a Failure of this exchange, and the round goes on without it.
The centre (index 0) trains in the coordinator's own process.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from flwr.app.message import Message
from flwr.superlink.grid import HttpGrid

from tequio.core.errors import UpdateError
from tequio.core.types import Failure, Reply, Task
from tequio.core.wire import LIMIT, REPLIES, pack_message, unpack_message
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.envelope import opened, sealed

POLL = 0.05  # seconds between two looks for replies, and a fifth of it more for each that is waited for


@dataclass(frozen=True)
class Networked:
    """Participants elsewhere: node number by index. `here` are those in this process; `deadline` in seconds for one exchange."""

    grid: HttpGrid
    nodes: Mapping[int, int]
    here: Embedded
    deadline: float
    limit: int = LIMIT

    def exchange(self, tasks: Iterable[Task]) -> Iterator[Reply | Failure]:
        """One Reply or Failure a task, in order of arrival; first those of this process, while the others work."""
        waiting: dict[str, Task] = {}
        local: list[Task] = []
        away: list[Failure] = []
        online = set(self.grid.get_node_ids())
        end = time.monotonic() + self.deadline
        for task in tasks:
            if task.index in self.here.participants:
                local.append(task)
            elif self.nodes.get(task.index) not in online:
                away.append(_failure(task, "it is not connected"))
            else:
                waiting[self._send(task)] = task
        yield from away
        yield from self.here.exchange(local)
        while waiting and time.monotonic() < end:
            before = len(waiting)
            for one in list(waiting):  # one by one: only one reply is held at a time
                for message in self.grid.pull_messages([one]):
                    yield self._read(message, waiting.pop(one))
            if len(waiting) == before:
                time.sleep(POLL * (1 + before / 5))
        yield from (_failure(task, f"no reply within {self.deadline:g} s") for task in waiting.values())

    def _send(self, task: Task) -> str:
        run = self.grid.run.run_id
        life = self.deadline + 60.0
        message = sealed(pack_message(task), run, self.grid.node.node_id, self.nodes[task.index], str(task.round), life)
        (identity,) = self.grid.push_messages([message])
        return str(identity)

    def _read(self, message: Message, task: Task) -> Reply | Failure:
        """The reply in a message, of the participant that was asked and for the round that was asked."""
        if message.has_error():
            return _failure(task, "the connection to it was lost")
        try:
            found = unpack_message(opened(message, self.limit), f"the reply of {task.name}", REPLIES, self.limit)
        except UpdateError as error:
            return _failure(task, str(error))
        if not isinstance(found, Reply | Failure) or (found.round, found.index) != (task.round, task.index):
            return _failure(task, "its reply is of another round or participant")
        return found


def _failure(task: Task, why: str) -> Failure:
    return Failure(task.round, task.index, task.name, "NetworkError", why)
