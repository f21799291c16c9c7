"""TERM, tilted empirical risk (Li et al., arXiv 2007.01162): wᵢ ∝ exp(t·excessᵢ), a soft maximum
over participants.

Written as exp(t·(excessᵢ − 1)): a participant served as badly as by the base, or whose excess is
not known, has weight 1. The tilt is between participants (the paper's group level). `normalise`
gives every update the median length too, as norm equalisation does, so that low ranks are not
drowned. The number of examples does not count.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tequio.algorithms.settings import require
from tequio.algorithms.weights._excess import need
from tequio.algorithms.weights.norm_equalised import median_norm
from tequio.core.protocols import Facts, Sees


@dataclass(frozen=True)
class Term:
    """wᵢ = exp(t·(excessᵢ − 1)); t = 0 is one participant one vote."""

    t: float = 1.0
    normalise: bool = True
    name: str = "term"
    sees: Sees = "each update"

    def __post_init__(self) -> None:
        require(0.0 <= self.t <= 10.0, self.name, "t", self.t, "0 ≤ t ≤ 10")

    def weight(self, facts: Facts) -> float:
        """exp(t·(excessᵢ − 1)); 1 where the excess is not known."""
        return math.exp(self.t * (need(facts) - 1.0))

    def coefficient(self, facts: Facts) -> float:
        """wᵢ, or wᵢ/‖Δᵢ‖ if lengths are equalised."""
        return self.weight(facts) / facts.norm if self.normalise else self.weight(facts)

    def scale(self, facts: Sequence[Facts]) -> float:
        """1, or the median norm if lengths are equalised."""
        return median_norm(facts) if self.normalise else 1.0
