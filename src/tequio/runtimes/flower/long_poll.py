"""Who has a task to fetch, and who has answered: exchange and gateway, in one process, tell each other, so that nobody asks in vain.

The gateway holds a participant's question for work until its long poll rings; the exchange sleeps until somebody answered.
"""

from __future__ import annotations

import asyncio
import time
from threading import Condition


class LongPoll:
    """One for a coordinator. Nodes are named by their numbers."""

    def __init__(self) -> None:
        self._came = Condition()
        self._sent: dict[int, int] = {}  # node -> tasks sent so far
        self._fetched: dict[int, int] = {}  # node -> of which it has had so many
        self._answers: set[int] = set()
        self._asleep: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Event]] = {}

    def task(self, node: int) -> None:
        """A task was sent to this node."""
        with self._came:
            self._sent[node] = self._sent.get(node, 0) + 1
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

    async def due(self, node: int, seconds: float) -> int:
        """Return when there may be a task for the node, or after `seconds`; how many were sent to it by then."""
        event = asyncio.Event()
        with self._came:
            ready = self._fetched.get(node) != self._sent.get(node, 0)
            if not ready:
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
            return self._sent.get(node, 0)

    def fetched(self, node: int, sent: int, some: bool) -> None:
        """What came of asking the server when `sent` tasks had been sent: one task, or none."""
        with self._came:
            self._fetched[node] = min(sent, self._fetched.get(node, 0) + 1) if some else sent

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
