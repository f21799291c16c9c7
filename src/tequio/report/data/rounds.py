"""What the report knows of the rounds: losses, gate, who trained how much, what was refused,
alarms, peers.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tequio.core.grouping import grouped
from tequio.core.texts.earlier import read_record
from tequio.report.data.accounts import work_rows
from tequio.report.data.records import Json, mean, plausible_loss, row_energy, table, tables, total
from tequio.report.format import finite


def training(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """What each trainer did over all rounds, the centre included."""
    # what is in flight has cost already
    rows = grouped((str(row.get("name")), row) for body in rounds for row in work_rows(body))
    admissions = (row for body in rounds for row in tables(body.get("admissions")))
    status = grouped((str(row.get("name")), str(row.get("status"))) for row in admissions)
    keys = ("bytes_up", "bytes_down", "tokens", "steps")

    def made(name: str) -> Json:
        mine = rows.get(name, [])
        return {key: total(row.get(key) for row in mine) for key in keys} | {
            "joules": total(row_energy(row).get("joules") for row in mine),
            "seconds": total(row.get("seconds", row_energy(row).get("seconds")) for row in mine),
            "admissions": dict(Counter(status.get(name, []))),
        }

    return {name: made(name) for name in {**rows, **status}}


def round_rows(
    rounds: Sequence[Mapping[str, Any]],
    start: Mapping[str, Any],
    end: Mapping[str, Any],
    causal: bool = True,
) -> Json:
    """Every round with its losses and gate, how many were accepted, and which was best."""
    sizes = {
        name: finite(table(given).get("examples"))
        for name, given in table(start.get("slices")).items()
    }
    before = {
        n: plausible_loss(table(s).get("loss")) for n, s in table(start.get("validation")).items()
    }
    history: list[Json] = [
        {
            "round": int(finite(body.get("round")) or 0),
            "accepted": bool(body.get("accepted")),
            "reason": read_record(body.get("reason")),
            "loss": plausible_loss(body.get("mean_validation_loss")),
            "participants": {
                n: plausible_loss(table(s).get("loss"))
                for n, s in table(body.get("validation")).items()
            },
            "gate": {
                name: _gate(table(given), None if causal else sizes.get(name))
                for name, given in table(body.get("gate")).items()
            },
            "seconds": finite(body.get("seconds")),
            "digest": body.get("digest"),
        }
        for body in rounds
    ]
    before_mean = finite(start.get("mean_validation_loss"))
    before_mean = mean(before.values()) if before_mean is None else before_mean
    usable = [r for r in history if r["accepted"] and r["loss"] is not None]
    best = finite(end.get("best_round"))
    if best is None and usable:
        best = min(usable, key=lambda r: (r["loss"], r["round"]))["round"]
    return {
        "total": len(history),
        "accepted": sum(r["accepted"] for r in history),
        "rejected": sum(not r["accepted"] for r in history),
        "best": None if best is None else int(best),
        "reason": read_record(end.get("reason")),
        "start": {"loss": before_mean, "participants": before},
        "history": history,
    }


def _gate(given: Mapping[str, Any], texts: float | None) -> Json:
    """detectable: the smallest rise of the harm, as measured, for which this gate would have rolled
    the round back.
    """
    values: Json = {
        key: finite(given.get(key)) for key in ("base", "candidate", "low", "high", "limit")
    }
    known = values["base"] is not None and values["candidate"] is not None
    change = values["candidate"] - values["base"] if known else None
    below = None if change is None or values["low"] is None else change - values["low"]
    return {**values, "change": change, "detectable": detectable(below, texts, values["limit"])}


def detectable(half: float | None, texts: float | None, limit: float | None = None) -> float | None:
    """The smallest change that shows: beyond half the interval, beyond the limit, and of answers at
    least 4 of the texts.

    With fewer than 4 texts that changed, all for the worse, a bootstrap interval still touches
    zero: (1 − 3/n)ⁿ > 0.025.
    """
    if half is None:
        return None
    return max(half, 4.0 / texts if texts and texts >= 4 else 0.0, limit or 0.0)


def refused(rounds: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Updates that did not enter a round, grouped by participant, status and reason."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for body in rounds:
        barred = [{**row, "status": "failed"} for row in tables(body.get("barred"))]
        for row in (*tables(body.get("admissions")), *barred):
            if row.get("status") != "admitted":
                reason = json.dumps(read_record(row.get("reason")), sort_keys=True)
                key = (str(row.get("name")), str(row.get("status")), reason)
                groups.setdefault(key, []).append(int(finite(body.get("round")) or 0))
    return [
        {"name": n, "status": s, "reason": json.loads(r), "rounds": at}
        for (n, s, r), at in groups.items()
    ]


def alarms(rounds: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Alarms of screening, grouped by participant, alarm and what was done; figure and limit are
    the last ones.
    """
    groups: dict[tuple[str, str, str], Json] = {}
    for body in rounds:
        for row in tables(body.get("alarms")):
            name, alarm, action = (str(row.get(key)) for key in ("name", "alarm", "action"))
            found = groups.setdefault(
                (name, alarm, action),
                {"name": name, "alarm": alarm, "action": action, "rounds": []},
            )
            found["rounds"].append(int(finite(body.get("round")) or 0))
            found |= {"figure": finite(row.get("figure")), "limit": finite(row.get("limit"))}
    return list(groups.values())


def peers(
    topology: Mapping[str, Any], shared: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]
) -> Json | None:
    """The kind of graph, and how far the peers' models lie from their mean, as a share of its
    length;

    None for a star.
    """
    kind = topology.get("kind")
    if kind not in ("ring", "complete", "graph"):
        return None
    last = rounds[-1] if rounds else {}
    return {"kind": kind, "disagreement": finite((shared or last).get("disagreement"))}
