"""Work shifted to greener hours: greedy slots within a deadline, by a forecast that ends early, and
fair shares of a carbon budget.

A slot is one step of a series of intensities (g/kWh). Work needs `need` slots, may be interrupted,
and must be done by the deadline. No
solver: beyond the forecast's end the last days' own courses are what may come (a seasonal naive
    forecast, not averaged: what counts is how
low it will go, and means are never low), and it is worked now if in most of them now is one of the
cheapest. Shares of a budget are α-fair (Mo and Walrand, IEEE/ACM ToN 2000): max Σ x^(1−α)/(1−α)
under Σ c·x ≤ B gives x ∝ c^(−1/α), found by bisection.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import ArrayLike, NDArray

DAYS = 14  # of the past: so many courses
LINEAR = 0.02  # α below which the cheapest come first: c^(−1/α) would leave the range of numbers
Floats = NDArray[np.float64]


def hindsight(actual: ArrayLike, need: int) -> list[int]:
    """The `need` cheapest slots, in order of time: what nobody can know before.

    Raises ValueError where there are fewer.
    """
    values = np.asarray(actual, float)
    _possible(need, len(values))
    return sorted(int(i) for i in np.argsort(values, kind="stable")[:need])


def greedy(length: int, need: int, ahead: Callable[[int], Floats]) -> list[int]:
    """The slots in which it is worked, of `length` until the deadline, decided one by one as time
    goes on.

    ahead(t): what may come in slots t … length − 1, as known at slot t, one row a course (see
    `courses`); the first column is t itself. It is worked at t if in half of the courses t is one
    of the cheapest `left` (ties to the earlier one), so always where no more slots are left than
    are needed.
    """
    _possible(need, length)
    worked: list[int] = []
    for t in range(length):
        left = need - len(worked)
        if left == 0:
            break
        rows = np.atleast_2d(ahead(t))
        if float(((rows[:, 1:] < rows[:, :1]).sum(axis=1) < left).mean()) >= 0.5:
            worked.append(t)
    return worked


def courses(past: Floats, now: float, forecast: Floats, length: int, per_day: int) -> Floats:
    """What may come in `length` slots from now on (courses × length): now, the forecast as far as
    it goes, then what each of the last days
    had at that time of day; a course that began d days ago repeats after d days.

    past: actual values before now, the latest last. With less than a day of past the forecast's
        last value goes on.
    """
    known = np.concatenate(([now], np.asarray(forecast, float)))[:length]
    days = min(DAYS, len(past) // per_day)
    if len(known) == length or days == 0:
        return np.concatenate((known, np.full(length - len(known), known[-1])))[None]
    began = np.arange(1, days + 1)[:, None] * per_day
    beyond = past[len(past) - began + np.arange(len(known), length) % began]
    return np.concatenate((np.tile(known, (days, 1)), beyond), axis=1)


def fair_shares(
    costs: ArrayLike, budget: float, alpha: float = 1.0, minimum: ArrayLike = 0.0
) -> Floats:
    """How much of the rounds each takes part in, x in [minimum, 1], with Σ costs·x ≤ budget: x ∝
    cost^(−1/α) within the bounds.

    costs: carbon of taking part in all rounds. minimum: of all, or of each. alpha: 0 is the most
        work for the carbon, 1 proportional,
    large: equal shares. Raises ValueError where the budget does not even pay the minimum of all,
        naming how much that is.
    """
    c = np.asarray(costs, float)
    floor = np.broadcast_to(np.asarray(minimum, float), c.shape)
    if (c < 0).any() or alpha < 0 or (floor < 0).any() or (floor > 1).any():
        raise ValueError("costs and alpha must not be negative, and minimum must be a share")
    least = float((c * floor).sum())
    if least > budget * (1 + 1e-12):  # more than rounding
        raise ValueError(f"the minimum of all takes {least:g}, more than the budget of {budget:g}")
    if float(c.sum()) <= budget:
        return np.ones_like(c)
    if alpha < LINEAR:
        return _cheapest_first(c, budget, floor)
    reach = np.exp(
        -np.log(np.maximum(c, 1e-300) / c.max()) / alpha
    )  # 1 for the dearest, more for the others
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        spent = float((c * np.clip(middle * reach, floor, 1.0)).sum())
        low, high = (low, middle) if spent > budget else (middle, high)
    shares: Floats = np.clip(low * reach, floor, 1.0)
    return shares


def _cheapest_first(c: Floats, budget: float, floor: Floats) -> Floats:
    x = np.array(floor)
    left = budget - float((c * floor).sum())
    for i in np.argsort(c, kind="stable"):
        more = min(1.0 - x[i], left / c[i]) if c[i] > 0 else 1.0 - x[i]
        x[i] += more
        left -= more * c[i]
    return x


def _possible(need: int, length: int) -> None:
    if not 0 < need <= length:
        raise ValueError(f"{need} slots are needed, and {length} are there until the deadline")


def greenest_of_day(
    slots: Sequence[tuple[datetime, float, float]], now: datetime, hours: float
) -> tuple[bool, datetime | None]:
    """Whether `now` is in one of the greenest slots of its day that make up `hours`, and when the
    next such slot begins.

    slots: (begin, seconds, g/kWh), times with zone; the day is that of `now` in its own zone. A day
        of which less than `hours` is known is
    not judged: (True, None). The next slot may be on the next day, where that is known; else None.
    """
    chosen: list[tuple[datetime, float, float]] = []
    for day in (now.date(), now.date() + timedelta(days=1)):
        mine = sorted(
            (s for s in slots if s[0].astimezone(now.tzinfo).date() == day),
            key=lambda s: (s[2], s[0]),
        )
        if sum(seconds for _, seconds, _ in mine) < 3600.0 * hours:
            if day == now.date():
                return True, None
            break
        left = 3600.0 * hours
        for slot in mine:
            if left <= 0:
                break
            chosen.append(slot)
            left -= slot[1]
    if any(begin <= now < begin + timedelta(seconds=seconds) for begin, seconds, _ in chosen):
        return True, None
    return False, min((begin for begin, _, _ in chosen if begin > now), default=None)


def emitted(actual: Sequence[float] | Floats, slots: Sequence[int]) -> float:
    """Mean g/kWh of the slots that were worked."""
    return float(np.asarray(actual, float)[list(slots)].mean())
