"""When a participant's work is done: after the coordinator confirmed its personal model."""

from collections.abc import Mapping
from threading import Event, Timer

from tequio.app.saved_models import recorded_personal
from tequio.core.events import EventHandler, Level, Value
from tequio.ledger.record import Ledger

LINGER = 5.0
DELIVERED = "delivered"  # the record of that
ENDING = ("recorded", "disconnected", "over")  # events that matter to when it ends


class Ending:
    """End a participant's work some seconds after the coordinator confirmed the personal model.

    A sent answer is no confirmation: a coordinator that is killed then has not recorded the model,
    and asks again when it is started. Until then the participant retries an absent coordinator
    without limit.
    """

    def __init__(
        self, ledger: Ledger, stop: Event, passed_on: EventHandler, linger: float = LINGER
    ) -> None:
        self._ledger, self._stop, self._passed_on, self._linger = ledger, stop, passed_on, linger
        if ledger.last(DELIVERED) is not None:
            self._soon()

    def tell(self, words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        """Handle one event, and pass it on."""
        words += self._note(event, fields)
        self._passed_on(words, event, level, **fields)

    def _note(self, event: str, fields: Mapping[str, Value]) -> str:
        """Record a confirmation; return what to add to an event's words where there is none yet."""
        made = recorded_personal(self._ledger, alone=False) if event in ENDING else None
        if made is None or self._ledger.last(DELIVERED) is not None:
            return ""
        if event == "disconnected":
            return "; the personal model is made, but the coordinator has not confirmed it"
        if event == "over":
            return "; it did not confirm that it recorded the personal model, which is stored here"
        if fields.get("digest") == made["digest"]:
            self._ledger.append(DELIVERED, {})
            self._soon()
        return ""

    def _soon(self) -> None:
        timer = Timer(self._linger, self._stop.set)
        timer.daemon = True
        timer.start()
