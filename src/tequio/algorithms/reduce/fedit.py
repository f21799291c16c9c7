"""FedIT (Zhang et al., arXiv 2305.05644): average A and B separately, ranks zero-padded.

The common baseline.

Biased: the mean of products is not the product of means, and zero-padding shrinks what high ranks
learned. Updates are changes of shared factors `module:a`, `module:b` (layout factors).
"""

from dataclasses import dataclass

from tequio.algorithms.reduce._sums import Summed
from tequio.core.protocols import Sees
from tequio.core.types import Layout


@dataclass(frozen=True)
class FedIT(Summed):
    """Weighted mean of factor changes; what a lower rank does not have counts as 0."""

    name: str = "fedit"
    layout: Layout = "factors"
    streaming: bool = True
    nested: bool = False
    sees: Sees = "only the sum"
