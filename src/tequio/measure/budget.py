"""Budgets: what may be spent, what was, and what a piece of work may still take.

Pure sums; who enforces them is elsewhere.

Keys: kwh (with PUE), kg_co2e, money, hours (at work), megabytes. A budget is never overrun by more
than one step: work is cut when the next step, as long as the mean of those made, would not fit.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from tequio.core.types import Energy
from tequio.measure.site import JOULES_A_KWH

UNITS = {
    "kwh": "kWh",
    "kg_co2e": "kg CO2e",
    "money": None,
    "hours": "h",
    "megabytes": "MB",
}  # None: the currency
KEYS = tuple(UNITS)


def amounts(
    joules: float, grams: float | None, money: float | None, seconds: float, size: float
) -> dict[str, float | None]:
    """Amounts by key, of joules with PUE, grams of CO2e, seconds at work and bytes;

    None: not known.
    """
    return {
        "kwh": joules / JOULES_A_KWH,
        "kg_co2e": None if grams is None else grams / 1000.0,
        "money": money,
        "hours": seconds / 3600.0,
        "megabytes": size / 1e6,
    }


def cost(energy: Energy, money: float | None, size: float = 0.0) -> dict[str, float | None]:
    """What one piece of work took, by key; None: not known."""
    return amounts(energy.joules * energy.pue, energy.grams, money, energy.seconds, size)


def add(spent: Mapping[str, float], more: Mapping[str, float | None]) -> dict[str, float]:
    """The two added up; what is not known adds nothing."""
    return {key: spent.get(key, 0.0) + (more.get(key) or 0.0) for key in KEYS}


def left(limits: Mapping[str, float], spent: Mapping[str, float]) -> dict[str, float]:
    """What remains of each limit."""
    return {key: limit - spent.get(key, 0.0) for key, limit in limits.items()}


def exhausted(remaining: Mapping[str, float]) -> list[str]:
    """The keys of which nothing remains."""
    return [key for key in KEYS if remaining.get(key, 1.0) <= 0.0]


def smaller(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    """Of each key the smaller one."""
    return {key: min(m[key] for m in (a, b) if key in m) for key in KEYS if key in a or key in b}


def within(
    rates: Iterable[float],
    allowed: Mapping[str, float],
    used: Callable[[], Mapping[str, float | None]],
) -> Iterator[float]:
    """The rates of the steps that fit: one, and then each whose predecessors' mean cost still fits.
    used: since the work began.
    """
    for done, rate in enumerate(rates):
        if done:
            now = used()
            if any(
                (now.get(key) or 0.0) * (done + 1) / done > limit for key, limit in allowed.items()
            ):
                return
        yield rate
