"""What happens while a federation runs, told as it happens: words for a person; a name, a level and
fields for a machine.

Fields hold counts, names, paths and addresses. Never a key, a token, or anything of a participant's
data.
"""

from typing import Literal, Protocol

Level = Literal["info", "warning", "error"]
Value = str | int | float | bool | None


class EventHandler(Protocol):
    """Told an event. `event` names its kind, in few words with hyphens;

    "note" is one that only a person needs.
    """

    def __call__(
        self, words: str, event: str = "note", level: Level = "info", **fields: Value
    ) -> None:
        """Pass it on; may be called from any thread."""


def ignore_events(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
    """Nobody listens."""
