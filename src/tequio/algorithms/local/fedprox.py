"""FedProx (Li et al., arXiv 1812.06127): + μ/2·‖θ − θ_start‖², so that local steps do not drift far
from the shared model.

θ is here the model, not its factors: the pull is on the product, μ/2·‖s(BA − B₀A₀)‖²_F, and on the
head. What FedProx bounds is the distance of two models; a distance of factors would depend on how a
product happens to be split, and would hold fresh random A, which mean nothing while B = 0, to where
they were drawn. With fresh factors B₀A₀ = 0 and the pull is on the round's change itself.
"""

from dataclasses import dataclass

from torch import Tensor

from tequio.algorithms.local._products import inner, moved
from tequio.algorithms.settings import require
from tequio.core.protocols import Need, Step


@dataclass(frozen=True)
class FedProx:
    """Strength μ, usually 0.01 to 0.1."""

    strength: float
    name: str = "fedprox"
    needs: frozenset[Need] = frozenset()
    for_centre: bool = True

    def __post_init__(self) -> None:
        require(self.strength >= 0.0, "terms", self.name, self.strength, "fedprox ≥ 0", "local")

    def added(self, step: Step) -> Tensor:
        """μ/2·‖ΔW − ΔW_start‖²."""
        change = moved(step.now, step.start)
        return 0.5 * self.strength * inner(change, change)
