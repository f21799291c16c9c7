"""How many joules a piece of work took.

The best tiers of this machine win, and every reading names them.

nvml:  the counter of each NVIDIA card on which this process computes (the whole board, busy or waiting, what it draws when idle too, for
       as long as the interval is open; not before or after), added to the processor's part:
rapl:  the processor's own counter (Linux powercap), times this process's share of the processor; or
model: watts per logical CPU times the CPU seconds of this process; an estimate, ±40 %.

Time in which this process computes nothing on the processor is charged to nobody: the figure is
what the work took, not what the processor draws when idle. Not seen: memory, fans, power supply,
and child processes. Two readings open at the same time in two threads of one process both count all
its threads; where work goes on side by side, one thread each, the meter `of_thread` counts only the
CPU time of the thread that reads, so that the parts add up. A counter that vanishes while it is
needed counts up to then (`coverage`), the model from there on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal
from tequio.core.types import Energy, Span
from tequio.measure.sensors import POWERCAP, Counter, Sensor, cards, packages, settle
from tequio.measure.site import Site

WATTS_PER_CORE = 6.25
"""Assumption of the model tier where no `tdp_watts` is given: 350 W / 56 cores, the thermal design
power of
an Intel Xeon Platinum 8480+ (maker's data sheet). Other server processors lie at 3.75 W (AMD EPYC
9654: 360 W / 96) and above.
"""
MODEL_UNCERTAINTY = 0.4  # estimators of this kind were found off by up to 40 % (arXiv 2509.22092)
RAPL_UNCERTAINTY = (
    0.15  # assumption: the counter is good to a few per cent, sharing it by CPU time is not
)
# assumption, for a card that this process has to itself; what others draw on it is counted too
NVML_UNCERTAINTY = 0.05
RESAMPLE_SECONDS = (
    30.0  # a 65 kJ counter wraps after 65 s at 1 kW: never leave it unread for longer
)
# a card's counter moves some ten times a second: an interval may have one step too many or too few
TICK_SECONDS = 0.1
BOUNDARY = "cpu package"


def cpu_share(own: float, busy: float, seconds: float) -> float:
    """The part of a package's energy that is charged to this process, in [0, 1].

    own: CPU seconds of this process; busy: CPU seconds of everything on the machine; seconds: wall
        time. The
    divisor is `busy`, but at least the wall time: a process alone on the machine and computing all
    the time pays the whole package, and one that slept half the time pays half, so idle time is
    charged to nobody.
    """
    divisor = max(own, busy, seconds)
    return own / divisor if divisor > 0 else 0.0


def _busy_seconds() -> float:
    """CPU seconds of all processes since boot.

    Guest time is inside user time on Linux, so it is not added
    again."""
    times = psutil.cpu_times()
    return float(
        sum(
            getattr(times, part, 0.0)
            for part in ("user", "nice", "system", "irq", "softirq", "steal")
        )
    )


@dataclass
class Reading:
    """One interval.

    `energy` is what was used so far, and fixed once the `with` block has ended. gpu: None where
    cards are not counted.
    """

    _watts: float
    _cpu: Counter | None
    _gpu: Counter | None
    _uncounted: bool
    _clock: Callable[[], float]
    _own: float
    _site: Site = field(default_factory=Site)
    _host: float | None = None
    _began: datetime = field(default_factory=lambda: datetime.now(UTC))
    _wall: float = field(default_factory=time.perf_counter)
    _busy: float = field(default_factory=_busy_seconds)
    _final: Energy | None = None

    @property
    def energy(self) -> Energy:
        """Joules, seconds of wall time, how they are known, and what the place adds."""
        return self._final or self._site.placed(self._now(), self._began)

    def _now(self) -> Energy:
        seconds = time.perf_counter() - self._wall
        found = self._processor(seconds)
        if self._uncounted:
            return replace(found, boundary=f"{BOUNDARY}, gpu not counted")
        if self._gpu is None:
            return found
        joules, coverage = self._gpu.joules(), self._gpu.coverage()
        board = (
            joules / coverage if coverage > 0 else 0.0
        )  # a card that is lost is taken to draw on as it did
        whole, hosted = board + found.joules, None if found.hosted is None else board + found.hosted
        unsure = (
            NVML_UNCERTAINTY * joules
            + MODEL_UNCERTAINTY * (board - joules)
            + found.uncertainty * found.joules
        )
        return replace(
            found,
            joules=whole,
            method=f"nvml + {found.method}",
            boundary=f"gpu board + {BOUNDARY}",
            uncertainty=min(
                1.0, (unsure / whole if whole else 0.0) + TICK_SECONDS / max(seconds, 1e-9)
            ),
            coverage=min(coverage, found.coverage),
            hosted=hosted,
        )

    def _processor(self, seconds: float) -> Energy:
        own = self._clock() - self._own
        if self._cpu is None:
            hosted = None if self._host is None else self._host * own
            return Energy(
                self._watts * own, seconds, "model", BOUNDARY, MODEL_UNCERTAINTY, hosted=hosted
            )
        package, known = self._cpu.joules(), self._cpu.coverage()
        counted = package * cpu_share(
            own * known, (_busy_seconds() - self._busy) * known, seconds * known
        )
        if not self._cpu.lost:
            return Energy(counted, seconds, "rapl", BOUNDARY, RAPL_UNCERTAINTY)
        modelled = self._watts * own * (1.0 - known)
        whole = counted + modelled
        unsure = RAPL_UNCERTAINTY * counted + MODEL_UNCERTAINTY * modelled
        width = unsure / whole if whole else MODEL_UNCERTAINTY
        hosted = None if self._host is None else counted + self._host * own * (1.0 - known)
        return Energy(whole, seconds, "rapl, then model", BOUNDARY, width, known, hosted=hosted)


@dataclass(frozen=True)
class Meter:
    """Measures intervals with the best tier of this machine.

    `watts` is per logical CPU, for the model tier.

    The counters are read at least every `resample_seconds`, so that none wraps twice unseen.
    `clock` says whose CPU
    seconds are charged: those of this process, or of the thread that measures. `site` says where
        the machine stands.
    `host`: the watts of the machine that simulates one of other `watts`.
    `cards` are asked for at the beginning of each interval, for a GPU may be taken into use late.
    """

    watts: float
    domains: tuple[Sensor, ...] = ()
    resample_seconds: float = RESAMPLE_SECONDS
    clock: Callable[[], float] = time.process_time
    site: Site = field(default_factory=Site)
    host: float | None = None
    cards: Callable[[], tuple[Sensor, ...] | None] = cards

    def of_thread(self) -> Meter:
        """The same for work that stays in the thread that measures it (and starts no threads of its
        own).
        """
        return replace(self, clock=time.thread_time)

    def at(self, hours: tuple[Span, ...]) -> Meter:
        """The same for work at these hours of simulated time; none: the time on the wall."""
        return replace(self, site=self.site.at(hours)) if hours else self

    @property
    def method(self) -> str:
        """The tier in use: rapl or model."""
        return "rapl" if self.domains else "model"

    @contextmanager
    def measure(self) -> Iterator[Reading]:
        """Measure the `with` block; a block that raises is measured too.

        A sensor that vanishes falls back to
        the model."""
        settle()  # what the cards were given before is not of this interval
        boards = self.cards()
        cpu = Counter(self.domains) if self.domains else None
        gpu = Counter(boards) if boards else None
        clock, done = self.clock, threading.Event()
        reading = Reading(
            self.watts, cpu, gpu, boards is None, clock, clock(), self.site, self.host
        )
        counters = [counter for counter in (cpu, gpu) if counter]
        arguments = (counters, done, self.resample_seconds)
        sampler = (
            threading.Thread(target=_resample, args=arguments, daemon=True) if counters else None
        )
        if sampler:
            sampler.start()
        try:
            yield reading
        finally:
            settle()
            reading._final = reading.energy
            done.set()
            if sampler:
                sampler.join()


def _resample(counters: list[Counter], done: threading.Event, seconds: float) -> None:
    while not done.wait(seconds):
        for counter in counters:
            counter.sample()


def open_meter(
    tdp_watts: float | None = None,
    powercap: Path = POWERCAP,
    cores: int | None = None,
    site: Site | None = None,
) -> Meter:
    """The best meter of this machine: RAPL where its counters can be read, else the model.

    tdp_watts: thermal design power of the processor, for the model tier. cores: the logical CPUs
        that this
    power feeds, by default those this machine shows; give it on a virtual machine, which shows only
    some of its host's. Raises ConfigError when either is not positive.
    """
    for key, value in (("tdp_watts", tdp_watts), ("cores", cores)):
        if value is not None and not 0 < value < float("inf"):
            raise refusal(ConfigError, "not-above-zero", key=key, value=str(value))
    logical = psutil.cpu_count() or os.cpu_count() or 1
    if tdp_watts is None:
        watts = WATTS_PER_CORE * (psutil.cpu_count(logical=False) or logical) / logical
    else:
        watts = tdp_watts / (cores or logical)
    return Meter(watts, packages(powercap), site=site or Site())
