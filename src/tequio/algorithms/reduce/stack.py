"""Stack and fold (FLoRA, Wang et al., arXiv 2409.05976): ΔG = Σ wᵢ ΔWᵢ exactly, for any ranks.

Factors are stacked, [w₁B₁ w₂B₂ …]·[A₁; A₂; …]; past the rank at which the stack would be larger
than the matrix itself the sum is kept dense, so memory stays flat. Participants restart from B = 0
on the folded model (layout product).
"""

from dataclasses import dataclass

from tequio.algorithms.reduce._sums import Summed
from tequio.core.protocols import Sees
from tequio.core.types import Layout
from tequio.core.update import Update


@dataclass(frozen=True)
class Stack(Summed):
    """Exact weighted sum of low-rank updates."""

    name: str = "stack"
    layout: Layout = "product"
    streaming: bool = True
    nested: bool = False
    sees: Sees = "each update"

    def add(self, total: Update, update: Update, coefficient: float) -> Update:
        """total + coefficient · update, by stacking."""
        return total.plus(update.scaled(coefficient))
