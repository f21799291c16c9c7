"""The same weight for every participant: wᵢ = 1."""

from collections.abc import Sequence
from dataclasses import dataclass

from tequio.core.protocols import Facts, Sees


@dataclass(frozen=True)
class Uniform:
    """wᵢ = cᵢ = 1."""

    name: str = "uniform"
    sees: Sees = "only the sum"

    def weight(self, facts: Facts) -> float:
        """1."""
        return 1.0

    def coefficient(self, facts: Facts) -> float:
        """1."""
        return 1.0

    def scale(self, facts: Sequence[Facts]) -> float:
        """1."""
        return 1.0
