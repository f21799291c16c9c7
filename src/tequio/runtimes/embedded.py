"""The embedded runtime: all participants in one process on one frozen base, one after the other or a few of them side by side."""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from tequio.core.errors import TrainingError, UpdateError
from tequio.core.protocols import Participant
from tequio.core.types import EvaluateTask, Failure, GradientTask, Reply, Task, TrainTask
from tequio.runtimes.workers import Job, Workers

AHEAD = 4  # replies a worker that may wait for a slower one before them


@dataclass(frozen=True)
class Embedded:
    """Participants by index. `watch`, if given, is told each task as it is handed out (for progress bars; it decides nothing).

    others: the same participants, each time on another bench; with them, as many work side by side, one thread each.
    """

    participants: Mapping[int, Participant]
    watch: Callable[[Task], None] | None = None
    others: tuple[Mapping[int, Participant], ...] = ()

    def exchange(self, tasks: Iterable[Task]) -> Iterator[Reply | Failure]:
        """In the order of the tasks, however many work at once. What a participant cannot do comes back as a Failure."""
        places = (self.participants, *self.others)
        with Workers(len(places)) as workers:
            waiting: deque[Job[Reply | Failure]] = deque()
            for task in tasks:
                job = workers.submit_when_free(partial(_answer, places, task))
                if self.watch is not None:
                    self.watch(task)
                waiting.append(job)
                while waiting and (waiting[0].ready or len(waiting) >= AHEAD * workers.count):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        give_back_memory()


def _answer(places: tuple[Mapping[int, Participant], ...], task: Task, worker: int) -> Reply | Failure:
    participant = places[worker][task.index]
    try:
        if isinstance(task, TrainTask):
            return participant.train(task)
        if isinstance(task, GradientTask):
            return participant.gradient(task)
        if isinstance(task, EvaluateTask):
            return participant.evaluate(task)
        raise UpdateError(f"{task.name}: in one process nobody is asked to describe or to personalise itself.")
    except (TrainingError, UpdateError) as error:
        return Failure(task.round, task.index, task.name, type(error).__name__, str(error))


def give_back_memory() -> None:
    """Let the allocator of C return what is free, also between what is in use (glibc; elsewhere nothing happens): 2 ms."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
