"""FedEx-LoRA (Singhal et al., arXiv 2410.09432), for unequal ranks: go on with the best factors of
the shared model.

The paper folds what averaged factors cannot express, mean(BA) − mean(B)·mean(A), into the frozen
weights. Here G is the exact mean, a participant of rank r goes on with P_r(G), its best
approximation of rank r, and G − P_r(G) is folded. So all start from one function.
"""

from dataclasses import dataclass

from tequio.algorithms.start._balanced import balanced
from tequio.core.update import Update


@dataclass(frozen=True)
class FedEx:
    """Held: G − P_r(G), and the heads. Continued: P_r(G)."""

    name: str = "fedex"
    continues: bool = True
    truncates: bool = False

    def begin(self, shared: Update, rank: int) -> tuple[Update, Update]:
        """(G − P_r(G), P_r(G)); their sum is G, whatever the rounding of the decomposition."""
        start = balanced(shared, rank)
        return shared.minus(start), start
