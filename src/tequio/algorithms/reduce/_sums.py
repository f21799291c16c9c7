"""What reduces share that only add updates up: a sum of factor changes, coordinate by coordinate,
over the sum of weights.
"""

from tequio.algorithms.factors import padded_sum
from tequio.core.types import Trained
from tequio.core.update import Update, zero


class Summed:
    """Both factors are trained; what a lower rank does not have counts as 0."""

    def trained(self, round_: int) -> Trained:
        """Both, always."""
        return "both"

    def init(self, spec: str) -> Update:
        """Nothing yet."""
        return zero(spec)

    def add(self, total: Update, update: Update, coefficient: float) -> Update:
        """total + coefficient · update, coordinate by coordinate."""
        return padded_sum(total, update.scaled(coefficient))

    def result(self, total: Update, divisor: float) -> Update:
        """The sum over the sum of weights."""
        return total.scaled(1.0 / divisor)
