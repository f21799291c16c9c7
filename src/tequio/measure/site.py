"""Where a machine stands: whose electricity it draws, what that emits and costs, and what was
emitted when it was made.

SCI = (E·I + M) / R (ISO/IEC 21031): E in kWh at the meter of the building (PUE inside), I
location-based, M the embodied share, R a unit of work. Offsets and certificates stay out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from tequio.core.types import Energy, Span
from tequio.measure.intensity import Intensity
from tequio.measure.money import HOURS_A_YEAR, LIFE_YEARS, Price

JOULES_A_KWH = 3.6e6


@dataclass(frozen=True)
class Site:
    """intensities: the first that knows a time wins. embodied: grams CO₂e emitted in making the
    machine;

    None where not known.

    hours: simulated time of the work that is measured; empty: the time on the wall.
    """

    intensities: Sequence[Intensity] = ()
    pue: float = 1.0
    embodied: float | None = None
    life_years: float = LIFE_YEARS
    price: Price | None = None
    hours: tuple[Span, ...] = ()

    def at(self, hours: tuple[Span, ...]) -> Site:
        """The same, for work at these hours of simulated time."""
        return replace(self, hours=hours) if hours else self

    def intensity(self, began: datetime, seconds: float) -> float | None:
        """Mean g/kWh over that time."""
        found = (known.mean(began, seconds) for known in self.intensities)
        return next((grams for grams in found if grams is not None), None)

    def over(self, hours: Sequence[Span]) -> float | None:
        """Mean g/kWh of work spread evenly over these hours;

        None where that of one is not known.
        """
        known = [self.intensity(datetime.fromisoformat(span.begin), span.seconds) for span in hours]
        if not hours or any(grams is None for grams in known):
            return None
        weighted = math.fsum(
            g * s.seconds for g, s in zip(known, hours, strict=True) if g is not None
        )
        return weighted / math.fsum(span.seconds for span in hours)

    def placed(self, energy: Energy, began: datetime) -> Energy:
        """The reading with what this place adds: its intensity then, PUE, and the share of making
        the machine.

        The share is that of the time at work (SCI: M = TE · time reserved / life), and of the whole
        machine.
        """
        made = self.embodied
        hours = energy.seconds / 3600.0
        return replace(
            energy,
            began=self.hours[0].begin if self.hours else began.isoformat(timespec="seconds"),
            intensity=self.over(self.hours)
            if self.hours
            else self.intensity(began, energy.seconds),
            pue=self.pue,
            embodied=None if made is None else made * hours / (self.life_years * HOURS_A_YEAR),
        )

    def money(self, energy: Energy) -> float | None:
        """What it cost, in the currency of the price; None without prices."""
        if self.price is None:
            return None
        return self.price.of(energy.joules * self.pue / JOULES_A_KWH, energy.seconds / 3600.0)


def sci(grams: float, embodied: float, units: float) -> float | None:
    """(E·I + M)/R: grams a unit of work; None without work."""
    return (grams + embodied) / units if units > 0 else None
