"""Server SGD (FedOpt, Reddi et al., arXiv 2003.00295): step = η·Δ, or with momentum m ← μm + Δ,
step = η·m; η = 1, μ = 0 is FedAvg.
"""

from dataclasses import dataclass

from tequio.algorithms.factors import padded_sum
from tequio.core.update import Update, zero


@dataclass(frozen=True)
class Sgd:
    """Learning rate η and momentum μ."""

    learning_rate: float = 1.0
    momentum: float = 0.0
    name: str = "sgd"

    def init(self, spec: str) -> Update:
        """m = 0."""
        return zero(spec)

    def apply(self, momentum: Update, change: Update) -> tuple[Update, Update]:
        """(m, step)."""
        if self.momentum == 0.0:
            return momentum, _times(change, self.learning_rate)
        memory = padded_sum(momentum.scaled(self.momentum), change)
        return memory, _times(memory, self.learning_rate)


def _times(update: Update, factor: float) -> Update:
    return update if factor == 1.0 else update.scaled(factor)
