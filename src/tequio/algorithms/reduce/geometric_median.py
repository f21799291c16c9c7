"""RFA (Pillutla et al., arXiv 1912.13445): the geometric median argmin Σ‖v − xᵢ‖, by the smoothed
Weiszfeld algorithm.

It withstands bad updates as long as they are fewer than half. Each participant is one vote;
`points.py` says what xᵢ is. It keeps all updates, and the aggregate has the rank of the stack of
all of them (layout product).
"""

from dataclasses import dataclass

from tequio.algorithms.reduce._points import Collected, Votes, centre, gram, median_votes
from tequio.algorithms.settings import require
from tequio.core.protocols import Sees
from tequio.core.types import Layout
from tequio.core.update import Update


@dataclass(frozen=True)
class GeometricMedian(Votes):
    """At most `iterations` steps; distances under `smoothing` × the median length count as that
    long.
    """

    iterations: int = 100
    smoothing: float = 1e-6
    name: str = "geometric_median"
    layout: Layout = "product"
    streaming: bool = False
    nested: bool = False
    sees: Sees = "each update"

    def __post_init__(self) -> None:
        require(self.iterations >= 1, self.name, "iterations", self.iterations, "iterations ≥ 1")
        require(
            0.0 < self.smoothing <= 1.0, self.name, "smoothing", self.smoothing, "0 < smoothing ≤ 1"
        )

    def result(self, total: Collected, divisor: float) -> Update:
        """The geometric median of the points."""
        return centre(
            total, median_votes(gram(total, divisor), int(self.iterations), self.smoothing), divisor
        )
