"""FedNova (Wang et al., arXiv 2007.07481): normalise by local steps, so that who makes more steps
does not count more.

Δ = τ_eff · Σ wᵢ Δᵢ/τᵢ / Σ wᵢ with wᵢ = nᵢ and τ_eff = Σ wᵢ τᵢ / Σ wᵢ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tequio.algorithms.weights.examples import Examples
from tequio.core.protocols import Facts


@dataclass(frozen=True)
class FedNova(Examples):
    """wᵢ = nᵢ, cᵢ = nᵢ/τᵢ, scale τ_eff."""

    name: str = "fednova"

    def coefficient(self, facts: Facts) -> float:
        """nᵢ/τᵢ."""
        return facts.examples / facts.steps

    def scale(self, facts: Sequence[Facts]) -> float:
        """τ_eff, the weighted mean of the steps."""
        return sum(f.examples * f.steps for f in facts) / sum(f.examples for f in facts)
