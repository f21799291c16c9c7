"""Nesterov momentum on the server, as in DiLoCo (Douillard et al., arXiv 2311.08105): m ← μm + Δ,
step = η(Δ + μm); η = .7, μ = .9.

For long runs; with ten rounds the plain step is better.
"""

from dataclasses import dataclass

from tequio.algorithms.factors import padded_sum
from tequio.core.update import Update, zero


@dataclass(frozen=True)
class Nesterov:
    """Learning rate η and momentum μ."""

    learning_rate: float = 0.7
    momentum: float = 0.9
    name: str = "nesterov"

    def init(self, spec: str) -> Update:
        """m = 0."""
        return zero(spec)

    def apply(self, momentum: Update, change: Update) -> tuple[Update, Update]:
        """(m, step)."""
        memory = padded_sum(momentum.scaled(self.momentum), change)
        return memory, padded_sum(change, memory.scaled(self.momentum)).scaled(self.learning_rate)
