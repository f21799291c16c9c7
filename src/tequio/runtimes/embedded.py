"""The embedded runtime: all participants in one process take turns on one frozen base, adapters swapped in place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from tequio.core.errors import TrainingError, UpdateError
from tequio.core.protocols import Participant
from tequio.core.types import Failure, GradientTask, Reply, Task, TrainTask


@dataclass(frozen=True)
class Embedded:
    """Participants by index. `watch`, if given, is told each task just before it runs (for progress bars; it decides nothing)."""

    participants: Mapping[int, Participant]
    watch: Callable[[Task], None] | None = None

    def exchange(self, tasks: Iterable[Task]) -> Iterator[Reply | Failure]:
        """One after the other, in the order of the tasks. What a participant cannot do comes back as a Failure."""
        for task in tasks:
            if self.watch is not None:
                self.watch(task)
            participant = self.participants[task.index]
            try:
                if isinstance(task, TrainTask):
                    yield participant.train(task)
                elif isinstance(task, GradientTask):
                    yield participant.gradient(task)
                else:
                    yield participant.evaluate(task)
            except (TrainingError, UpdateError) as error:
                yield Failure(task.round, task.index, task.name, type(error).__name__, str(error))
