"""A participant without its coordinator: outside its own hours, or because the coordinator is
gone.
"""

import time
from datetime import datetime
from pathlib import Path

from tequio.config import ScheduleSection
from tequio.core.durations import duration
from tequio.core.events import EventHandler, Level, Value
from tequio.measure.intensity import Intensity
from tequio.planning.carbon_aware import greenest_of_day
from tequio.planning.schedule import is_open, next_opening, parse_window

GONE = 600.0  # seconds without the coordinator, after which the log says how to continue alone


def closed(
    schedule: ScheduleSection | None, now: datetime, forecast: Intensity | None = None
) -> str:
    """Return why this machine does not take part at `now`, local time; an empty text where it does.

    forecast: of its electricity's carbon.
    """
    if schedule is None:
        return ""
    if is_open(window := parse_window(schedule.hours), schedule.days, now):
        return _waiting_for_green(schedule, now.astimezone(), forecast)
    opens = next_opening(window, schedule.days, now)
    return (
        f"Outside of the hours in [schedule]: disconnected until {opens:%A %Y-%m-%d %H:%M}, "
        "local time."
    )


def _waiting_for_green(schedule: ScheduleSection, now: datetime, forecast: Intensity | None) -> str:
    if schedule.greenest_hours is None or forecast is None:
        return ""
    green, opens = greenest_of_day(
        [(w.start, w.seconds, w.grams) for w in forecast.windows], now, schedule.greenest_hours
    )
    if green:
        return ""
    until = (
        "the next day"
        if opens is None
        else f"{opens.astimezone(now.tzinfo):%A %Y-%m-%d %H:%M}, local time"
    )
    return (
        f"Not one of the {schedule.greenest_hours:g} greenest hours of the day: disconnected "
        f"until {until}."
    )


def pointing_out(folder: Path, tell: EventHandler, after: float = GONE) -> EventHandler:
    """Return `tell` with one addition: how to make a personal model alone.

    It is logged once, where the coordinator cannot be reached for `after` seconds.
    """
    lost: float | None = None
    said = False

    def log(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        nonlocal lost, said
        tell(words, event, level, **fields)
        if event in ("connected", "disconnected"):
            gone = event == "disconnected" and level == "warning"  # not by its own hours
            lost = (time.monotonic() if lost is None else lost) if gone else None
        if lost is not None and not said and time.monotonic() - lost >= after:
            said = True
            tell(
                f"No connection for {duration(after)}. Still retrying; the federation may have "
                f"ended. To make a personal model now, stop this and run: tequio island {folder}",
                "coordinator-gone",
                "warning",
            )

    return log
