"""What each participant gave and what it got, how evenly, and what to change where the rich gain
and the poor do not.

Gave: texts, tokens computed, energy, money where it is told, contribution to the fall of the
validation loss. Got: the benefit b = (loss alone - loss of the personal model) / loss alone. Gini
and Jain of both; rich and poor are the halves by rank and tokens.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tequio.core.grouping import grouped
from tequio.measure.statistics import gini, jain
from tequio.report.data.accounts import work_rows
from tequio.report.data.records import (
    Json,
    Record,
    bodies,
    config_of,
    last_body,
    mean,
    table,
    tables,
    total,
)
from tequio.report.format import finite

GIVEN = ("examples", "tokens", "joules", "credit")
BY_NEED = ("q_ffl", "term")
FEW = 0.5  # of the richer half's: from there on the lesser one is said to be behind


def giving(entries: Sequence[Record], people: Sequence[Json], accounts: Json) -> Json:
    """participants (gave and got), evenness {what: gini, jain}, statement (None, behind or
    left_out), poor, and changes to try.
    """
    rounds = bodies(entries, "round")
    spent = {a["name"]: a for a in accounts["participants"]}
    credits = _credits(entries)
    alone = _summed(rounds, "leave_one_out")
    worked = grouped((str(row.get("name")), row) for body in rounds for row in work_rows(body))
    rows: list[Json] = [
        {
            "name": person["name"],
            "rank": person["rank"],
            "examples": person["data"]["train"],
            "tokens": total(row.get("tokens") for row in worked.get(person["name"], [])),
            "joules": spent.get(person["name"], {}).get("joules"),
            "money": spent.get(person["name"], {}).get("money") or {},
            "credit": credits.get(person["name"]),
            "leave_one_out": alone.get(person["name"]),
            "benefit": person["benefit"],
        }
        for person in people
    ]
    even: Json = {key: _evenness([row[key] for row in rows]) for key in GIVEN}
    even["benefit"] = _evenness(
        [None if r["benefit"] is None else 1.0 - r["benefit"] for r in rows]
    )
    return {
        "participants": rows,
        "evenness": even,
        **_statement(rows, config_of(last_body(entries, "run"))),
    }


def _credits(entries: Sequence[Record]) -> dict[str, float]:
    """Each one's part of how far the mean validation loss fell up to the best round, by its
    agreement with the others in accepted rounds.

    Empty where it did not fall, or where on the whole nobody agreed.
    """
    first = finite(last_body(entries, "start").get("mean_validation_loss"))
    accepted = [body for body in bodies(entries, "round") if body.get("accepted")]
    losses = [v for body in accepted if (v := finite(body.get("mean_validation_loss"))) is not None]
    agreed = _summed(accepted, "agreement")
    whole = math.fsum(agreed.values())
    if first is None or not losses or whole <= 0:
        return {}
    return {name: (first - min(losses)) * value / whole for name, value in agreed.items()}


def _summed(rounds: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    rows = (row for body in rounds for row in tables(body.get("credit")))
    found = grouped((str(row.get("name")), row.get(key)) for row in rows)
    sums = {name: total(values) for name, values in found.items()}
    return {name: value for name, value in sums.items() if value is not None}


def _evenness(values: Sequence[float | None]) -> Json:
    """Gini and Jain of what is known; less than nothing counts as nothing."""
    known = [max(0.0, v) for v in values if v is not None]
    if len(known) < 2 or math.fsum(known) <= 0:
        return {"gini": None, "jain": None, "participants": len(known)}
    return {"gini": gini(known), "jain": jain(known), "participants": len(known)}


def _statement(rows: Sequence[Json], config: Mapping[str, Any]) -> Json:
    known = [r for r in rows if r["benefit"] is not None and r["rank"] is not None]
    none: Json = {
        "statement": None,
        "poor": [],
        "poor_benefit": None,
        "rich_benefit": None,
        "changes": [],
    }
    if len(known) < 2 or len({(r["rank"], r["tokens"]) for r in known}) < 2:
        return none
    ranked = sorted(known, key=lambda r: (r["rank"], r["tokens"] or 0.0))
    half = len(ranked) // 2
    poor, rich = ranked[:half], ranked[-half:]
    low, high = mean(r["benefit"] for r in poor) or 0.0, mean(r["benefit"] for r in rich) or 0.0
    said: Json = none | {
        "poor": [r["name"] for r in poor],
        "poor_benefit": low,
        "rich_benefit": high,
        "statement": "even",
    }
    if high > 0 >= low:
        said["statement"] = "left_out"
    elif high > 0 and low < FEW * high:
        said["statement"] = "behind"
    if said["statement"] == "even":
        return said
    texts = [mean(r["examples"] for r in part) or 0.0 for part in (poor, rich)]
    helps = {
        "weights": table(config.get("algorithm")).get("weights") not in BY_NEED,
        "ranks": poor[-1]["rank"] < rich[0]["rank"],
        "texts": texts[0] < FEW * texts[1],
        "hosted": math.fsum(r["credit"] for r in poor if r["credit"] is not None) > 0,
    }
    return said | {"changes": [key for key, helped in helps.items() if helped] or ["hosted"]}
