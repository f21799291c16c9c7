"""RoLoRA (Chen et al., arXiv 2409.02346): rounds of B and rounds of A take turns; what is not
trained is frozen and common.

Exact, for the mean of B·A is (mean of B)·A where A is common, and likewise for A. Half the bytes.
Updates are changes of shared factors `module:b` in odd rounds, `module:a` in even ones (layout
factors). Unequal ranks are nested: a participant trains the first rᵢ rows or columns over the
frozen rest, and the mean divides by all participants, so all start from one function.
"""

from dataclasses import dataclass

from tequio.algorithms.reduce._sums import Summed
from tequio.core.protocols import Sees
from tequio.core.types import Layout, Trained


@dataclass(frozen=True)
class RoLoRA(Summed):
    """Weighted mean of changes of B, then of A; a row or column that a lower rank does not train
    counts as 0.
    """

    name: str = "rolora"
    layout: Layout = "factors"
    streaming: bool = True
    nested: bool = True
    sees: Sees = "only the sum"

    def trained(self, round_: int) -> Trained:
        """B in odd rounds (it starts at 0, so A could not learn before it), A in even ones."""
        return "b" if round_ % 2 else "a"
