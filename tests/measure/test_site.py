"""A place adds carbon and money to a reading; ownership by the hour; SCI."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from builders import refused
from tequio.core.errors import ConfigError
from tequio.core.types import Energy, Span
from tequio.measure.intensity import Intensity, Window
from tequio.measure.money import Price, break_even_hours, owned_per_hour
from tequio.measure.site import Site, sci

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KWH = Energy(3.6e6, 3600.0, "model", "cpu package", 0.4)


def test_a_kilowatt_hour_at_a_place() -> None:
    # 1 kWh · PUE 1.5 · 400 g = 600 g; 43.8 kg over 5 years (43,800 h) is 1 g an hour; 1.5 kWh · 0.2
    # + 1 h · 2 = 2.3
    site = Site(
        (Intensity("X", "average", "s", annual=400.0),), 1.5, 43_800.0, 5.0, Price("EUR", 0.2, 2.0)
    )
    placed = site.placed(KWH, NOON)
    assert placed.grams == pytest.approx(600.0)
    assert placed.embodied == pytest.approx(1.0)
    assert site.money(placed) == pytest.approx(2.3)
    assert (placed.joules, placed.began) == (KWH.joules, "2026-03-01T12:00:00+00:00")
    disclosed = placed.undisclosed()
    assert (disclosed.grams, disclosed.embodied, disclosed.pue, disclosed.joules) == (
        None,
        None,
        1.0,
        KWH.joules,
    )


def test_an_unknown_place_is_unknown_not_zero() -> None:
    placed = Site().placed(KWH, NOON)
    assert placed.grams is None
    assert placed.embodied is None
    assert Site().money(placed) is None
    assert Site(price=Price("EUR")).money(placed) == 0.0  # a price of zero is one


def test_owning_by_the_hour() -> None:
    # 8,760 · (1 − 0.5) over one year is 0.5 an hour, with maintenance 0.25, used half of the time:
    # 1.5
    assert owned_per_hour(8760, 1, 0.5, 0.25, 0.5) == pytest.approx(1.5)
    assert owned_per_hour(0) == 0.0
    for key, bad in (("capital", -1), ("residual", 2), ("utilisation", 0), ("life_years", 0)):
        with refused(ConfigError, "out-of-range", key=f"[money] {key}", value=str(bad)):
            owned_per_hour(**{"capital": 1, key: bad})


def test_break_even() -> None:
    # 25,000 against 2.50 an hour rented and 0.50 an hour to run: 12,500 hours
    assert break_even_hours(25_000, 2.5, 0.5) == pytest.approx(12_500)
    assert break_even_hours(25_000, 0.4, 0.5) is None


def test_sci() -> None:
    assert sci(90.0, 10.0, 50.0) == 2.0  # (E·I + M)/R
    assert sci(90.0, 10.0, 0.0) is None


def test_simulated_hours_and_two_pieces_of_work_as_one() -> None:
    begin = datetime(2026, 3, 1, tzinfo=UTC)
    rows = (
        Window(
            "X", begin + timedelta(hours=h), 3600.0, grams, "actual", None, "average", "made up", ""
        )
        for h, grams in enumerate((100.0, 400.0, 900.0))
    )
    site = Site((Intensity("X", "average", "made up", tuple(rows)),), pue=1.5, embodied=10.0)
    hours = (
        Span(begin.isoformat(), 1800.0),
        Span((begin + timedelta(hours=1)).isoformat(), 3600.0),
    )
    assert site.over(hours) == pytest.approx((0.5 * 100 + 400) / 1.5)  # by time
    assert (
        site.over((Span((begin + timedelta(hours=2)).isoformat(), 7200.0),)) is None
    )  # it ends before
    work = Energy(3.6e6, 60.0, "model", "cpu package", 0.4)
    first = site.at(hours).placed(work, datetime.now(UTC))
    assert first.began == begin.isoformat()
    assert first.grams == pytest.approx(1.5 * 300)
    second = site.at((Span((begin + timedelta(hours=2)).isoformat(), 60.0),)).placed(
        work, datetime.now(UTC)
    )
    both = first.plus(replace(second, joules=7.2e6))
    assert (both.joules, both.seconds) == (10.8e6, 120.0)
    assert both.grams == pytest.approx(1.5 * (300 + 2 * 900))
    assert both.embodied == pytest.approx(2 * (first.embodied or 0.0))
    assert first.plus(second.undisclosed()).grams is None
