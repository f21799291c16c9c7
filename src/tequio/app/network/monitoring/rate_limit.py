"""A limit for events that the other side causes: a few are logged one by one, the others are
counted.

Strangers decide how many refusals the gateway has: without a bound a scanner could fill the disk
with our log. For each reason its own bound, so that many wrong paths do not hide one wrong token. A
participant that is barred whenever it connects is bounded alike. At a participant the coordinator
decides how many messages come, and each event that comes of them has its own bound. The counts are
logged.
"""

import time
from collections.abc import Callable, Collection
from threading import Lock

from tequio.core.events import EventHandler, Level, Value

BURST = 60.0  # told at once
EACH = 10.0  # seconds for each more
EVENT, BARRED = "refused", "barred"
BY_COORDINATOR = frozenset(
    (
        "connected",
        "disconnected",
        "received",
        "task",
        "task-failed",
        "task-dropped",
        "departed",
        "message-refused",
        "sent",
    )
)  # events at a participant of which the coordinator decides how many there are


class Throttle:
    """Pass events on, except refusals, and the kinds in `events`, beyond the limit."""

    def __init__(
        self,
        passed_on: EventHandler,
        clock: Callable[[], float] = time.monotonic,
        events: Collection[str] = (),
    ) -> None:
        self._events = frozenset(events)
        self._passed_on, self._clock, self._lock = passed_on, clock, Lock()
        self._free: dict[
            str, tuple[float, float]
        ] = {}  # reason -> how many may be told, as of when
        self._held: dict[str, int] = {}  # reason -> how many were not told

    def __call__(
        self, words: str, event: str = "note", level: Level = "info", **fields: Value
    ) -> None:
        """Pass it on, or count it."""
        bounded = {
            EVENT: fields.get("reason"),
            BARRED: f"{fields.get('participant')} barred",
            **{name: name for name in self._events},
        }
        if event not in bounded or self._may(str(bounded[event])):
            self._passed_on(words, event, level, **fields)

    def flush(self) -> None:
        """Log how many events were not logged since the last call."""
        with self._lock:
            held, self._held = self._held, {}
        for reason, count in sorted(held.items()):
            if reason in self._events:
                words = f"{count} more events of the kind {reason!r}, not logged one by one"
                self._passed_on(words, "events-more", "info", reason=reason, count=count)
            else:
                words = f"refused: {count} more requests ({reason}), not logged one by one"
                self._passed_on(words, "refused-more", "warning", reason=reason, count=count)

    def _may(self, reason: str) -> bool:
        with self._lock:
            now = self._clock()
            free, at = self._free.get(reason, (BURST, now))
            free = min(BURST, free + (now - at) / EACH)
            passes = free >= 1.0
            self._free[reason] = (free - passes, now)
            if not passes:
                self._held[reason] = self._held.get(reason, 0) + 1
            return passes
