"""The peak of this process's memory over a while, looked at fifty times a second."""

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
        rows = dict(
            line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if line[:3] in ("VmR", "Rss")
        )
        kilobytes = {key: int(value.split()[0]) for key, value in rows.items()}
        return kilobytes["RssAnon"] * 1024, kilobytes["VmRSS"] * 1024

    def _look(self) -> None:
        while not self._over.wait(0.02):
            now = self._read()
            self.anonymous, self.resident = max(self.anonymous, now[0]), max(self.resident, now[1])

    def end(self) -> tuple[int, int]:
        """(anonymous, resident) over the start."""
        self._over.set()
        return self.anonymous - self.start[0], self.resident - self.start[1]
