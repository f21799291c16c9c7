"""Hours and days of a participant: the clock on the wall decides, over midnight too."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tequio.app.network.participant.availability import closed
from tequio.config import ScheduleSection, load_participant
from tequio.core.errors import ConfigError
from tequio.measure.intensity import Intensity, Window
from tequio.planning.schedule import DAYS, is_open, next_opening, parse_window

FRIDAY = datetime(2026, 11, 27)  # a Friday, midnight


def at(day: int, time: str) -> datetime:
    """`day` days after that Friday, HH:MM."""
    hour, minute = map(int, time.split(":"))
    return FRIDAY + timedelta(days=day, hours=hour, minutes=minute)


@pytest.mark.parametrize(
    ("day", "time", "expected"),
    [
        (0, "19:59", False),
        (0, "20:00", True),
        (0, "23:59", True),
        (1, "00:00", True),  # Friday's window goes on
        (1, "06:59", True),
        (1, "07:00", False),
        (1, "21:00", False),  # Saturday has none
        (0, "06:00", False),  # nor had Thursday
        (7, "20:30", True),
    ],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins(
    day: int, time: str, expected: bool
) -> None:
    assert is_open(parse_window("20:00-07:00"), ["fri"], at(day, time)) is expected


def test_from_sunday_into_monday() -> None:
    night = parse_window("22:00-02:00")
    assert is_open(night, ["sun"], at(3, "01:59"))
    assert not is_open(night, ["mon"], at(3, "01:59"))


def test_a_window_within_a_day_and_the_whole_day() -> None:
    assert [
        is_open(parse_window("09:00-17:30"), DAYS, at(0, t))
        for t in ("08:59", "09:00", "17:29", "17:30")
    ] == [
        False,
        True,
        True,
        False,
    ]
    assert all(
        is_open(parse_window("00:00-24:00"), DAYS, at(d, t))
        for d in range(7)
        for t in ("00:00", "12:00", "23:59")
    )
    assert not is_open(parse_window("00:00-24:00"), ["fri"], at(1, "00:00"))


def test_it_opens_next_when_it_opens_next() -> None:
    window = parse_window("20:00-07:00")
    assert next_opening(window, DAYS, at(0, "10:00")) == at(0, "20:00")
    assert next_opening(window, DAYS, at(0, "20:00")) == at(1, "20:00")
    assert next_opening(window, ["fri"], at(0, "21:00")) == at(7, "20:00")
    assert next_opening(window, ["mon"], at(0, "21:00")) == at(3, "20:00")
    for minute in range(0, 7 * 24 * 60, 7):  # never open in between, and open then
        now = FRIDAY + timedelta(minutes=minute)
        if not is_open(window, ["tue", "sat"], now):
            opens = next_opening(window, ["tue", "sat"], now)
            assert is_open(window, ["tue", "sat"], opens)
            assert not is_open(window, ["tue", "sat"], opens - timedelta(minutes=1))


def test_what_is_said_outside() -> None:
    schedule = ScheduleSection(hours="20:00-07:00", days=["fri"])
    assert closed(None, at(0, "10:00")) == closed(schedule, at(0, "20:00")) == ""
    assert "disconnected until Friday 2026-11-27 20:00" in closed(schedule, at(0, "10:00"))


def test_only_the_greenest_hours_of_those_that_are_open() -> None:
    schedule = ScheduleSection(hours="06:00-22:00", greenest_hours=2.0)
    begin = at(0, "00:00").astimezone()
    grams = [50.0 if hour in (3, 12) else 60.0 if hour == 13 else 400.0 for hour in range(24)]
    windows = tuple(
        Window("X", begin + timedelta(hours=h), 3600.0, g, "actual", None, "average", "s", "")
        for h, g in enumerate(grams)
    )
    forecast = Intensity("X", "average", "s", windows)
    assert closed(schedule, at(0, "12:30"), forecast) == ""
    assert "greenest hours of the day: disconnected until Friday 2026-11-27 12:00" in closed(
        schedule, at(0, "08:00"), forecast
    )
    assert "disconnected until the next day" in closed(schedule, at(0, "15:00"), forecast)
    assert "Outside of the hours" in closed(schedule, at(0, "03:30"), forecast)
    assert (
        closed(schedule, at(0, "08:00"), None) == closed(schedule, at(3, "08:00"), forecast) == ""
    )


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('hours = "8-17"', "20:00-07:00"),
        ('hours = "25:00-07:00"', "20:00-07:00"),
        ('hours = "20:00-24:30"', "20:00-07:00"),
        ('hours = "07:00-07:00"', "it ends when it begins"),
        ("hours = 8", "hours"),
        ("days = []", "days"),
        ('days = ["monday"]', "days"),
        ('days = ["mon", "mon"]', "twice"),
        ('day = ["mon"]', "days"),
    ],
)
def test_nonsense_is_named(tmp_path: Path, lines: str, said: str) -> None:
    file = tmp_path / "north.toml"
    file.write_text(f'name = "north"\n[data]\npath = "x.jsonl"\n[schedule]\n{lines}\n')
    with pytest.raises(ConfigError, match="schedule") as error:
        load_participant(file)
    assert said in str(error.value)
