"""Coordinate-wise trimmed mean (Yin et al., arXiv 1803.01498): drop the largest and smallest
values, average the rest.

The fraction `trim` goes at each end, rounded up (of 3 or 5 values one, of 6 two) but never all of
them. A rank that a participant lacks is not a vote for 0 but no vote: trimming is over those who
have the coordinate. One or two of those cannot be trimmed and are averaged, so the ranks that only
one participant has are that participant's own. Every vote weighs the same; `points.py` says what is
averaged. Updates are changes of shared factors `module:a`, `module:b` (layout factors). It keeps
all updates.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tequio.algorithms.reduce._points import Collected, Votes
from tequio.algorithms.settings import require
from tequio.core.errors import RunError, UpdateError
from tequio.core.grouping import grouped
from tequio.core.protocols import Sees
from tequio.core.texts.words import refusal
from tequio.core.types import Layout
from tequio.core.update import Dense, Update, plain

FEWEST = 3


@dataclass(frozen=True)
class TrimmedMean(Votes):
    """Fraction `trim` dropped at each end."""

    trim: float = 0.2
    name: str = "trimmed_mean"
    layout: Layout = "factors"
    streaming: bool = False
    nested: bool = False
    sees: Sees = "each update"

    def __post_init__(self) -> None:
        require(0.0 <= self.trim < 0.5, self.name, "trim", self.trim, "0 ≤ trim < 0.5")

    def result(self, total: Collected, divisor: float) -> Update:
        """The trimmed mean. Raises RunError under three updates."""
        n = len(total.updates)
        if n < FEWEST:
            raise refusal(RunError, "too-few-updates-to-trim", count=n, fewest=FEWEST)
        points = [
            u.scaled(c * n / divisor)
            for u, c in zip(total.updates, total.coefficients, strict=True)
        ]
        found = grouped(
            (name, plain(entry)) for point in points for name, entry in point.entries.items()
        )
        entries = {
            name: Dense(_trimmed(_padded(name, found[name]), self.trim)) for name in sorted(found)
        }
        return Update(entries, total.spec)


def _padded(name: str, values: list[Tensor]) -> Tensor:
    """(votes, …) with +∞ where a participant has no such coordinate."""
    if odd := [value for value in values if value.ndim != values[0].ndim]:
        shapes = {"shape": [*values[0].shape], "expected": [*odd[0].shape]}
        raise refusal(UpdateError, "entry-shapes-differ", entry=name, **shapes)
    shape = [max(sizes) for sizes in zip(*(value.shape for value in values), strict=True)]
    out = torch.full((len(values), *shape), math.inf)
    for row, value in zip(out, values, strict=True):
        row[tuple(slice(0, size) for size in value.shape)] = value
    return out


def _trimmed(votes: Tensor, trim: float) -> Tensor:
    """Over the first dimension: sorted, without k = min(⌈trim·h⌉, ⌊(h − 1)/2⌋) at each end of the h
    finite values.
    """
    held = torch.isfinite(votes).sum(0)
    most = torch.div(held - 1, 2, rounding_mode="floor").clamp(min=0)
    drop = torch.minimum(torch.ceil(held.double() * trim - 1e-9).long(), most)
    place = torch.arange(len(votes)).reshape(-1, *[1] * held.ndim)
    inside = (place >= drop) & (place < held - drop)
    retained = torch.where(inside, votes.sort(0).values, torch.zeros(()))
    return (retained.double().sum(0) / inside.sum(0).clamp(min=1)).float()
