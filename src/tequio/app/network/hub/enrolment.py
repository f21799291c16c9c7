"""Who belongs to a federation while its coordinator runs: who joins, leaves, is invited anew.

The folder is what counts (folder.py): it is read each time, so `tequio coordinator invite` needs no
coordinator that is stopped. SuperLink
follows it: the node of a key that counts no more is unregistered.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread

from tequio.app.network.hub.folder import (
    WITHDRAWN,
    changing,
    check_enrolment,
    withdrawn,
    write_enrolment,
    write_leave,
)
from tequio.core.errors import NetworkError
from tequio.core.events import EventHandler
from tequio.runtimes.flower.superlink import Server, register, unregister

LOOK = 1.0  # seconds between two looks at whether somebody was invited anew


@dataclass(frozen=True)
class Membership:
    """What the gateway asks about people."""

    folder: Path
    server: Server
    say: EventHandler
    _lock: Lock = field(default_factory=Lock)

    def enrol(self, name: str, token: str, public_key: str) -> int:
        """The number of who joins. Raises NetworkError to refuse."""
        with changing(self.folder):
            check_enrolment(self.folder, name, token, public_key)
            node = register(self.server, public_key.encode())
            write_enrolment(self.folder, name, public_key, node)
            return node

    def leave(self, wanted: dict[str, str]) -> None:
        """One leaves. Raises NetworkError to refuse."""
        with changing(self.folder):
            write_leave(self.folder, wanted)
        self.say(f"{wanted['name']} left the federation.", "left", participant=wanted["name"])
        self.tidy()

    def tidy(self) -> None:
        """Unregister who has a key that counts no more."""
        with self._lock:
            names = {key.encode(): name for key, name in withdrawn(self.folder).items()}
            for key in unregister(self.server, names) if names else []:
                self.say(
                    f"The key with which {names[key]} joined counts no more.",
                    "withdrawn",
                    participant=names[key],
                )

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Tidy now, and whenever `tequio coordinator invite` changes the folder."""
        over, path = Event(), self.folder / WITHDRAWN
        seen = _changed(path)
        try:
            self.tidy()
        except NetworkError:  # SuperLink is started again: the watch tidies then
            seen = -1

        def look() -> None:
            nonlocal seen
            while not over.wait(LOOK):
                if _changed(path) != seen:
                    with suppress(NetworkError):  # looked at again
                        now = _changed(path)
                        self.tidy()
                        seen = now

        thread = Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(10.0)


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0
