"""What is known of a grid's carbon intensity at a time, on a raster of slots: values so far, and the latest forecast made by then.

Nothing of the future but forecasts is looked at: what comes beyond their end is for others to guess. The value of the slot that begins now
counts as known.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tequio.measure.intensity import Intensity, read_windows
from tequio.measure.site import Site

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CarbonForecast:
    """site: what it was. forecasts: what was expected, in the order in which it was said; each has `issued` in its windows."""

    site: Site
    forecasts: tuple[Intensity, ...] = ()

    def values(self, begin: datetime, slots: int, seconds: float) -> Floats:
        """Means of `slots` slots from `begin` on, of so many seconds each, up to the first that is not known."""
        return _means(self.site, begin, slots, seconds)

    def past(self, now: datetime, slots: int, seconds: float) -> Floats:
        """Means of the slots before now, the latest last; of at most `slots`, from the last one that is not known on."""
        found: list[float] = []
        for k in range(1, slots + 1):
            grams = self.site.intensity(now - timedelta(seconds=k * seconds), seconds)
            if grams is None:
                break
            found.append(grams)
        return np.array(found[::-1], float)

    def forecast(self, now: datetime, slots: int, seconds: float) -> Floats:
        """What is expected of the slots after the one that begins now, as said last; of at most `slots`, as far as it goes."""
        made = bisect_right(self.forecasts, now, key=lambda f: f.windows[0].issued or now)
        if made == 0:
            return np.array([], float)
        return _means(Site((self.forecasts[made - 1],)), now + timedelta(seconds=seconds), slots, seconds)


def read_forecasts(path: Path, like: Intensity) -> tuple[Intensity, ...]:
    """All forecasts in a canonical CSV of the zone and signal of `like`, by the time at which they were made."""
    made: dict[datetime, list[int]] = {}
    windows = read_windows(path)
    for i, window in enumerate(windows):
        if (window.zone, window.kind, window.signal) == (like.zone, "forecast", like.signal) and window.issued:
            made.setdefault(window.issued, []).append(i)
    return tuple(
        Intensity(like.zone, like.signal, windows[own[0]].source, tuple(windows[i] for i in own))
        for _, own in sorted(made.items())
    )


def _means(site: Site, begin: datetime, slots: int, seconds: float) -> Floats:
    found: list[float] = []
    for k in range(slots):
        grams = site.intensity(begin + timedelta(seconds=k * seconds), seconds)
        if grams is None:
            break
        found.append(grams)
    return np.array(found, float)
