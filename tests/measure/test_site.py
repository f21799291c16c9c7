"""A place adds carbon and money to a reading; ownership by the hour; SCI."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tequio.core.errors import ConfigError
from tequio.core.types import Energy
from tequio.measure.intensity import Intensity
from tequio.measure.money import Price, break_even_hours, owned_per_hour
from tequio.measure.site import Site, sci

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KWH = Energy(3.6e6, 3600.0, "model", "cpu package", 0.4)


def test_a_kilowatt_hour_at_a_place() -> None:
    # 1 kWh · PUE 1.5 · 400 g = 600 g; 43.8 kg over 5 years (43,800 h) is 1 g an hour; 1.5 kWh · 0.2 + 1 h · 2 = 2.3
    site = Site((Intensity("X", "average", "s", annual=400.0),), 1.5, 43_800.0, 5.0, Price("EUR", 0.2, 2.0))
    placed = site.placed(KWH, NOON)
    assert placed.grams == pytest.approx(600.0)
    assert placed.embodied == pytest.approx(1.0)
    assert site.money(placed) == pytest.approx(2.3)
    assert (placed.joules, placed.began) == (KWH.joules, "2026-03-01T12:00:00+00:00")
    told = placed.untold()
    assert (told.grams, told.embodied, told.pue, told.joules) == (None, None, 1.0, KWH.joules)


def test_an_unknown_place_is_unknown_not_zero() -> None:
    placed = Site().placed(KWH, NOON)
    assert placed.grams is None
    assert placed.embodied is None
    assert Site().money(placed) is None
    assert Site(price=Price("EUR")).money(placed) == 0.0  # a price of zero is one


def test_owning_by_the_hour() -> None:
    # 8,760 · (1 − 0.5) over one year is 0.5 an hour, with maintenance 0.25, used half of the time: 1.5
    assert owned_per_hour(8760, 1, 0.5, 0.25, 0.5) == pytest.approx(1.5)
    assert owned_per_hour(0) == 0.0
    for bad in ({"capital": -1}, {"capital": 1, "residual": 2}, {"capital": 1, "utilisation": 0}):
        with pytest.raises(ConfigError, match="expected"):
            owned_per_hour(**bad)


def test_break_even() -> None:
    # 25,000 against 2.50 an hour rented and 0.50 an hour to run: 12,500 hours
    assert break_even_hours(25_000, 2.5, 0.5) == pytest.approx(12_500)
    assert break_even_hours(25_000, 0.4, 0.5) is None


def test_sci() -> None:
    assert sci(90.0, 10.0, 50.0) == 2.0  # (E·I + M)/R
    assert sci(90.0, 10.0, 0.0) is None
