"""Mixture: the teacher is the mean of the probabilities, p = Σ wₖ softmax(zₖ / T) / Σ wₖ (Hinton,
Vinyals and Dean, arXiv 1503.02531).

The arithmetic mean, beside FedDF's geometric one: what one model knows, the teacher knows in part,
whatever the others say.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """An arithmetic mean."""

    @property
    def name(self) -> str:
        """How configuration calls it."""
        return "mixture"

    def term(self, logits: Tensor, temperature: float) -> Tensor:
        """softmax(z / T), (rows × classes): what is averaged."""
        return torch.softmax(logits.float() / temperature, 1)

    def teacher(self, mean: Tensor) -> Tensor:
        """Probabilities (rows × classes) of the mean of terms: the mean itself."""
        return mean
