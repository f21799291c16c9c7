"""FedDF: the teacher is the softmax of the mean logits, p = softmax(Σ wₖ zₖ / (T Σ wₖ)) (Lin et
al., arXiv 2006.07242, equation AVGLOGITS).

Logits count as log-probabilities, so that no model's constant matters: p is the normalised
geometric mean of the models' predictions. What one model is sure is wrong, the teacher holds to be
wrong.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class FedDF:
    """A geometric mean."""

    @property
    def name(self) -> str:
        """How configuration calls it."""
        return "feddf"

    def term(self, logits: Tensor, temperature: float) -> Tensor:
        """log softmax(z / T), (rows × classes): what is averaged."""
        return torch.log_softmax(logits.float() / temperature, 1)

    def teacher(self, mean: Tensor) -> Tensor:
        """Probabilities (rows × classes) of the mean of terms."""
        return torch.softmax(mean, 1)
