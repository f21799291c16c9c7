"""Updates as points x₁ … xₙ, for rules that must see all of them.

Distances come from inner products: B·A is never formed.

xᵢ = n·cᵢ·Δᵢ / divisor, with cᵢ the coefficient Δᵢ was added with, so that the mean of the points is
what `stack` gives. Under norm equalisation with power 0 all points have the median length. Each
point is one vote: a weight makes a point longer, it does not make it count more, and so a
participant that overstates its weight is treated as any other outlier.

A centre v = (1/n)·Σ bᵢ xᵢ is known by its votes b alone (Σ bᵢ = n; all 1 is the mean).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tequio.core.types import Trained
from tequio.core.update import Update, zero


@dataclass(frozen=True)
class Collected:
    """The accumulator: every update with its coefficient."""

    spec: str
    updates: tuple[Update, ...] = ()
    coefficients: tuple[float, ...] = ()

    def add(self, update: Update, coefficient: float) -> Collected:
        """One more. Raises UpdateError if it belongs to another layout."""
        fitting = zero(self.spec).plus(update)
        return replace(
            self, updates=(*self.updates, fitting), coefficients=(*self.coefficients, coefficient)
        )


class Votes:
    """What reduces share that must see all updates: each is kept, and both factors are trained."""

    def trained(self, round_: int) -> Trained:
        """Both, always."""
        return "both"

    def init(self, spec: str) -> Collected:
        """Nothing yet."""
        return Collected(spec)

    def add(self, total: Collected, update: Update, coefficient: float) -> Collected:
        """Keep it."""
        return total.add(update, coefficient)


def gram(retained: Collected, divisor: float) -> Tensor:
    """⟨xᵢ, xⱼ⟩, (n × n) float64. O(n²·r²·(m + n)) for factored entries."""
    n = len(retained.updates)
    out = torch.zeros(n, n, dtype=torch.float64)
    for i, left in enumerate(retained.updates):
        for j in range(i, n):
            out[i, j] = out[j, i] = left.dot(retained.updates[j])
    factors = torch.tensor(retained.coefficients, dtype=torch.float64) * (n / divisor)
    return out * torch.outer(factors, factors)


def distances(inner: Tensor, votes: Tensor) -> Tensor:
    """‖xᵢ − v‖ for all i, (n); the products behind `inner` are float32, so below 3e-4·‖xᵢ‖ a
    distance is rounding.
    """
    offsets = torch.eye(len(votes), dtype=torch.float64) - votes / len(votes)
    return ((offsets @ inner) * offsets).sum(1).clamp(min=0.0).sqrt()


def centre(retained: Collected, votes: Tensor, divisor: float) -> Update:
    """v = Σ bᵢ cᵢ Δᵢ / divisor, by stacking; with all votes 1 these are the operations of `stack`,
    to the bit.
    """
    total = zero(retained.spec)
    for update, coefficient, vote in zip(
        retained.updates, retained.coefficients, votes.tolist(), strict=True
    ):
        total = total.plus(update.scaled(coefficient * vote))
    return total.scaled(1.0 / divisor)


def median_votes(inner: Tensor, iterations: int, smoothing: float) -> Tensor:
    """Votes of the geometric median by smoothed Weiszfeld steps from the mean: bᵢ ∝ 1/max(ν, ‖xᵢ −
    v‖).

    ν = smoothing × the median length of the points. Stops early when no vote moves by more than
    1e-9.
    """
    votes = torch.ones(len(inner), dtype=torch.float64)
    lengths = inner.diagonal().clamp(min=0.0).sqrt()
    floor = smoothing * float(lengths.median() or lengths.max())
    if floor == 0.0:
        return votes
    for _ in range(iterations):
        pull = 1.0 / distances(inner, votes).clamp(min=floor)
        after = pull * (len(votes) / pull.sum())
        moved = float((after - votes).abs().max())
        votes = after
        if moved <= 1e-9:
            break
    return votes
