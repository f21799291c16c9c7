"""Carbon-aware rounds in simulated time: who takes part, in which hours each works, and when the
next round begins.

State in, state out, from configuration and files of intensities alone: a run that was cut off
decides the same again. Each works in the greenest slots before the round's deadline, chosen one by
one by what was known at the time (`planning.shift.greedy`); the round ends when the last is done.
With a budget each has an α-fair share of the rounds that remain; shares are saved up (as in error
diffusion) until they make a round, and what a minimum of rounds still costs is set aside first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import numpy as np

from tequio.core.types import Span
from tequio.measure.carbon_forecast import CarbonForecast, Floats
from tequio.measure.site import JOULES_A_KWH
from tequio.planning.carbon_aware import DAYS, courses, fair_shares, greedy

DAY = 86_400.0  # seconds
NEARLY = 1e-9  # of a round: rounding of shares that add up to one


@dataclass(frozen=True)
class Terms:
    """What was agreed. slot, deadline: seconds. shifted: else all work at once. rounds: those in
    which participants take part.

    grams: what participants' training may emit at rated power, None for no budget; minimum: share
        of the rounds that each takes part
    in whatever it emits; quorum: participants without whom no round is made.
    """

    begin: datetime
    slot: float
    deadline: float
    shifted: bool
    rounds: int
    grams: float | None = None
    alpha: float = 1.0
    minimum: float = 0.0
    quorum: int = 1

    @property
    def least(self) -> int:
        """Rounds that each takes part in."""
        return math.ceil(self.minimum * self.rounds - NEARLY)


@dataclass(frozen=True)
class Worker:
    """Who works: seconds a round, watts while it does (rated, PUE inside; only for a budget), and
    what is known of its electricity.
    """

    seconds: float
    watts: float
    outlook: CarbonForecast

    def grams(self, intensity: float) -> float:
        """Of one round's work, at rated power."""
        return self.watts * self.seconds / JOULES_A_KWH * intensity


@dataclass(frozen=True)
class Clock:
    """After some rounds. now: simulated; plain: the same had all worked at once.

    By participant: grams at rated power as they were (used) and as they were expected (hoped),
    rounds that it took part in, and its share saved up, in rounds.
    """

    now: datetime
    plain: datetime
    used: Mapping[str, float] = field(default_factory=dict)
    hoped: Mapping[str, float] = field(default_factory=dict)
    made: Mapping[str, int] = field(default_factory=dict)
    saved: Mapping[str, float] = field(default_factory=dict)

    @property
    def spent(self) -> float:
        """Grams of all."""
        return math.fsum(self.used.values())

    def dearer(self, name: str) -> float:
        """What its rounds emitted over what was expected of them: what is known beforehand
        flatters.
        """
        hoped = self.hoped.get(name, 0.0)
        return self.used[name] / hoped if hoped else 1.0

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        times = {"now": self.now.isoformat(), "plain": self.plain.isoformat()}
        by_name = {"used": self.used, "hoped": self.hoped, "made": self.made, "saved": self.saved}
        return {
            **times,
            "spent": self.spent,
            **{key: dict(value) for key, value in by_name.items()},
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Clock:
        """The inverse of `facts`."""
        now, plain = (datetime.fromisoformat(facts[key]) for key in ("now", "plain"))
        return cls(now, plain, facts["used"], facts["hoped"], facts["made"], facts["saved"])


@dataclass(frozen=True)
class Work:
    """Of one in a round: its hours, g/kWh there, and g/kWh had nobody been shifted."""

    hours: tuple[Span, ...]
    intensity: float
    at_once: float


def opening(terms: Terms, participants: Sequence[str]) -> Clock:
    """Before the first round.

    Shares begin unequally saved up, so that not all sit out the same round.
    """
    many = len(participants)
    return Clock(
        terms.begin,
        terms.begin,
        saved={name: (i + 0.5) / many for i, name in enumerate(participants)},
    )


def advance(
    clock: Clock,
    round_: int,
    workers: Mapping[str, Worker],
    participants: Sequence[str],
    terms: Terms,
) -> tuple[Clock, dict[str, Work]] | None:
    """The clock after round `round_` of those in which participants take part, and the work of who
    takes part;

    None: the budget is spent.

    workers: by name, in order; who of them is none of `participants` (the centre) takes part in any
        case.
    """
    after, taking, costs = clock, list(participants), dict[str, float]()
    if participants and terms.grams is not None:
        costs = work_costs(clock, workers, participants, terms)
        found = _taking(
            clock, round_, {name: clock.dearer(name) * cost for name, cost in costs.items()}, terms
        )
        if found is None:
            return None
        taking, after = found
    part = {
        name: worker
        for name, worker in workers.items()
        if name in taking or name not in participants
    }
    work = {name: _work(worker, clock, terms) for name, worker in part.items()}
    longest = timedelta(seconds=max((w.seconds for w in part.values()), default=0.0))
    made = _added(clock.made, dict.fromkeys(taking, 1))
    used = _added(clock.used, {name: workers[name].grams(work[name].intensity) for name in taking})
    hoped = _added(clock.hoped, {name: costs[name] for name in taking if name in costs})
    now = max([_end(one.hours[-1]) for one in work.values()], default=clock.now)
    return replace(
        after, now=now, plain=clock.plain + longest, used=used, hoped=hoped, made=made
    ), work


Number = TypeVar("Number", int, float)


def _added(so_far: Mapping[str, Number], more: Mapping[str, Number]) -> dict[str, Number]:
    return {
        **so_far,
        **{name: so_far[name] + value if name in so_far else value for name, value in more.items()},
    }


def work_costs(
    clock: Clock, workers: Mapping[str, Worker], participants: Sequence[str], terms: Terms
) -> dict[str, float]:
    """Grams that the next round is expected to take of each, at rated power."""
    return {
        name: workers[name].grams(_expected(workers[name], clock.now, terms))
        for name in participants
    }


def _taking(
    clock: Clock, round_: int, costs: Mapping[str, float], terms: Terms
) -> tuple[list[str], Clock] | None:
    """Who takes part, in order, and the clock with the shares that are then saved up;

    None where nobody may.
    """
    whole, remain = terms.grams or 0.0, terms.rounds - round_ + 1
    left = whole * (1.0 + NEARLY) - clock.spent
    owed = {name: max(0, terms.least - clock.made.get(name, 0)) for name in costs}
    aside = math.fsum(costs[name] * n for name, n in owed.items())
    shares = _shares(costs, owed, left, remain, terms.alpha)
    saved = {name: clock.saved.get(name, 0.0) + x for name, x in shares.items()}
    taking: set[str] = {name for name, n in owed.items() if n >= remain}
    due = sorted(
        (name for name in costs if saved[name] >= 1.0 - NEARLY),
        key=lambda name: (-shares[name], -saved[name]),
    )
    for name in (
        *due,
        *sorted(costs, key=lambda name: -saved[name]),
    ):  # then whoever is next, up to a quorum
        more = 0.0 if owed[name] else costs[name]
        wanted = name not in taking and (saved[name] >= 1.0 - NEARLY or len(taking) < terms.quorum)
        if wanted and (more == 0.0 or aside + more <= left):
            taking.add(name)
            aside += more
    if len(taking) < terms.quorum:
        return None
    saved = {name: x - (name in taking) for name, x in saved.items()}
    return [name for name in costs if name in taking], replace(clock, saved=saved)


def _shares(
    costs: Mapping[str, float], owed: Mapping[str, int], left: float, remain: int, alpha: float
) -> dict[str, float]:
    """Of the rounds that remain, how much of one each may take part in: α-fair within the budget,
    never less than it is owed.
    """
    least = np.array([min(1.0, owed[name] / remain) for name in costs])
    whole = np.array([cost * remain for cost in costs.values()])
    if float((whole * least).sum()) >= left:  # it was dearer than expected: what is owed is all
        return dict(zip(costs, least.tolist(), strict=True))
    return dict(zip(costs, fair_shares(whole, left, alpha, least).tolist(), strict=True))


def _expected(worker: Worker, now: datetime, terms: Terms) -> float:
    """g/kWh that this round's work is expected to have."""
    need = needed_slots(worker.seconds, terms)
    if not terms.shifted:
        return float(_Ahead(worker, now, need, terms)(0).mean())
    return float(
        np.sort(_Ahead(worker, now, slots_per_day(terms), terms)(0), axis=1)[:, :need].mean()
    )


def _work(worker: Worker, clock: Clock, terms: Terms) -> Work:
    site, begin = worker.outlook.site, clock.now
    hours: tuple[Span, ...] = (Span(begin.isoformat(), worker.seconds),)
    if terms.shifted:
        length = slots_per_day(terms)
        slots = greedy(
            length, needed_slots(worker.seconds, terms), _Ahead(worker, begin, length, terms)
        )
        hours = _spans(slots, worker, begin, terms)
    at_once = site.intensity(clock.plain, worker.seconds)
    intensity = site.over(hours)
    if intensity is None or at_once is None:
        raise ValueError(
            "the intensities end before the rounds do"
        )  # looked at before the run: see app/assembly/carbon_schedule.py
    return Work(hours, intensity, at_once)


class _Ahead:
    """What may come in the slots from t on, as known at slot t: courses × slots."""

    def __init__(self, worker: Worker, begin: datetime, length: int, terms: Terms) -> None:
        self.outlook, self.begin, self.length, self.slot = worker.outlook, begin, length, terms.slot
        self.per_day = round(DAY / terms.slot)
        self.past = worker.outlook.past(begin, DAYS * self.per_day, terms.slot)
        self.values = worker.outlook.values(begin, length, terms.slot)

    def __call__(self, t: int) -> Floats:
        now, left = self.begin + timedelta(seconds=t * self.slot), self.length - t
        forecast = self.outlook.forecast(now, left - 1, self.slot)
        past = np.concatenate((self.past, self.values[:t]))[-DAYS * self.per_day :]
        return courses(past, float(self.values[t]), forecast, left, self.per_day)


def _spans(slots: Sequence[int], worker: Worker, begin: datetime, terms: Terms) -> tuple[Span, ...]:
    """Whole slots but for the last, neighbours as one."""
    out: list[tuple[float, float]] = []
    left = worker.seconds
    for slot in slots:
        at, long = slot * terms.slot, min(terms.slot, left)
        left -= long
        if out and out[-1][0] + out[-1][1] == at:
            out[-1] = (out[-1][0], out[-1][1] + long)
        else:
            out.append((at, long))
    return tuple(Span((begin + timedelta(seconds=at)).isoformat(), long) for at, long in out)


def _end(span: Span) -> datetime:
    return datetime.fromisoformat(span.begin) + timedelta(seconds=span.seconds)


def needed_slots(seconds: float, terms: Terms) -> int:
    """Slots of so much work."""
    return max(1, math.ceil(seconds / terms.slot - NEARLY))


def slots_per_day(terms: Terms) -> int:
    """Slots until the deadline."""
    return math.floor(terms.deadline / terms.slot + NEARLY)
