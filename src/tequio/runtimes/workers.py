"""Work side by side: a few threads of this process, each with one thread of torch, which lets go of
the interpreter while it computes.

What a piece of work gives does not depend on how many workers there are, nor on which of them does
it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Job(Generic[T]):
    """A piece of work, given the number of the worker that does it.

    `result` waits for it, and raises what it raised.
    """

    def __init__(self, work: Callable[[int], T]) -> None:
        self._work: Callable[[int], T] | None = work
        self._done = threading.Event()
        self._value: T | None = None
        self._error: BaseException | None = None

    def run(self, worker: int) -> None:
        """Do the work, once."""
        work, self._work = self._work, None
        if work is None:
            return
        try:
            self._value = work(worker)
        except BaseException as error:  # raised where the result is asked for
            self._error = error
        self._done.set()

    @property
    def ready(self) -> bool:
        """Whether `result` need not wait for another thread."""
        return self._done.is_set()

    def result(self) -> T:
        """What the work gave."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class _Here(Job[T]):
    """Done in the thread that asks for the result, when it asks."""

    @property
    def ready(self) -> bool:
        return True

    def result(self) -> T:
        self.run(0)
        return super().result()


class Workers:
    """`count` workers.

    One of them means that the work is done by the thread that asks for it, in the order in which it
    asks.
    """

    def __init__(self, count: int) -> None:
        self.count = max(1, count)
        self._jobs: SimpleQueue[Job[object] | None] = SimpleQueue()
        self._room = threading.Semaphore(self.count + 1)
        self._threads: list[threading.Thread] = []
        if self.count > 1:
            self._threads = [
                threading.Thread(target=self._labour, args=(k,), daemon=True)
                for k in range(self.count)
            ]
            for thread in self._threads:
                thread.start()

    def _labour(self, worker: int) -> None:
        torch.set_num_threads(1)
        while (job := self._jobs.get()) is not None:
            job.run(worker)
            del job
            self._room.release()

    def submit(self, work: Callable[[int], T]) -> Job[T]:
        """Hand over a piece of work; it is begun in the order of submission."""
        if self.count == 1:
            return _Here(work)
        job = Job(work)
        self._jobs.put(job)  # type: ignore[arg-type]
        return job

    def submit_when_free(self, work: Callable[[int], T]) -> Job[T]:
        """The same, but wait until no more than one other piece of work is waiting."""
        if self.count > 1:
            self._room.acquire()
        return self.submit(work)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Wait for what is being done; what has not begun is dropped.

        Whoever presses Ctrl-C does not wait.
        """
        with suppress(Empty):
            while kind is not None:
                self._jobs.get_nowait()
        for _thread in self._threads:
            self._jobs.put(None)
        if kind is None or issubclass(kind, Exception | GeneratorExit):
            for thread in self._threads:
                thread.join()
