"""The seams: what a runtime, an aggregator, a weighting and a server optimiser must offer. Structural, no base class."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tequio.core.types import EvaluateTask, Failure, Layout, Reply, Task, TrainTask
from tequio.core.update import Update


class Participant(Protocol):
    """One organisation, or the centre (index 0)."""

    @property
    def name(self) -> str:
        """How configuration calls it."""

    def train(self, task: TrainTask) -> Reply:
        """Train on its own data and return the update."""

    def evaluate(self, task: EvaluateTask) -> Reply:
        """Score a shared model on its own validation data."""


class Runtime(Protocol):
    """Carries tasks to participants and their replies back."""

    def exchange(self, tasks: Iterable[Task]) -> Iterator[Reply | Failure]:
        """Yield one Reply or Failure a task, in order of arrival."""


@dataclass(frozen=True)
class Facts:
    """What a weighting may know of one admitted reply: no tensors."""

    examples: int
    steps: int
    norm: float


class Weighting(Protocol):
    """Turns replies into coefficients. The aggregate is scale(all) · Σ cᵢ Δᵢ / Σ wᵢ, so it can be summed as it arrives."""

    @property
    def name(self) -> str:
        """How configuration calls it."""

    def weight(self, facts: Facts) -> float:
        """wᵢ: the share of this reply in the mean."""

    def coefficient(self, facts: Facts) -> float:
        """cᵢ: what multiplies Δᵢ while summing; wᵢ unless the piece rescales updates."""

    def scale(self, facts: Sequence[Facts]) -> float:
        """What multiplies the finished mean."""


class Aggregator(Protocol):
    """Streaming weighted sum of updates: memory does not grow with the number of participants."""

    @property
    def name(self) -> str:
        """How configuration calls it."""

    @property
    def layout(self) -> Layout:
        """What its updates are."""

    def init(self, spec: str) -> Update:
        """The empty accumulator."""

    def add(self, total: Update, update: Update, coefficient: float) -> Update:
        """total + coefficient · update."""

    def result(self, total: Update, divisor: float) -> Update:
        """The aggregate."""


class ServerOptimizer(Protocol):
    """Turns the aggregated change (the pseudo-gradient, in descent direction) into a step."""

    @property
    def name(self) -> str:
        """How configuration calls it."""

    def init(self, spec: str) -> Update:
        """The empty memory."""

    def apply(self, momentum: Update, change: Update) -> tuple[Update, Update]:
        """(new memory, step to add to the shared model)."""
