"""FFA-LoRA (Sun et al., arXiv 2403.12313):

A stays at its seeded start, only B is trained, sent and averaged.

Exact, for the mean of B·A is (mean of B)·A where A is common. Half the bytes. Updates are changes
of shared factors `module:b` (layout factors). Unequal ranks, which the paper does not have, are
nested: a participant trains the first columns of B over the rest.
"""

from dataclasses import dataclass

from tequio.algorithms.reduce._sums import Summed
from tequio.core.protocols import Sees
from tequio.core.types import Layout, Trained


@dataclass(frozen=True)
class FFA(Summed):
    """Weighted mean of changes of B; a column that a lower rank does not train counts as 0."""

    name: str = "ffa"
    layout: Layout = "factors"
    streaming: bool = True
    nested: bool = True
    sees: Sees = "only the sum"

    def trained(self, round_: int) -> Trained:
        """B, always."""
        return "b"
