"""FedIT (Zhang et al., arXiv 2305.05644): average A and B separately, ranks zero-padded. The common baseline.

Biased: the mean of products is not the product of means, and zero-padding shrinks what high ranks learned. Updates are changes of
shared factors `module:a`, `module:b` (layout factors).
"""

from __future__ import annotations

from dataclasses import dataclass

from tequio.algorithms.factors import padded_sum
from tequio.core.protocols import Sees
from tequio.core.types import Layout, Trained
from tequio.core.update import Update, zero


@dataclass(frozen=True)
class FedIT:
    """Weighted mean of factor changes; what a lower rank does not have counts as 0."""

    name: str = "fedit"
    layout: Layout = "factors"
    streaming: bool = True
    nested: bool = False
    sees: Sees = "only the sum"

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
