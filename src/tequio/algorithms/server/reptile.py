"""Reptile (Nichol et al., arXiv 1803.02999): θ ← θ + ε·mean(θᵢ − θ), many local steps towards each
task and a part of the way there.

It is FedAvg with an outer rate ε < 1, that is `sgd` with `learning_rate` = ε: here by its own name,
with the rate that it is known for.
"""

from dataclasses import dataclass

from tequio.algorithms.settings import require
from tequio.core.update import Update, zero


@dataclass(frozen=True)
class Reptile:
    """Outer rate ε."""

    learning_rate: float = 0.5
    name: str = "reptile"

    def __post_init__(self) -> None:
        require(
            0.0 < self.learning_rate <= 1.0,
            self.name,
            "learning_rate",
            self.learning_rate,
            "0 < learning_rate ≤ 1",
        )

    def init(self, spec: str) -> Update:
        """No memory."""
        return zero(spec)

    def apply(self, momentum: Update, change: Update) -> tuple[Update, Update]:
        """ε·Δ."""
        return momentum, change.scaled(self.learning_rate)
