"""Norm equalisation: every update enters with the same length, the cohort's median, so weak
machines are not drowned.

At equal weights ‖Δᵢ‖ grows with rank and steps (twofold and more from rank 2 to 16), and the low
ranks are outvoted. Δ = median(‖Δ‖) · Σ wᵢ Δᵢ/‖Δᵢ‖ / Σ wᵢ with wᵢ = nᵢ^power; power 0 is one
participant one vote, 1 is by examples. Equal steps are implied: the norm takes τᵢ out as FedNova
does, exactly so for a straight path.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tequio.core.protocols import Facts, Sees


@dataclass(frozen=True)
class NormEqualised:
    """wᵢ = nᵢ^power, cᵢ = wᵢ/‖Δᵢ‖, scale median ‖Δ‖."""

    power: float = 0.5
    name: str = "norm_equalised"
    sees: Sees = "norms"

    def weight(self, facts: Facts) -> float:
        """nᵢ^power."""
        return float(facts.examples**self.power)

    def coefficient(self, facts: Facts) -> float:
        """nᵢ^power / ‖Δᵢ‖."""
        return self.weight(facts) / facts.norm

    def scale(self, facts: Sequence[Facts]) -> float:
        """The median norm."""
        return median_norm(facts)


def median_norm(facts: Sequence[Facts]) -> float:
    """The length that equalised updates get."""
    return statistics.median(f.norm for f in facts)
