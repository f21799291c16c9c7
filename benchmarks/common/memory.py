"""The memory of this process: now, its peak, and its peak over a while."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread


class Watch:
    """The most memory of this process since it began: anonymous, and resident in all; bytes."""

    def __init__(self) -> None:
        self.anonymous, self.resident, self._over = 0, 0, Event()
        self.start = self._read()
        Thread(target=self._look, daemon=True).start()

    def _read(self) -> tuple[int, int]:
        return status_bytes("RssAnon"), status_bytes("VmRSS")

    def _look(self) -> None:
        while not self._over.wait(0.02):
            now = self._read()
            self.anonymous, self.resident = max(self.anonymous, now[0]), max(self.resident, now[1])

    def end(self) -> tuple[int, int]:
        """(anonymous, resident) over the start."""
        self._over.set()
        return self.anonymous - self.start[0], self.resident - self.start[1]


def status_bytes(key: str) -> int:
    """What the kernel says of this process: VmRSS now, VmHWM at the peak.

    (getrusage would also count the process that started it.)
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024


def peak_bytes() -> int:
    """Return the most memory that this process ever had resident."""
    return status_bytes("VmHWM")
