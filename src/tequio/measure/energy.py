"""How many joules a piece of work took. The best tier of this machine wins, and every reading names it.

rapl:  the processor's own counter (Linux powercap), times this process's share of the processor.
model: watts per logical CPU times the CPU seconds of this process; an estimate, ±40 %.

Time in which this process computes nothing is charged to nobody: the figure is what the work took, not what
the machine draws when idle. Not seen: memory, GPU, fans, power supply, and child processes. Two readings open
at the same time in two threads of one process both count all its threads; where work goes on side by side, one
thread each, the meter `of_thread` counts only the CPU time of the thread that reads, so that the parts add up.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil

from tequio.core.errors import ConfigError
from tequio.core.types import Energy
from tequio.measure.site import Site

POWERCAP = Path("/sys/class/powercap")
WATTS_PER_CORE = 6.25
"""Assumption of the model tier where no `tdp_watts` is given: 350 W / 56 cores, the thermal design power of
an Intel Xeon Platinum 8480+ (maker's data sheet). Other server processors lie at 3.75 W (AMD EPYC 9654: 360 W
/ 96) and above."""
MODEL_UNCERTAINTY = 0.4  # estimators of this kind were found off by up to 40 % (arXiv 2509.22092)
RAPL_UNCERTAINTY = 0.15  # assumption: the counter is good to a few per cent, sharing it by CPU time is not
RESAMPLE_SECONDS = 30.0  # a 65 kJ counter wraps after 65 s at 1 kW: never leave it unread for longer
BOUNDARY = "cpu package"
_PACKAGE = re.compile(r"intel-rapl:\d+")  # not intel-rapl:0:0 (a part of 0) and not intel-rapl-mmio:0 (0 once more)


@dataclass(frozen=True)
class _Domain:
    """One package's counter in microjoules; it goes back to 0 after `span`."""

    path: Path
    span: int

    def read(self) -> int:
        return int((self.path / "energy_uj").read_text())


class _Counter:
    """Joules of all packages since construction, wrap-around undone. `joules()` is None for ever once a read
    has failed."""

    def __init__(self, domains: tuple[_Domain, ...]) -> None:
        self._domains, self._lock, self._total = domains, threading.Lock(), 0
        self._last: list[int] | None = None
        self._last = self._read()

    def _read(self) -> list[int] | None:
        try:
            return [domain.read() for domain in self._domains]
        except (OSError, ValueError):
            return None

    def joules(self) -> float | None:
        with self._lock:
            now = self._read() if self._last is not None else None
            if now is not None and self._last is not None:
                steps = zip(self._last, now, self._domains, strict=True)
                self._total += sum(unwrap(before, after, domain.span) for before, after, domain in steps)
            self._last = now
            return None if now is None else self._total / 1e6


def unwrap(before: int, after: int, span: int) -> int:
    """Microjoules between two reads of a counter that returns to 0 after `span` and wrapped at most once
    between them."""
    return after - before if after >= before else after - before + span


def cpu_share(own: float, busy: float, seconds: float) -> float:
    """The part of a package's energy that is charged to this process, in [0, 1].

    own: CPU seconds of this process; busy: CPU seconds of everything on the machine; seconds: wall time. The
    divisor is `busy`, but at least the wall time: a process alone on the machine and computing all the time
    pays the whole package, and one that slept half the time pays half, so idle time is charged to nobody.
    """
    divisor = max(own, busy, seconds)
    return own / divisor if divisor > 0 else 0.0


def _busy_seconds() -> float:
    """CPU seconds of all processes since boot. Guest time is inside user time on Linux, so it is not added
    again."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, part, 0.0) for part in ("user", "nice", "system", "irq", "softirq", "steal")))


@dataclass
class Reading:
    """One interval. `energy` is what was used so far, and fixed once the `with` block has ended."""

    _watts: float
    _counter: _Counter | None
    _clock: Callable[[], float]
    _own: float
    _site: Site = field(default_factory=Site)
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
        own = self._clock() - self._own
        package = self._counter.joules() if self._counter else None
        if package is not None:
            joules = package * cpu_share(own, _busy_seconds() - self._busy, seconds)
            return Energy(joules, seconds, "rapl", BOUNDARY, RAPL_UNCERTAINTY)
        method = "model (rapl lost)" if self._counter else "model"
        return Energy(self._watts * own, seconds, method, BOUNDARY, MODEL_UNCERTAINTY)


@dataclass(frozen=True)
class Meter:
    """Measures intervals with the best tier of this machine. `watts` is per logical CPU, for the model tier.

    The counters are read at least every `resample_seconds`, so that none wraps twice unseen. `clock` says whose CPU
    seconds are charged: those of this process, or of the thread that measures. `site` says where the machine stands.
    """

    watts: float
    domains: tuple[_Domain, ...] = ()
    resample_seconds: float = RESAMPLE_SECONDS
    clock: Callable[[], float] = time.process_time
    site: Site = field(default_factory=Site)

    def of_thread(self) -> Meter:
        """The same for work that stays in the thread that measures it (and starts no threads of its own)."""
        return replace(self, clock=time.thread_time)

    @property
    def method(self) -> str:
        """The tier in use: rapl or model."""
        return "rapl" if self.domains else "model"

    @contextmanager
    def measure(self) -> Iterator[Reading]:
        """Measure the `with` block; a block that raises is measured too. A sensor that vanishes falls back to
        the model."""
        counter = _Counter(self.domains) if self.domains else None
        reading, done = Reading(self.watts, counter, self.clock, self.clock(), self.site), threading.Event()
        sampler = None
        if counter:
            arguments = (counter, done, self.resample_seconds)
            sampler = threading.Thread(target=_resample, args=arguments, daemon=True)
            sampler.start()
        try:
            yield reading
        finally:
            reading._final = reading.energy
            done.set()
            if sampler:
                sampler.join()


def _resample(counter: _Counter, done: threading.Event, seconds: float) -> None:
    while not done.wait(seconds):
        counter.joules()


def open_meter(
    tdp_watts: float | None = None,
    powercap: Path = POWERCAP,
    cores: int | None = None,
    site: Site | None = None,
) -> Meter:
    """The best meter of this machine: RAPL where its counters can be read, else the model.

    tdp_watts: thermal design power of the processor, for the model tier. cores: the logical CPUs that this
    power feeds, by default those this machine shows; give it on a virtual machine, which shows only some of
    its host's. Raises ConfigError when either is not positive.
    """
    for key, value in (("tdp_watts", tdp_watts), ("cores", cores)):
        if value is not None and not 0 < value < float("inf"):
            fix = "Give the figure of the processor's data sheet, or leave it out."
            raise ConfigError(f"{key} = {value}:", "expected a number above 0.", fix)
    logical = psutil.cpu_count() or os.cpu_count() or 1
    if tdp_watts is None:
        watts = WATTS_PER_CORE * (psutil.cpu_count(logical=False) or logical) / logical
    else:
        watts = tdp_watts / (cores or logical)
    return Meter(watts, _packages(powercap), site=site or Site())


def _packages(powercap: Path) -> tuple[_Domain, ...]:
    """The readable package counters, without their parts, and without `psys`, which contains them. All or
    none."""
    domains = []
    for path in sorted(powercap.glob("intel-rapl:*")):
        if not _PACKAGE.fullmatch(path.name):
            continue
        try:
            if not (path / "name").read_text().startswith("package"):
                continue
            domain = _Domain(path, int((path / "max_energy_range_uj").read_text()))
            domain.read()
        except (OSError, ValueError):
            return ()  # half of the packages would be half of the truth
        domains.append(domain)
    return tuple(domains)
