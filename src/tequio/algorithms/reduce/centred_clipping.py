"""Centred clipping (Karimireddy et al., arXiv 2012.10333): v ← v + (1/n)·Σ (xᵢ − v)·min(1, τ/‖xᵢ −
v‖), one to three times.

No update can move v by more than τ/n a time. v starts at the geometric median of the xᵢ (the paper
starts at the centre of the round before, which restarted factors do not have), τ = factor × the
median of ‖xᵢ − v‖ there, unless it is given. Each participant is one vote; `points.py` says what xᵢ
is: with τ = ∞ the result is that of `stack`. It keeps all updates (layout product).
"""

from dataclasses import dataclass

import torch

from tequio.algorithms.reduce._points import Collected, Votes, centre, distances, gram, median_votes
from tequio.algorithms.settings import require
from tequio.core.protocols import Sees
from tequio.core.types import Layout
from tequio.core.update import Update

START_STEPS = 100
START_SMOOTHING = 1e-6


@dataclass(frozen=True)
class CentredClipping(Votes):
    """`tau` is a length in the unit of the update's norm; None:

    `factor` times the median distance.
    """

    iterations: int = 3
    factor: float = 1.0
    tau: float | None = None
    name: str = "centred_clipping"
    layout: Layout = "product"
    streaming: bool = False
    nested: bool = False
    sees: Sees = "each update"

    def __post_init__(self) -> None:
        require(self.iterations >= 1, self.name, "iterations", self.iterations, "iterations ≥ 1")
        require(self.factor > 0.0, self.name, "factor", self.factor, "factor > 0")
        require(self.tau is None or self.tau > 0.0, self.name, "tau", self.tau or 0.0, "tau > 0")

    def result(self, total: Collected, divisor: float) -> Update:
        """The clipped mean."""
        inner = gram(total, divisor)
        votes = median_votes(inner, START_STEPS, START_SMOOTHING)
        far = distances(inner, votes)
        tau = self.factor * float(torch.quantile(far, 0.5)) if self.tau is None else self.tau
        for _ in range(int(self.iterations)):
            far = distances(inner, votes)
            retained = torch.where(far <= tau, torch.ones_like(far), tau / far)
            votes = (1.0 - retained.mean()) * votes + retained
        return centre(total, votes, divisor)
