"""KL to the base on public text: + β·KL(p_base ‖ p_θ), so that the model keeps what it knew
(learning without forgetting, Li and
Hoiem, arXiv 1606.09282).

The base is the model with adapters and shared update switched off. Its direction counts what the
base says and the model no longer does.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from tequio.algorithms.settings import require
from tequio.core.errors import TrainingError
from tequio.core.protocols import Need, Step
from tequio.core.texts.words import refusal


@dataclass(frozen=True)
class KL:
    """Strength β, usually 0.05 to 0.5."""

    strength: float
    name: str = "kl"
    needs: frozenset[Need] = frozenset({"public", "base"})
    for_centre: bool = True

    def __post_init__(self) -> None:
        require(self.strength >= 0.0, "terms", self.name, self.strength, "kl ≥ 0", "local")

    def added(self, step: Step) -> Tensor:
        """β times the mean over rows of Σ p_base (log p_base − log p_θ), nats."""
        if step.public is None or step.base is None:
            raise refusal(TrainingError, "term-without-text", term=self.name)
        now, base = F.log_softmax(step.public.float(), -1), F.log_softmax(step.base.float(), -1)
        return self.strength * F.kl_div(now, base, reduction="batchmean", log_target=True)
