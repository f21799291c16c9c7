"""What a machine costs by the hour: electricity, rent, or ownership (TCO), in the owner's own
currency.

Nothing is converted.

TCO an hour = (capital · (1 − residual) / hours of life + maintenance) / utilisation + kW · PUE ·
tariff.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal

HOURS_A_YEAR = 8760.0
LIFE_YEARS = 5.0
"""Assumption where no `life_years` is given: how long a machine is used before it is replaced."""


@dataclass(frozen=True)
class Price:
    """Prices in `currency`. per_hour: rent, or what an hour of an owned machine costs without
    electricity; per_kwh: electricity.
    """

    currency: str
    per_kwh: float = 0.0
    per_hour: float = 0.0

    def of(self, kwh: float, hours: float) -> float:
        """Money for so much electricity (with PUE) and so many hours."""
        return kwh * self.per_kwh + hours * self.per_hour


def added(amounts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Sums by currency."""
    money: dict[str, float] = {}
    for currency, amount in (pair for each in amounts for pair in each.items()):
        money[currency] = money.get(currency, 0.0) + amount
    return money


def owned_per_hour(
    capital: float,
    life_years: float = LIFE_YEARS,
    residual: float = 0.0,
    maintenance: float = 0.0,
    utilisation: float = 1.0,
) -> float:
    """An hour of use of an owned machine without electricity:

    (capital·(1 − residual)/life + maintenance)/utilisation.

    maintenance: an hour of life. utilisation: share of its life in use. Raises ConfigError where a
        figure is not possible.
    """
    for key, value, fits, limits in (
        ("capital", capital, 0.0 <= capital < math.inf, "capital ≥ 0"),
        ("residual", residual, 0.0 <= residual <= 1.0, "0 ≤ residual ≤ 1"),
        (
            "maintenance_per_hour",
            maintenance,
            0.0 <= maintenance < math.inf,
            "maintenance_per_hour ≥ 0",
        ),
        ("utilisation", utilisation, 0.0 < utilisation <= 1.0, "0 < utilisation ≤ 1"),
        ("life_years", life_years, 0.0 < life_years < math.inf, "life_years > 0"),
    ):
        if not fits:
            raise refusal(
                ConfigError, "out-of-range", key=f"[money] {key}", value=str(value), limits=limits
            )
    return (capital * (1.0 - residual) / (life_years * HOURS_A_YEAR) + maintenance) / utilisation


def break_even_hours(capital: float, rent_per_hour: float, running_per_hour: float) -> float | None:
    """Hours of use after which a bought machine has cost less than a rented one;

    None where rent is never dearer.

    running_per_hour: what an hour of the own machine costs beside its price (electricity,
        maintenance).
    """
    saved = rent_per_hour - running_per_hour
    return capital / saved if saved > 0.0 else None
