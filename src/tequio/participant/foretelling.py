"""Foretell whether joining pays, from validation data alone: of a short run, or of an earlier run's
model at home.
"""

import math
from collections.abc import Mapping
from typing import Any

SURE = 1.96  # standard errors on both sides of a forecast
FEWEST = 20  # validation texts: fewer say too little of their own spread for a verdict
MOST = 1_000_000  # validation texts: where more would be needed, no number is named


def foretold(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the forecast that a participant's personal model allows; benefit is None where nothing
    compares.

    Args:
        body: of the outcome, as `personalise` makes it.

    Returns:
        name; benefit (share of the local model's loss that is saved), low, high; verdict: `pays`
        where the whole interval lies above 0, `does_not_pay` where it lies below, `open` else and
        with fewer than FEWEST validation texts; texts: how many there are; needed: about how many
        would tell, where these do not.
    """
    texts = body["choice"].get("texts", 0)
    row: dict[str, Any] = {
        "name": body["name"],
        "benefit": None,
        "low": None,
        "high": None,
        "verdict": "open",
    }
    row |= {"texts": texts, "needed": None}
    found = body["choice"].get("over_local") or {}
    alone = found.get("alone") or 0.0  # earlier versions recorded none
    if alone <= 0.0:
        return row
    benefit, spread = found["lead"] / alone, SURE * found["error"] / alone
    row |= {"benefit": benefit, "low": benefit - spread, "high": benefit + spread}
    if abs(benefit) <= spread:
        needed = texts * (spread / benefit) ** 2 if benefit else math.inf
        return row | {"needed": math.ceil(needed) if needed < MOST else None}
    if texts < FEWEST:
        return row
    return row | {"verdict": "pays" if benefit > 0.0 else "does_not_pay"}
