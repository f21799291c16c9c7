"""Show rows of a file on the owner's own screen, because they asked for it (`tequio data look
--show N`).
"""

from collections.abc import Iterator
from itertools import islice

from tequio.app.start.survey import Participant
from tequio.participant.data import Example

WIDTH = 300  # characters of a text that are shown


def first_rows(person: Participant, count: int) -> Iterator[str]:
    """Yield the first usable rows as lines of text; control characters are left out."""
    for made in islice(person.sample, count):
        yield _line(made)


def _line(made: Example) -> str:
    parts = [made.label, made.text, made.response]
    return " | ".join(_plain(part) for part in parts if part is not None)


def _plain(text: str) -> str:
    shown = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return shown if len(shown) <= WIDTH else f"{shown[: WIDTH - 1]}…"
