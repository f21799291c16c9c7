"""q-FFL (Li et al., arXiv 1905.10497): whom the shared model serves badly counts more, wᵢ =
excessᵢ^q.

The paper's F is the loss; here it is the loss relative to the base's, so that a hard task is not
taken for a badly served participant. `normalise` gives every update the median length too, as norm
equalisation does, so that low ranks are not drowned. Only the weights of q-FFL: its step size from
a Lipschitz estimate is not used. The number of examples does not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tequio.algorithms.settings import require
from tequio.algorithms.weights._excess import need
from tequio.algorithms.weights.norm_equalised import median_norm
from tequio.core.protocols import Facts, Sees


@dataclass(frozen=True)
class QFFL:
    """wᵢ = excessᵢ^q; q = 0 is one participant one vote."""

    q: float = 1.0
    normalise: bool = True
    name: str = "q_ffl"
    sees: Sees = "each update"

    def __post_init__(self) -> None:
        require(0.0 <= self.q <= 10.0, self.name, "q", self.q, "0 ≤ q ≤ 10")

    def weight(self, facts: Facts) -> float:
        """excessᵢ^q; 1 where the excess is not known."""
        return float(need(facts) ** self.q)

    def coefficient(self, facts: Facts) -> float:
        """wᵢ, or wᵢ/‖Δᵢ‖ if lengths are equalised."""
        return self.weight(facts) / facts.norm if self.normalise else self.weight(facts)

    def scale(self, facts: Sequence[Facts]) -> float:
        """1, or the median norm if lengths are equalised."""
        return median_norm(facts) if self.normalise else 1.0
