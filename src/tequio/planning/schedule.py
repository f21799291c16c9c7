"""When a participant's machine takes part: hours of local time on days of the week, as pure
functions of the clock on its wall.

A window that ends before it begins goes over midnight, and belongs to the day on which it begins:
"20:00-07:00" on Friday ends on Saturday.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d)")
WHOLE = (0, 24 * 60)


def parse_window(hours: str) -> tuple[int, int]:
    """(begin, end) in minutes since midnight; the end is the later one, beyond 24 h where it is on
    the next day.

    Raises ValueError.
    """
    found = WINDOW.fullmatch(hours)
    if found is None or (found[3] == "24" and found[4] != "00"):
        raise ValueError(f'hours = {hours!r}: expected begin and end, as in "20:00-07:00"')
    begin, end = 60 * int(found[1]) + int(found[2]), 60 * int(found[3]) + int(found[4])
    if begin == end:
        raise ValueError(
            f"hours = {hours!r}: it ends when it begins. Leave it out for the whole day"
        )
    return begin, end if end > begin else end + 24 * 60


def is_open(window: tuple[int, int], days: Sequence[str], now: datetime) -> bool:
    """Whether `now`, local time, is inside; the end is outside."""
    minute = 60 * now.hour + now.minute
    today, yesterday = DAYS[now.weekday()], DAYS[now.weekday() - 1]
    begin, end = window
    return (today in days and begin <= minute < end) or (
        yesterday in days and begin <= minute + 24 * 60 < end
    )


def next_opening(window: tuple[int, int], days: Sequence[str], now: datetime) -> datetime:
    """The next time at which it opens, after `now`. days: at least one."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    opens = (midnight + timedelta(days=ahead, minutes=window[0]) for ahead in range(9))
    return next(at for at in opens if at > now and DAYS[at.weekday()] in days)
