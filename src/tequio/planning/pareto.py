"""Ways to do the same work, side by side: the Pareto set over quality, time, carbon and money.

Never one score.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Option:
    """One way. quality: more is better, all others less; money by currency;

    None: not known. priced: the money is that of all who take
    part."""

    key: str
    where: str
    quality: float
    seconds: float
    joules: float
    grams: float | None
    money: Mapping[str, float] | None
    note: Mapping[str, Any] | None = None  # a reason in its recorded form
    priced: bool = True


def compared(options: Sequence[Option]) -> tuple[str, ...]:
    """The axes that can be compared: known for all options, and money only in one currency and of
    everybody.

    Energy where carbon is not
    known for all."""
    axes = [
        "quality",
        "seconds",
        "grams" if all(o.grams is not None for o in options) else "joules",
    ]
    currencies = {c for o in options for c in (o.money or {})}
    if len(currencies) == 1 and all(o.money and o.priced for o in options):
        axes.append("money")
    return tuple(axes)


def pareto(options: Sequence[Option], axes: Sequence[str]) -> list[bool]:
    """For each option, whether no other is at least as good on every axis and better on one."""
    points = [[_cost(option, axis) for axis in axes] for option in options]
    return [not any(_dominates(other, point) for other in points) for point in points]


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(
        x < y for x, y in zip(a, b, strict=True)
    )


def _cost(option: Option, axis: str) -> float:
    if axis == "quality":
        return -option.quality
    if axis == "money":
        return math.fsum((option.money or {}).values())
    value = getattr(option, axis)
    return math.inf if value is None else float(value)
