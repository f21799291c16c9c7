"""What is known of a grid's carbon intensity at a time, on a raster of slots: values so far, and
the latest forecast made by then.

Nothing of the future but forecasts is looked at: what comes beyond their end is for others to
guess. The value of the slot that begins now counts as known.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tequio.core.grouping import grouped
from tequio.measure.intensity import Intensity, read_windows
from tequio.measure.site import Site

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CarbonForecast:
    """site: what it was. forecasts: what was expected, in the order in which it was said; each has
    `issued` in its windows.
    """

    site: Site
    forecasts: tuple[Intensity, ...] = ()

    def values(self, begin: datetime, slots: int, seconds: float) -> Floats:
        """Means of `slots` slots from `begin` on, of so many seconds each, up to the first that is
        not known.
        """
        return _means(
            self.site, (begin + timedelta(seconds=k * seconds) for k in range(slots)), seconds
        )

    def past(self, now: datetime, slots: int, seconds: float) -> Floats:
        """Means of the slots before now, the latest last; of at most `slots`, from the last one
        that is not known on.
        """
        return _means(
            self.site, (now - timedelta(seconds=k * seconds) for k in range(1, slots + 1)), seconds
        )[::-1]

    def forecast(self, now: datetime, slots: int, seconds: float) -> Floats:
        """What is expected of the slots after the one that begins now, as said last; of at most
        `slots`, as far as it goes.
        """
        made = bisect_right(self.forecasts, now, key=lambda f: f.windows[0].issued or now)
        if made == 0:
            return np.array([], float)
        after = (now + timedelta(seconds=k * seconds) for k in range(1, slots + 1))
        return _means(Site((self.forecasts[made - 1],)), after, seconds)


def read_forecasts(path: Path, like: Intensity) -> tuple[Intensity, ...]:
    """All forecasts in a canonical CSV of the zone and signal of `like`, by the time at which they
    were made.
    """
    wanted = (like.zone, "forecast", like.signal)
    windows = [
        window
        for window in read_windows(path)
        if (window.zone, window.kind, window.signal) == wanted
    ]
    made = grouped((window.issued, window) for window in windows if window.issued)
    return tuple(
        Intensity(like.zone, like.signal, own[0].source, tuple(own))
        for _, own in sorted(made.items())
    )


def _means(site: Site, begins: Iterable[datetime], seconds: float) -> Floats:
    """Of slots that begin at these times, up to the first that is not known."""
    found = (site.intensity(begin, seconds) for begin in begins)
    return np.array(list(takewhile(lambda grams: grams is not None, found)), float)
