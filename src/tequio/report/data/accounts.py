"""The accounts of a run from its ledger: energy, carbon and money of each participant, of the
coordinator, and in all.

Carbon is location-based and gross: E·PUE·I, offsets left out, with the embodied share beside it.
SCI = (E·I + M)/R, ISO/IEC 21031, with R = a million tokens trained in the rounds. Where some do not
tell their place, sums are of the energy whose intensity is known, and say so.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from tequio.app.assembly.site import build_price
from tequio.config.accounting import EnergySection, MoneySection
from tequio.core.grouping import grouped
from tequio.core.texts.words import Words
from tequio.measure.money import added
from tequio.measure.site import JOULES_A_KWH, sci
from tequio.report.data.records import (
    Json,
    Record,
    adapted,
    at_home,
    bodies,
    config_of,
    last_body,
    rounds_of,
    row_energy,
    row_money,
    table,
    tables,
    total,
    unusable,
)
from tequio.report.format import finite

MILLION = 1e6
WHOLE = 0.999  # share of the energy from which on a sum of grams is said to be of all
BOUNDARY = (
    "rounds with their evaluation and coordination, all epochs, rejected and failed "
    "rounds; no personal models"
)


def accounts(entries: Sequence[Record]) -> Json:
    """participants, coordinator, total, sci: joules, grams, embodied grams, money by currency;

    None where not known.
    """
    run = last_body(entries, "run")
    rounds = rounds_of(entries)
    alone = run.get("simulation") is not False
    centre = str(table(run.get("centre")).get("name"))
    names = [str(p.get("name")) for p in tables(run.get("participants"))]
    names += [str(table(b.get("participant")).get("name")) for b in bodies(entries, "joined")]
    worked = grouped((str(row.get("name")), row) for body in rounds for row in work_rows(body))
    made = grouped((str(body.get("name")), body) for body in bodies(entries, "personal"))
    trained = {name: worked.get(name, []) for name in dict.fromkeys([*names, *worked])}
    people = {
        name: [*trained.get(name, []), *made.get(name, [])]
        for name in dict.fromkeys([*trained, *made])
    }
    own = {name: sums(rows) for name, rows in people.items() if name != centre}
    rest = _rest(rounds, own.keys() if alone else ())
    coordinator = sums(rest) | {"money": _coordinator_money(config_of(run), rest)}
    in_rounds = [sums(rows) for name, rows in trained.items() if name != centre] + [coordinator]
    tokens = total(row.get("tokens") for rows in trained.values() for row in rows) or 0.0
    return {
        "participants": [{"name": name, **account} for name, account in own.items()],
        "coordinator": coordinator,
        "total": _joined([*own.values(), coordinator]),
        "sci": _sci(_joined(in_rounds), tokens),
    }


def work_rows(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Who worked in a round: trained (those whose update is still on its way too) or evaluated."""
    return [
        *tables(body.get("train")),
        *tables(body.get("in_flight")),
        *tables(body.get("evaluation")),
    ]


def sums(rows: Iterable[Mapping[str, Any]]) -> Json:
    """The account over rows that have `energy` (or bare joules) and `money`."""
    rows = list(rows)
    records = [record for row in rows if (record := row_energy(row))]
    joules = total(r.get("joules") for r in records)
    placed = [r for r in records if finite(r.get("intensity")) is not None]

    known = total(r.get("joules") for r in placed) or 0.0
    return {
        "joules": joules,
        "seconds": total(r.get("seconds") for r in records),
        "grams": total(record_grams(r) for r in placed),
        "grams_share": known / joules if joules else None,
        "embodied": total(r.get("embodied") for r in records),
        "intensity": _intensity(placed),
        "money": added(
            {found["currency"]: found["amount"]} for row in rows if (found := row_money(row))
        ),
        "unusable": sum(map(unusable, rows)),
    }


def hosted(record: Mapping[str, Any]) -> Any:
    """Joules of one energy record at the watts of the machine it was made on;

    `joules` may be at those of the one it stands for.
    """
    return record.get("joules") if record.get("hosted") is None else record["hosted"]


def record_grams(record: Mapping[str, Any]) -> float | None:
    """g CO2e of one energy record: joules · PUE · intensity."""
    joules, intensity = finite(record.get("joules")), finite(record.get("intensity"))
    if joules is None or intensity is None:
        return None
    return joules / JOULES_A_KWH * (finite(record.get("pue")) or 1.0) * intensity


def _intensity(placed: Sequence[Mapping[str, Any]]) -> float | None:
    """Mean g/kWh, weighted by energy."""
    joules = total(r.get("joules") for r in placed)
    if not joules:
        return None
    return (
        math.fsum(
            r["joules"] * r["intensity"] for r in placed if finite(r.get("joules")) is not None
        )
        / joules
    )


def _rest(rounds: Sequence[Mapping[str, Any]], inside: Iterable[str]) -> list[Json]:
    """The coordinator's energy of each round, the centre's with it: without what participants in
    its process drew.
    """
    names, out = set(inside), []
    for body in rounds:
        record = table(body.get("energy"))
        whole = finite(record.get("joules"))
        if whole is not None:
            drawn = (
                total(
                    hosted(row_energy(row)) for row in work_rows(body) if row.get("name") in names
                )
                or 0.0
            )
            out.append({"energy": {**record, "joules": max(0.0, whole - drawn)}})
    return out


def _coordinator_money(config: Mapping[str, Any], rest: Sequence[Json]) -> dict[str, float]:
    """At the prices in federation.toml, which everybody has."""
    try:
        given = MoneySection.model_validate(config.get("money"))
        energy = EnergySection.model_validate(config.get("energy", {}))
    except ValidationError:
        return {}
    if not rest:
        return {}
    price, drawn = build_price(given, energy.life_years), sums(rest)
    kwh = (drawn["joules"] or 0.0) * energy.pue / JOULES_A_KWH
    return {price.currency: price.of(kwh, (drawn["seconds"] or 0.0) / 3600.0)}


def _joined(parts: Sequence[Json]) -> Json:
    joules = total(p["joules"] for p in parts)
    known = total((p["joules"] or 0.0) * (p["grams_share"] or 0.0) for p in parts) or 0.0
    return {
        "joules": joules,
        "grams": total(p["grams"] for p in parts),
        "grams_share": known / joules if joules else None,
        "embodied": total(p["embodied"] for p in parts),
        "money": added(p["money"] for p in parts),
    }


def _sci(whole: Json, tokens: float) -> Json:
    """SCI of the rounds; None unless the intensity of all their energy is known."""
    known = whole["grams"] is not None and (whole["grams_share"] or 0.0) >= WHOLE
    value = sci(whole["grams"], whole["embodied"] or 0.0, tokens / MILLION) if known else None
    return {
        "grams_per_million_tokens": value,
        "tokens": tokens,
        "operational": whole["grams"],
        "embodied": whole["embodied"],
        "boundary": BOUNDARY,
        "unit": "1,000,000 tokens trained in the rounds",
    }


def card(
    found: Json,
    entries: Sequence[Record],
    books: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({}),
) -> Json:
    """For a model card (Hugging Face's field, in grams): electricity and embodied share;

    None unless all of it is known and told.

    of, name: whose they are, as books.scope says it. Of a participant's own record they are its own
        part, by its book where that is
    here: it has the rounds.
    """
    whole, run = found["total"], last_body(entries, "run")
    known = whole["grams"] is not None and (whole["grams_share"] or 0.0) >= WHOLE
    worked, name, of = bodies(entries, "round"), "", "run"
    if at_home(entries):
        name = str(tables(run.get("participants"))[0].get("name"))
        lines = books.get(name, ())
        worked = [{"energy": line} for line in lines] or bodies(entries, "personal")
        if known and lines:  # what the record does not tell, a card does not either
            whole = sums(worked)
            known = (whole["grams_share"] or 0.0) >= WHOLE
        of = "adapted" if adapted(entries) else "book" if lines else "personal"
    scope = Words("en")(f"books.scope.{of}", name=name)
    methods = sorted({str(table(body.get("energy")).get("method")) for body in worked})
    source = (
        f"Tequio {table(run.get('versions')).get('tequio')}: {', '.join(methods)}; "
        "location-based, no offsets"
    )
    return {
        "co2_eq_emissions": {
            "emissions": whole["grams"] + (whole["embodied"] or 0.0) if known else None,
            "source": f"{source}; {scope}",
            "training_type": "fine-tuning",
        },
        "of": of,
        "name": name,
    }
