"""One-way gradient transfer (Augenstein et al., arXiv 2205.13655): the centre's gradient G of its
public loss, taken once a round at
the shared model, is added to every local step's gradient.

As a term it is w·⟨G, ΔW⟩, whose gradient is G projected on the factors: gB = w·s·G·Aᵀ and gA =
w·s·Bᵀ·G.
"""

from dataclasses import dataclass

from torch import Tensor

from tequio.algorithms.local._products import inner
from tequio.algorithms.settings import require
from tequio.core.errors import TrainingError
from tequio.core.protocols import Need, Step
from tequio.core.texts.words import refusal


@dataclass(frozen=True)
class Transfer:
    """Weight w of the centre's gradient; that of the own loss is 1.

    The centre itself has no use for it.
    """

    strength: float
    name: str = "transfer"
    needs: frozenset[Need] = frozenset({"gradient"})
    for_centre: bool = False

    def __post_init__(self) -> None:
        require(self.strength >= 0.0, "terms", self.name, self.strength, "transfer ≥ 0", "local")

    def added(self, step: Step) -> Tensor:
        """w·⟨G, ΔW⟩: linear in the model, so its gradient is the same at every step."""
        if step.gradient is None:
            raise refusal(TrainingError, "term-without-centre", term=self.name)
        return self.strength * inner(step.gradient, step.now)
