"""A participant with its work on its machine at its place, and what so much time there costs."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tequio.measure.site import JOULES_A_KWH, Site
from tequio.planning.workload import Rates, Work


@dataclass(frozen=True)
class Placed:
    """A participant (or the centre) with its work, its machine and its place."""

    work: Work
    machine: str
    rates: Rates
    site: Site
    have: int  # bytes of memory
    card: bool = False  # of this machine's graphics card


def costs(one: Placed, seconds: float) -> dict[str, Any]:
    """joules, grams and money of so many seconds at work there, as things are now."""
    joules = one.rates.watts * seconds
    intensity = one.site.intensity(datetime.now(UTC), min(seconds, 60.0))
    kwh = joules * one.site.pue / JOULES_A_KWH
    price = one.site.price
    return {
        "joules": joules,
        "grams": None if intensity is None else kwh * intensity,
        "money": None if price is None else {price.currency: price.of(kwh, seconds / 3600.0)},
    }
