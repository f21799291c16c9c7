"""Plans that nobody made, and outcomes of runs that never happened: each sentence of `tequio plan`
is in one of them.
"""

from __future__ import annotations

from typing import Any

from tequio.app.forecast.forecast import LIMITS
from tequio.core.reason import Reason

GIB = 2**30


def reason(code: str, **facts: Any) -> dict[str, Any]:
    """A reason as plans hold it."""
    return Reason(code, facts).as_record()


def row(name: str, machine: str = "this machine", rank: int = 4, **more: Any) -> dict[str, Any]:
    """Of a participant or the centre."""
    spent = {"train": 40.0, "evaluate": 5.0, "network": 1.0, "personal": 6000.0}
    ranks = [
        {"kind": reason("plan-rank", rank=r), "need": r * GIB, "have": 8 * GIB, "fits": r < 8}
        for r in (4, 8)
    ]
    return {
        "name": name,
        "machine": machine,
        "rank": rank,
        "memory": [
            *ranks,
            {"kind": reason("plan-full"), "need": 9 * GIB, "have": 8 * GIB, "fits": False},
        ],
        "seconds": spent | {"work": 6045.0, "total": 6046.0},
        "joules": 36_000.0,
        "grams": None,
        "money": None,
        "bytes_up": 3e6,
    } | more


def way(
    key: str, where: str, best: bool = False, of_all: bool = False, **more: Any
) -> dict[str, Any]:
    """One way to do it."""
    spent = {
        "quality": 120.0,
        "seconds": 300.0,
        "joules": 7.2e6,
        "grams": 3.5,
        "money": {"USD": 1.5},
    }
    return {"key": key, "where": where, "best": best, "best_of_all": of_all} | spent | more


def limit(
    who: str | None, key: str, rounds: float | None, whole: float | None, unit: str
) -> dict[str, Any]:
    """A budget of 2 units, of which the rounds take so much, and all."""
    ratios = [None if value is None else value / 2 for value in (rounds, whole)]
    return {
        "who": who,
        "key": key,
        "limit": 2.0,
        "unit": unit,
        "rounds": rounds,
        "whole": whole,
    } | {
        "ratio": ratios[0],
        "whole_ratio": ratios[1],
    }


def lever(code: str, **facts: Any) -> dict[str, Any]:
    """A help for the weakest."""
    return {"what": reason(code, **facts), "rank": 8, "steps": 30, "round_seconds": 20.0}


LEAST: dict[str, Any] = {
    "federation": "maize",
    "participants": [row("Oaxaca", grams=12.3, money={"MXN": 3.0})],
    "centre": None,
    "process_memory": 2 * GIB,
    "card_memory": None,
    "private": {},
    "own": False,
    "budgets": [],
    "declared": [],
    "total": {
        "seconds": 30.0,
        "joules": 36_000.0,
        "grams": 12.3,
        "money": {"MXN": 3.0},
        "priced": [1, 1],
        "bytes_up": 3e6,
    },
    "options": [way("hybrid", "", best=True)],
    "axes": ["quality", "seconds", "joules"],
    "break_even": [],
    "weakest": None,
    "factors": {"this machine": 1.0},
    "limits": [reason(code) for code in LIMITS],
}
MOST: dict[str, Any] = LEAST | {
    "participants": [
        row("Oaxaca", rank=8, grams=12.3),
        row("Puebla", "L4", money={"MXN": 3.0, "EUR": 0.2}),
    ],
    "centre": row("centre"),
    "card_memory": GIB,
    "private": {"Oaxaca": ["carbon", "money", "own-budget"]},
    "budgets": [
        limit(None, "kwh", 1.0, 1.5, "kWh"),
        limit(None, "kg_co2e", None, None, "kg CO2e"),
        limit("Oaxaca", "money", 3.0, 4.0, "MXN"),
        limit("Oaxaca", "hours", 1.0, 3.0, "h"),
        limit("Oaxaca", "megabytes", 1.0, 1.0, "MB"),
    ],
    "declared": [{"name": "Puebla", "tokens_per_second": 100.0, "seconds": 900.0}],
    "total": LEAST["total"] | {"grams": None, "priced": [1, 3]},
    "options": [
        way("hybrid", "", best=True),
        way("alone", "", grams=None, money=None),
        way("renewable", ""),
        way("central", "H100 SXM", of_all=True),
    ],
    "axes": ["quality", "seconds", "grams", "money"],
    "break_even": [
        {
            "device": "L4",
            "rent": 0.5,
            "buy": 2500.0,
            "hours": 5000.0,
            "runs": 70.0,
            "unsure": ["rent", "buy"],
        },
        {"device": "T4", "rent": 0.4, "buy": 900.0, "hours": 2250.0, "runs": None, "unsure": []},
        {"device": "H200", "rent": 4.0, "buy": 29000.0, "hours": None, "runs": None, "unsure": []},
    ],
    "weakest": {
        "name": "Puebla",
        "rank": 4,
        "steps": 20,
        "round_seconds": 30.0,
        "group_round_seconds": 40.0,
        "levers": [
            *(lever(f"lever-{code}") for code in ("faster", "uplink", "memory", "texts", "rank")),
            lever("lever-hosted", device="RTX 4090"),
        ],
    },
    "factors": {"this machine": 1.25, "L4": 0.8},
}
PLANS = {"least": LEAST, "most": MOST}


def outcome(
    name: str, machine: str = "this machine", alike: bool = True, cut: bool = False
) -> dict[str, Any]:
    """Forecast and measured of one."""
    spent = {"train": 40.0, "evaluate": 5.0, "personal": 60.0, "work": 105.0}
    both = {"predicted": spent, "measured": {key: 1.5 * value for key, value in spent.items()}}
    return {
        "name": name,
        "machine": machine,
        "alike": alike,
        "cut": cut,
        "ratio": 1.5,
        "joules_ratio": 1.2,
    } | both


NONE = {"predicted": None, "measured": None, "ratio": None}
SOME = {"predicted": 2 * GIB, "measured": GIB, "ratio": 0.5}
LEARNT: dict[str, Any] = {
    "simulation": True,
    "participants": [outcome("Oaxaca")],
    "ratio": 1.5,
    "joules_ratio": 1.2,
    "memory": NONE,
    "memory_ratio": None,
    "card": NONE,
    "factors": {"this machine": 1.5},
    "not_learnt": [],
}
UNLEARNT: dict[str, Any] = LEARNT | {
    "participants": [
        outcome("Oaxaca", alike=False, cut=True),
        outcome("Puebla", "L4", alike=False),
    ],
    "ratio": None,
    "joules_ratio": None,
    "memory": SOME,
    "memory_ratio": 0.5,
    "card": SOME,
    "factors": {},
    "not_learnt": ["L4", "this machine"],
}
OUTCOMES = {"learnt": LEARNT, "unlearnt": UNLEARNT, "network": UNLEARNT | {"simulation": False}}
