"""Rounds in simulated time ([shift]): when each worked, what it emitted then, and what it would
have emitted had nobody been shifted.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tequio.core.grouping import grouped
from tequio.measure.site import JOULES_A_KWH
from tequio.report.data.records import (
    Json,
    Record,
    bodies,
    config_of,
    last_body,
    row_energy,
    table,
    tables,
    total,
)
from tequio.report.format import finite

KEYS = ("joules", "grams", "at_once", "hours")


def shifted(entries: Sequence[Record]) -> Json | None:
    """policy, began, ended, ended_at_once, participants (the centre too), total, budget;

    None without [shift].

    grams and at_once are of training alone, which is what is shifted: measured joules · PUE ·
    intensity at its hours, and at those of the same rounds had all worked at once. hours:
    simulated, at work.
    """
    given = table(config_of(last_body(entries, "run")).get("shift"))
    rounds = [body for body in bodies(entries, "round") if table(body.get("shift"))]
    if not given:
        return None
    rows = grouped(pair for body in rounds for pair in _rows(body))
    rested = Counter(str(name) for body in rounds for name in body["shift"].get("rested", ()))
    names = list(dict.fromkeys([*rows, *rested]))
    people = [
        _of(rows.get(name, [])) | {"name": name, "rested": rested.get(name, 0)} for name in names
    ]
    last = table(rounds[-1].get("shift")) if rounds else {}
    clock = table(last.get("clock"))
    limit, spent = finite(given.get("kg_co2e")), finite(clock.get("spent"))
    budget = {"kg_co2e": limit, "spent": None if spent is None else spent / 1000.0}
    return {
        "policy": given.get("policy"),
        "began": rounds[0]["shift"].get("began") if rounds else given.get("start"),
        "ended": last.get("ended"),
        "ended_at_once": clock.get("plain"),
        "rounds": len(rounds),
        "participants": people,
        "total": _of([row for mine in rows.values() for row in mine]),
        "budget": None
        if limit is None
        else budget | {"minimum": given.get("minimum"), "alpha": given.get("alpha")},
    }


def _rows(body: Mapping[str, Any]) -> Iterator[tuple[str, Json]]:
    """(name, row) of each who worked in a round."""
    trained = {str(row.get("name")): row_energy(row) for row in tables(body.get("train"))}
    for work in tables(body["shift"].get("work")):
        yield str(work.get("name")), _row(work, trained.get(str(work.get("name")), {}))


def _row(work: Mapping[str, Any], energy: Mapping[str, Any]) -> Json:
    """One round of one: joules as measured, and grams at both times."""
    joules = finite(energy.get("joules"))
    kwh = None if joules is None else joules / JOULES_A_KWH * (finite(energy.get("pue")) or 1.0)
    intensity, at_once = finite(work.get("intensity")), finite(work.get("at_once"))
    known = kwh is not None and intensity is not None and at_once is not None
    return {
        "joules": joules,
        "grams": kwh * intensity if known and kwh is not None and intensity is not None else None,
        "at_once": kwh * at_once if known and kwh is not None and at_once is not None else None,
        "hours": math.fsum(float(seconds) for _, seconds in work.get("hours", ())) / 3600.0,
    }


def _of(rows: Sequence[Json]) -> Json:
    sums: Json = {key: total(row[key] for row in rows) for key in KEYS}
    return {
        "rounds": len(rows),
        **sums,
        "saved": 1.0 - sums["grams"] / sums["at_once"] if sums["at_once"] else None,
    }
