"""The counters of energy that a machine has:

RAPL of the processor's packages (Linux powercap), NVML of NVIDIA cards.

Each counts microjoules and wraps; `Counter` adds them up and remembers until when they could be
read.
"""

import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch

POWERCAP = Path("/sys/class/powercap")
AT_ONCE = 0.01  # seconds: a card's counter moves some ten times a second
_PACKAGE = re.compile(
    r"intel-rapl:\d+"
)  # not intel-rapl:0:0 (a part of 0) and not intel-rapl-mmio:0 (0 once more)


class Sensor(Protocol):
    """One counter."""

    @property
    def span(self) -> int:
        """It goes back to 0 after so many microjoules."""

    def read(self) -> int:
        """Microjoules since some time.

        Raises OSError or ValueError where it cannot be read any more.
        """


@dataclass(frozen=True)
class Package:
    """A processor package's counter."""

    path: Path
    span: int

    def read(self) -> int:
        """Microjoules."""
        return int((self.path / "energy_uj").read_text())


@dataclass(frozen=True)
class Card:
    """An NVIDIA card's own counter, in millijoules: the whole board, since its driver was
    loaded.

    Any thread may read it.
    """

    library: Any
    handle: Any
    span: int = 2**63
    last: list[tuple[float, int]] = field(default_factory=list, compare=False)

    def read(self) -> int:
        """Microjoules.

        A read takes milliseconds: those that follow at once, of others who measure too, have the
        same answer.
        """
        now = time.perf_counter()
        if self.last and now - self.last[0][0] < AT_ONCE:
            return self.last[0][1]
        try:
            found = 1000 * int(self.library.nvmlDeviceGetTotalEnergyConsumption(self.handle))
        except self.library.NVMLError as error:
            raise OSError(str(error)) from None
        self.last[:] = [(time.perf_counter(), found)]
        return found


class Counter:
    """Joules of all sensors since construction, wrap-around undone.

    Once a read has failed it stays where it was.
    """

    def __init__(self, sensors: Sequence[Sensor]) -> None:
        self._sensors, self._lock, self._total = sensors, threading.Lock(), 0
        self._began = self._until = time.perf_counter()
        self._last: list[int] | None = self._read()
        self.lost = self._last is None

    def _read(self) -> list[int] | None:
        try:
            return [sensor.read() for sensor in self._sensors]
        except (OSError, ValueError):
            return None

    def sample(self) -> None:
        """Read all sensors. To be called often enough that none wraps twice in between."""
        with self._lock:
            now = None if self.lost else self._read()
            if now is None or self._last is None:
                self.lost = True
                return
            steps = zip(self._last, now, self._sensors, strict=True)
            self._total += sum(
                unwrap(before, after, sensor.span) for before, after, sensor in steps
            )
            self._last, self._until = now, time.perf_counter()

    def joules(self) -> float:
        """Up to the last read that succeeded; reads once more."""
        self.sample()
        return self._total / 1e6

    def coverage(self) -> float:
        """Share of the time since construction up to the last read that succeeded; 1 while it
        works.
        """
        if not self.lost:
            return 1.0
        return (self._until - self._began) / max(time.perf_counter() - self._began, 1e-9)


def unwrap(before: int, after: int, span: int) -> int:
    """Microjoules between two reads of a counter that returns to 0 after `span` and wrapped at most
    once between them.
    """
    return after - before if after >= before else after - before + span


def packages(powercap: Path) -> tuple[Package, ...]:
    """The readable package counters, without their parts, and without `psys`, which contains
    them.

    All or none.
    """
    found = []
    for path in sorted(powercap.glob("intel-rapl:*")):
        if not _PACKAGE.fullmatch(path.name):
            continue
        try:
            if not (path / "name").read_text().startswith("package"):
                continue
            package = Package(path, int((path / "max_energy_range_uj").read_text()))
            package.read()
        except (OSError, ValueError):
            return ()  # half of the packages would be half of the truth
        found.append(package)
    return tuple(found)


def cards() -> tuple[Sensor, ...] | None:
    """The counters of the GPUs on which this process computes: none without such;

    None where it does and they cannot be read.

    They are those on which it holds memory, not all that it sees: what another process computes on
    is that one's. NVML comes with NVIDIA's driver, its Python package (nvidia-ml-py) with the extra
    `gpu`.
    """
    found = [board(i) for i in _used()]
    known = tuple(card for card in found if card is not None)
    return known if len(known) == len(found) else None


@cache
def board(index: int) -> Card | None:
    """The card that torch calls `index`, which CUDA_VISIBLE_DEVICES may have renumbered;

    None where its counter cannot be read.
    """
    try:
        import pynvml  # here, for machines without a card do without it
    except ImportError:
        return None
    return find_card(pynvml, str(torch.cuda.get_device_properties(index).uuid))


def find_card(library: Any, uuid: str) -> Card | None:
    """The card of this identity, as torch (8-4-4-4-12 digits) or NVML ("GPU-" before them)
    writes it;

    None where its counter cannot be
    read: an old card has none, and a part of a card no such name."""
    try:
        library.nvmlInit()
        card = Card(
            library,
            library.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"),
        )
        card.read()
    except (library.NVMLError, OSError):
        return None
    return card


def settle() -> None:
    """Wait until the cards have done what this process gave them: calls return before that."""
    for i in _used():
        torch.cuda.synchronize(i)


def _used() -> list[int]:
    """The cards on which this process holds memory, as torch numbers them."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return []
    return [i for i in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(i)]
