"""Numbers as integers modulo 2³²: what masks hide without a trace, and what adds up exactly.

A step of the grid is a power of two, so that integers within the bound stay exact. Two bits are a
guard: a sum of honest members stays within ±2²⁹, and a vector that was not masked as agreed, or was
made to wrap around, almost surely does not.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tequio.core.errors import ProtectionError
from tequio.core.texts.words import refusal
from tequio.trust.secure_sum.agreement import Layout

LARGEST_SUM = 1 << 29
CHUNK = 1 << 15  # values that are rounded at a time, so that they stay in cache
WIDE = np.dtype("<u4")
Vector = NDArray[np.uint32]
Floats = NDArray[np.float32] | NDArray[np.float64]


@dataclass(frozen=True)
class Field:
    """Values up to ±bound of so many members.

    The sum of n members differs from the sum of their values, clipped to ±limit, by at most
    n·step/2, where step < 2·bound·members/2²⁹, apart from the rounding of float64 (2⁻²² of a step).
    """

    bound: float
    members: int

    @property
    def step(self) -> float:
        """Return the distance of two neighbours on the grid: a power of two."""
        return float(2.0 ** math.ceil(math.log2(self.bound * self.members / LARGEST_SUM)))

    @property
    def largest(self) -> int:
        """Return the largest integer that a member sends."""
        return math.floor(self.bound / self.step)

    @property
    def limit(self) -> float:
        """Return the largest value that a member sends: the last step within the bound."""
        return self.largest * self.step

    def quantise(self, values: Floats, out: Vector) -> None:
        """Write clipped and rounded values into `out`. Raises ProtectionError if one is not
        finite."""
        scale, most = 1.0 / self.step, float(self.largest)
        signed = out.view("<i4")
        for begin in range(0, len(values), CHUNK):
            part = values[begin : begin + CHUNK].astype(np.float64)
            part *= scale
            if not math.isfinite(float(part.sum())) and not np.isfinite(part).all():
                raise refusal(ProtectionError, "secure-sum-not-finite")
            np.rint(part, out=part)
            np.clip(part, -most, most, out=part)
            signed[begin : begin + CHUNK] = part

    def opened(self, total: Vector, count: int) -> NDArray[np.float64]:
        """Return the sum that `count` members made. Raises ProtectionError if no honest members
        could have made it."""
        signed = total.view("<i4")
        if len(signed) and max(int(signed.max()), -int(signed.min())) > count * self.largest:
            raise refusal(ProtectionError, "secure-sum-garbage")
        return signed * self.step


def encode(layout: Layout, blocks: int, values: Floats, figures: Mapping[str, float]) -> Vector:
    """Return the vector of a member that sends the first `blocks` blocks: a sentinel, figures, then
    each block and a sentinel.

    Raises ProtectionError if the values or figures are not those of the layout, or not finite.
    """
    members, edges = len(layout.covers), layout.edges(blocks)
    if len(values) < sum(layout.blocks[:blocks]) or figures.keys() != layout.figures.keys():
        raise refusal(ProtectionError, "secure-sum-layout")
    vector = np.empty(edges[-1], WIDE)
    vector[0] = 1
    for place, (name, bound) in enumerate(layout.figures.items(), 1):
        Field(bound, members).quantise(np.array([figures[name]]), vector[place : place + 1])
    field, taken = Field(layout.bound, members), 0
    for number in range(blocks):
        begin, end = edges[number + 1] - 1 - layout.blocks[number], edges[number + 1] - 1
        field.quantise(values[taken : taken + end - begin], vector[begin:end])
        vector[end] = 1
        taken += end - begin
    return vector


def decode(
    layout: Layout, total: Vector, counts: list[int]
) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Return the summed values and figures; counts: how many members sent each opened block. Blocks
    that rest are zero.

    Raises ProtectionError if a sentinel or a bound shows that this is not the sum of so many
    members.
    """
    members, edges = len(layout.covers), layout.edges(len(counts))
    sentinels = [
        (0, counts[0]),
        *((edges[number + 1] - 1, count) for number, count in enumerate(counts)),
    ]
    if len(total) != edges[-1] or any(int(total[place]) != count for place, count in sentinels):
        raise refusal(ProtectionError, "secure-sum-garbage")
    figures = {
        name: float(Field(bound, members).opened(total[place : place + 1], counts[0])[0])
        for place, (name, bound) in enumerate(layout.figures.items(), 1)
    }
    field, taken = Field(layout.bound, members), 0
    values = np.zeros(sum(layout.blocks))
    for number, count in enumerate(counts):
        end = edges[number + 1] - 1
        size = layout.blocks[number]
        values[taken : taken + size] = field.opened(total[end - size : end], count)
        taken += size
    return values, figures
