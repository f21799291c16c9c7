"""Who has a task to fetch, and who has answered: exchange and gateway, in one process, tell each
other, so that nobody asks in vain.

The gateway holds a participant's question for work until its long poll rings; the exchange sleeps
until somebody answered.

A participant does one thing after another: it asks for work only when it has sent the answer to its
last task. So a question that finds nothing, after the one that took a task, says that its
participant holds no task: the task or its answer was lost on the way.
"""

import asyncio
import time
from dataclasses import dataclass
from threading import Condition

UNKNOWN = -1  # no number of tasks sent: the next question is not held


@dataclass(frozen=True)
class Question:
    """A participant's question for work: its number among those of its node, and how many tasks had
    been sent to the node by then.
    """

    node: int
    number: int
    sent: int


class LongPoll:
    """One for a coordinator. Nodes are named by their numbers."""

    def __init__(self) -> None:
        self._came = Condition()
        self._sent: dict[int, int] = {}  # node -> tasks sent so far
        self._fetched: dict[int, int] = {}  # node -> of which it has had so many
        self._empty: set[int] = (
            set()
        )  # nodes for which the server had no task once, so that those sent since are all
        self._answers: set[int] = set()
        self._questions: dict[int, int] = {}  # node -> questions so far
        self._took: dict[int, int] = {}  # node -> the last question that took a task
        self._idle: dict[
            int, int
        ] = {}  # node -> the last question that found none, since a task was last sent
        self._recorded: dict[
            int, str
        ] = {}  # node -> digest of its personal model, which the coordinator recorded
        self._served: dict[int, str] = {}  # node -> the digest that an answer to it named
        self._heard: dict[
            int, str
        ] = {}  # node -> the digest that it has read, as far as can be known
        self._asleep: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Event]] = {}

    def task(self, node: int) -> None:
        """A task was sent to this node."""
        with self._came:
            self._sent[node] = self._sent.get(node, 0) + 1
            self._idle.pop(node, None)
            waiting = self._asleep.get(node)
        if waiting is not None:
            loop, event = waiting
            loop.call_soon_threadsafe(event.set)

    def everybody(self) -> None:
        """Wake all questions that are held."""
        with self._came:
            held = list(self._asleep.values())
        for loop, event in held:
            loop.call_soon_threadsafe(event.set)

    async def due(self, node: int, seconds: float) -> Question:
        """Return the node's question when there may be a task for it, or after `seconds`."""
        event = asyncio.Event()
        with self._came:
            number = self._questions[node] = self._questions.get(node, 0) + 1
            ready = self._fetched.get(node) != self._sent.get(node, 0)
            if not ready:
                self._found_none(node, number)
                self._asleep[node] = (asyncio.get_running_loop(), event)
        if not ready:
            try:
                await asyncio.wait_for(event.wait(), seconds)
            except TimeoutError:
                pass
            finally:
                with self._came:
                    if self._asleep.get(node, (None, None))[1] is event:
                        del self._asleep[node]
        with self._came:
            return Question(node, number, self._sent.get(node, 0))

    def fetched(self, question: Question, some: bool) -> None:
        """Note whether the server had a task for this question, or none."""
        node, sent = question.node, question.sent
        with self._came:
            if not some:
                self._empty.add(node)
            known = (
                node in self._empty
            )  # else the server may have tasks that an earlier coordinator sent
            taken = min(sent, self._fetched.get(node, 0) + 1) if known else UNKNOWN
            self._fetched[node] = taken if some else sent
            if some:
                self._took[node] = max(question.number, self._took.get(node, 0))
            elif sent == self._sent.get(node, 0):  # else a task was sent meanwhile
                self._found_none(node, question.number)

    def holds_nothing(self, node: int) -> bool:
        """Return whether a node that was sent a task asks for work all the same: the task, or its
        answer, was lost.
        """
        with self._came:
            return self._idle.get(node, 0) > self._took.get(node, 0)

    def confirm(self, node: int, digest: str) -> None:
        """Note that the coordinator recorded the node's personal model, and have the node hear
        of it.
        """
        with self._came:
            self._recorded[node] = digest
            waiting = self._asleep.get(node)
        if waiting is not None:
            loop, event = waiting
            loop.call_soon_threadsafe(event.set)

    def serve(self, node: int, last: bool = False) -> str:
        """Return the digest of the node's personal model that the coordinator recorded, for an
        answer to this node; nothing if none.

        last: the node asks for nothing after this answer, so it counts as heard at once.
        """
        with self._came:
            digest = self._recorded.get(node, "")
            if digest:
                (self._heard if last else self._served)[node] = digest
            return digest

    def acknowledge(self, node: int) -> None:
        """Note that the node asks again, or goes: it has read the answer before, for it does one
        thing after another.
        """
        with self._came:
            if node in self._served:
                self._heard[node] = self._served[node]

    def heard(self, node: int, digest: str) -> bool:
        """Return whether the node has heard that its personal model, with this digest, was
        recorded.
        """
        with self._came:
            return self._heard.get(node) == digest

    def answered(self, node: int) -> None:
        """An answer of this node is there."""
        with self._came:
            self._answers.add(node)
            self._came.notify_all()

    def answers(self, seconds: float) -> set[int]:
        """Who answered since this was last asked; waits for the first one, at most so long."""
        end = time.monotonic() + seconds
        with self._came:
            while not self._answers and (left := end - time.monotonic()) > 0:
                self._came.wait(left)
            found, self._answers = self._answers, set()
            return found

    def _found_none(self, node: int, number: int) -> None:
        self._idle[node] = max(number, self._idle.get(node, 0))
