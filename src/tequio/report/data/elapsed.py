"""How long a run took on the clock, apart from the sum of the work in it: several participants work
side by side.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tequio.report.data.records import Json, row_energy, total
from tequio.report.format import finite


def elapsed(rounds: Sequence[Mapping[str, Any]], personal: Sequence[Mapping[str, Any]]) -> Json:
    """elapsed: seconds on the clock, of the rounds and of the personal models;

    None where that cannot be told.

    A round's record holds its own time on the clock. Personal models are made side by side: theirs
    is the time in which at least one was being made, by when each began and how long it took.
    Waiting between sittings of a run is not in it.
    work: the sum of all that was worked, one after the other.
    """
    made = union([span for body in personal if (span := _span(body))])
    known = all(_span(body) for body in personal)
    if not known and len(personal) == 1:
        made, known = finite(personal[0].get("seconds")), True
    in_rounds = total(body.get("seconds") for body in rounds)
    parts = [part for part in (in_rounds, made) if part is not None]
    return {"elapsed": math.fsum(parts) if known and parts else None}


def union(spans: Sequence[tuple[float, float]]) -> float | None:
    """Seconds that at least one span covers; None of none."""
    if not spans:
        return None
    covered, end = 0.0, -math.inf
    for start, stop in sorted(spans):
        covered += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return covered


def _span(body: Mapping[str, Any]) -> tuple[float, float] | None:
    seconds = finite(body.get("seconds"))
    try:
        moment = datetime.fromisoformat(str(row_energy(body).get("began")))
        began = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
    return None if seconds is None or seconds < 0 else (began, began + seconds)
