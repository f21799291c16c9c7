"""FOMAML (Finn et al., arXiv 1703.03400), as Per-FedAvg uses it in federations (Fallah et al.,
arXiv 2002.07948).

One step takes the gradient g of a support batch, looks ahead to θ' = θ − α·g, takes the gradient of
a query batch at θ' and applies it at θ: what is trained is not the model but how good it becomes
after a step on somebody's own data. First order: the derivative of θ' by θ is taken as 1. A step
draws two batches and costs twice a plain one. The support gradient is clipped as every gradient of
the loop is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from tequio.algorithms.settings import require


@dataclass(frozen=True)
class FOMAML:
    """Inner rate α of the look ahead, on factors and head."""

    inner_rate: float = 0.1
    name: str = "fomaml"
    batches: int = 2

    def __post_init__(self) -> None:
        require(
            self.inner_rate > 0.0,
            self.name,
            "inner_rate",
            self.inner_rate,
            "inner_rate > 0",
            "local",
        )

    def ahead(self, values: Sequence[Tensor], gradients: Sequence[Tensor]) -> list[Tensor]:
        """θ' = θ − α·g."""
        return [
            value - self.inner_rate * gradient
            for value, gradient in zip(values, gradients, strict=True)
        ]
