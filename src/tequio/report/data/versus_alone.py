"""What joining took of each participant against training alone: energy, carbon and money of its
part, and of its own tuned local model.

Both were measured in this run. Joined: its rounds, their evaluations, and what its personal model
took beside the local one (private adapters, the choice); nothing of centre and coordinator. Alone:
its local model, with every rate that was tried. Avoided is alone − joined; below zero joining took
more. Where the delivered model is surely better no local model was as good, and that quality has no
price alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tequio.measure.money import added
from tequio.measure.statistics import gini, jain
from tequio.report.data.accounts import sums, work_rows
from tequio.report.data.records import (
    Json,
    Record,
    at_home,
    bodies,
    is_causal,
    last_body,
    rounds_of,
    row_energy,
    row_money,
    table,
    total,
)
from tequio.report.data.verdicts import outcome, smallest_effect
from tequio.report.format import finite

KEYS = ("joules", "grams", "seconds")


def against_alone(entries: Sequence[Record]) -> Json:
    """participants (joined, alone, avoided, as_good: whether the local model is as good as the
    delivered one), total, evenness of avoided.

    as_good: False where the delivered model is surely better on test, True where that is not sure
        or it is worse, None where not known.
    Empty for runs that did not measure the local model apart, and for a participant's own record,
    which has no rounds (`of_books` has); who a budget cut is not compared.
    """
    run, rounds, rows = last_body(entries, "run"), rounds_of(entries), []
    smallest = smallest_effect(table(run.get("config")))
    for body in () if at_home(entries) else bodies(entries, "personal"):
        if not table(body.get("local_cost")) or body.get(
            "cut"
        ):  # a budget cut what it trained alone, too
            continue
        name, own = str(body.get("name")), table(body["local_cost"])
        worked = [
            row for round_ in rounds for row in work_rows(round_) if str(row.get("name")) == name
        ]
        rows.append(
            compared(name, worked, body, own)
            | {"as_good": _as_good(body, is_causal(run), smallest)}
        )
    known = [row for row in rows if row["as_good"] is not None]
    saved = [max(0.0, row["avoided"]["joules"] or 0.0) for row in rows]
    uneven = len(saved) < 2 or sum(saved) <= 0
    return {
        "participants": rows,
        "total": {
            part: _sum([row[part] for row in rows]) for part in ("joined", "alone", "avoided")
        },
        "never_as_good": sum(not row["as_good"] for row in known),
        "judged": len(known),
        "evenness": {
            "gini": None if uneven else gini(saved),
            "jain": None if uneven else jain(saved),
        },
    }


def of_books(
    books: Mapping[str, Sequence[Mapping[str, Any]]], entries: Sequence[Record] = ()
) -> list[Json]:
    """The same by the participants' own books, private money with it; rows of those whose book
    knows the local model apart.

    entries: of the run; whom they say a budget cut is not compared here either.
    """
    out, cut = (
        [],
        {str(body.get("name")) for body in bodies(entries, "personal") if body.get("cut")},
    )
    for name, lines in books.items():
        if name in cut:
            continue
        rows = [{"energy": line, "money": line["money"], "work": line["work"]} for line in lines]
        local = [row for row in rows if row["work"] == "local"]
        if local:
            out.append(
                _row(name, sums([row for row in rows if row["work"] != "local"]), sums(local))
            )
    return out


def compared(
    name: str,
    worked: Sequence[Mapping[str, Any]],
    personal: Mapping[str, Any],
    own: Mapping[str, Any],
) -> Json:
    """One participant: rows of its rounds, the record of its personal model, and what of that its
    local model took.
    """
    rest = {
        "energy": _left(row_energy(personal), row_energy(own)),
        "money": _money_left(personal, own),
    }
    return _row(name, sums([*worked, rest]), sums([own])) | {
        "steps": own.get("steps"),
        "tokens": own.get("tokens"),
    }


def _row(name: str, joined: Json, alone: Json) -> Json:
    joined, alone = _plain(joined), _plain(alone)
    avoided: Json = {key: _minus(alone[key], joined[key]) for key in KEYS}
    both = joined["money"].keys() & alone["money"].keys()
    avoided["money"] = {
        currency: alone["money"][currency] - joined["money"][currency] for currency in both
    }
    return {"name": name, "joined": joined, "alone": alone, "avoided": avoided}


def _plain(found: Json) -> Json:
    """Joules, grams (None unless all of them are known), seconds, money."""
    whole = (found["grams_share"] or 0.0) > 0.999
    return {
        "joules": found["joules"],
        "grams": found["grams"] if whole else None,
        "seconds": found["seconds"],
        "money": found["money"],
    }


def _left(whole: Mapping[str, Any], part: Mapping[str, Any]) -> Json:
    """An energy record without one of its parts, at the intensity that leaves the grams of the
    rest.
    """
    keys = ("joules", "seconds", "embodied")
    out: Json = {
        **whole,
        **{key: _minus(finite(whole.get(key)), finite(part.get(key))) for key in keys},
    }
    first, second = finite(whole.get("intensity")), finite(part.get("intensity"))
    if first is not None and second is not None and out["joules"]:
        out["intensity"] = (whole["joules"] * first - part["joules"] * second) / out["joules"]
    return out


def _money_left(whole: Mapping[str, Any], part: Mapping[str, Any]) -> Json | None:
    first, second = row_money(whole), row_money(part)
    amount = _minus(finite(first.get("amount")), finite(second.get("amount")))
    return None if amount is None else {"amount": amount, "currency": first["currency"]}


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _as_good(body: Mapping[str, Any], causal: bool, smallest: float) -> bool | None:
    if body.get("chosen") == "local":
        return True
    verdict = outcome(body, "local", causal, smallest)["verdict"]
    return None if verdict is None else verdict != "gains"


def _sum(parts: Sequence[Json]) -> Json:
    """Of all; a sum of which a part is not known is not known.

    Money by currency, of who tells it.
    """
    columns = {key: [part[key] for part in parts] for key in KEYS}
    out: Json = {key: None if None in values else total(values) for key, values in columns.items()}
    return out | {"money": added(part["money"] for part in parts)}
