"""The embedded runtime: all participants in one process on one frozen base, one after the other,
side by side, or in lock-step.
"""

import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tequio.core.errors import ProtectionError, TrainingError, UpdateError
from tequio.core.messages import answer
from tequio.core.protocols import Participant
from tequio.core.texts.words import refusal
from tequio.core.types import Failure, Reply, Request, SumRequest, TrainRequest
from tequio.participant.lockstep import alike, train_together
from tequio.participant.masked import MaskedNode
from tequio.participant.node import Node
from tequio.runtimes.workers import Job, Workers

AHEAD = 4  # replies a worker that may wait for a slower one before them


@dataclass(frozen=True)
class Embedded:
    """Participants by index.

    `watch`, if given, is told each task as it is handed out (for progress bars; it decides
    nothing).

    others: the same participants, each time on another adapted model; with them, as many work side
        by side, one thread each.
    lockstep: as many training tasks that follow one another, and are alike, are made together on
        one adapted model.
    """

    participants: Mapping[int, Participant]
    watch: Callable[[Request], None] | None = None
    others: tuple[Mapping[int, Participant], ...] = ()
    lockstep: int = 1

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        """In the order of the tasks, however many work at once.

        What a participant cannot do comes back as a Failure.
        """
        places = (self.participants, *self.others)
        with Workers(len(places)) as workers:
            waiting: deque[Job[list[Reply | Failure]]] = deque()
            for bundle in self._bundles(tasks):
                job = workers.submit_when_free(partial(_answers, places, bundle))
                if self.watch is not None:
                    for task in bundle:
                        if (
                            shown := task.request if isinstance(task, SumRequest) else task
                        ) is not None:
                            self.watch(shown)
                waiting.append(job)
                while waiting and (waiting[0].ready or len(waiting) >= AHEAD * workers.count):
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        give_back_memory()

    def _bundles(self, tasks: Iterable[Request]) -> Iterator[list[Request]]:
        """Tasks that are made together, in their order: which, does not depend on how many work
        side by side.
        """
        bundle: list[Request] = []
        for task in tasks:
            if bundle and not (len(bundle) < self.lockstep and self._alike(bundle[0], task)):
                yield bundle
                bundle = []
            bundle.append(task)
        if bundle:
            yield bundle

    def _alike(self, first: Request, task: Request) -> bool:
        if not isinstance(first, TrainRequest) or not isinstance(task, TrainRequest):
            return False
        one, other = (self.participants.get(t.index) for t in (first, task))
        return (
            isinstance(one, Node)
            and isinstance(other, Node)
            and alike(one, first, task)
            and alike(other, task, first)
        )


def _answers(
    places: tuple[Mapping[int, Participant], ...], bundle: Sequence[Request], worker: int
) -> list[Reply | Failure]:
    if len(bundle) == 1:
        return [_answer(places, bundle[0], worker)]
    trained = [task for task in bundle if isinstance(task, TrainRequest)]
    nodes = [node for task in trained if isinstance(node := places[worker][task.index], Node)]
    try:
        answers = train_together(nodes, trained)
    except (TrainingError, UpdateError):  # one of them cannot begin, so each on its own
        return [_answer(places, task, worker) for task in bundle]
    return [
        Failure.of(t, a) if isinstance(a, TrainingError) else a
        for t, a in zip(trained, answers, strict=True)
    ]


def _answer(
    places: tuple[Mapping[int, Participant], ...], task: Request, worker: int
) -> Reply | Failure:
    participant = places[worker][task.index]
    try:
        if not isinstance(task, SumRequest):
            return answer(participant, task)
        if isinstance(participant, MaskedNode):
            return participant.add_up(task)
        raise refusal(ProtectionError, "no-secure-sum", name=task.name)
    except (TrainingError, UpdateError, ProtectionError) as error:
        return Failure.of(task, error)


def give_back_memory() -> None:
    """Let the allocator of C return what is free, also between what is in use (glibc; elsewhere
    nothing happens): 2 ms.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
