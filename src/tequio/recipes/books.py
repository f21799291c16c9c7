"""Reading participants' own account books: what each piece of work took, in the folder where the participant's run is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tequio.core.errors import RunError
from tequio.participant.books import FILE


def read_books(run: Path) -> dict[str, list[Mapping[str, Any]]]:
    """Participant -> its lines, of those whose book is in this folder. Raises RunError where a line is damaged.

    A last line without its end, of a process that was killed as it wrote, is left out.
    """
    out: dict[str, list[Mapping[str, Any]]] = {}
    for path in sorted((run / "participants").glob(f"*/{FILE}")):
        text = path.read_text(encoding="utf-8")
        lines = text.split("\n")[:-1]
        try:
            out[path.parent.name] = [json.loads(line) for line in lines]
        except ValueError:
            raise RunError(f"{path} is damaged.", "A line of it is not JSON.", "Restore it from a copy.") from None
    return out
