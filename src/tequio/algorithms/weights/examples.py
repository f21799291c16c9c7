"""Weights by number of examples, as FedAvg does (McMahan et al., arXiv 1602.05629): wᵢ = nᵢ."""

from collections.abc import Sequence
from dataclasses import dataclass

from tequio.core.protocols import Facts, Sees


@dataclass(frozen=True)
class Examples:
    """wᵢ = nᵢ, cᵢ = wᵢ."""

    name: str = "examples"
    sees: Sees = "only the sum"

    def weight(self, facts: Facts) -> float:
        """nᵢ."""
        return float(facts.examples)

    def coefficient(self, facts: Facts) -> float:
        """nᵢ."""
        return float(facts.examples)

    def scale(self, facts: Sequence[Facts]) -> float:
        """1."""
        return 1.0
