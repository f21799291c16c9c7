"""FedYogi (Reddi et al., arXiv 2003.00295):

FedAdam, but v ← v − (1−β₂)·Δ²·sign(v − Δ²): v forgets a large change more slowly.

For many rounds and layout factors; `moments.py` says what it costs with layout product.
"""

from dataclasses import dataclass

from torch import Tensor

from tequio.algorithms.server.adam import Adam


@dataclass(frozen=True)
class Yogi(Adam):
    """FedAdam's settings, another second moment."""

    name: str = "yogi"

    def second(self, v: Tensor, square: Tensor) -> Tensor:
        """The second moment after a change whose square is `square`."""
        return v - (1.0 - self.beta2) * square * (v - square).sign()
