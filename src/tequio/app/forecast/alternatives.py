"""The other ways to do it: each alone, all data on one device of the catalogue, everybody at the
greenest hours; sums, and when
buying pays.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from tequio.app.forecast.placement import Placed, costs
from tequio.core.reason import Reason
from tequio.measure.money import added, break_even_hours
from tequio.measure.site import JOULES_A_KWH, Site
from tequio.planning.devices import Device, middle
from tequio.planning.memory import ModelShape
from tequio.planning.pareto import Option, compared, pareto
from tequio.planning.throughput import OnDevice
from tequio.planning.workload import Times, times

CENTRAL = "H100 SXM"


def total(parts: Sequence[Placed]) -> dict[str, Any]:
    """Sums over participants and centre; None where a part is not known, money by currency."""
    rows = [(times(one.work, one.rates), one) for one in parts]
    every = [costs(one, spent.work) for spent, one in rows]
    known = [row["grams"] for row in every]
    return {
        "seconds_of_work": math.fsum(spent.work for spent, _ in rows),
        "seconds": _together(rows),
        "joules": math.fsum(row["joules"] for row in every),
        "grams": None if any(g is None for g in known) else math.fsum(known),
        "money": added(row["money"] or {} for row in every) or None,
        "priced": [
            sum(row["money"] is not None for row in every),
            len(every),
        ],  # of how many the money is known
        "bytes_up": math.fsum(one.work.bytes_up * one.work.rounds for one in parts),
    }


def _together(rows: Sequence[tuple[Times, Placed]]) -> float:
    """Each on its own machine: rounds wait for the slowest, then personal models are made at
    once.
    """
    rounds = max(spent.train + spent.evaluate + spent.network for spent, _ in rows)
    return rounds + max(spent.personal for spent, _ in rows)


def build_options(
    people: Sequence[Placed],
    centre: Placed | None,
    home: Site,
    shape: ModelShape,
    devices: Mapping[str, Device],
    factors: Mapping[str, float],
) -> list[Option]:
    """As configured, each alone, at the greenest hours, and all data on one device each of the
    catalogue.
    """
    everybody = [*people, *([centre] if centre else [])]
    texts = float(sum(one.work.examples for one in everybody))
    whole = total(everybody)
    separate = total([replace(one, work=one.work.alone()) for one in people])
    mean = sum(one.work.examples for one in people) / len(people)
    out = [_option("hybrid", "", texts, whole), _option("alone", "", mean, separate)]
    green = _green(people, centre, whole)
    if green is not None:
        out.append(green)
    for device in sorted(devices.values(), key=lambda device: device.name != CENTRAL):
        rates = OnDevice(device, shape, factors.get(device.name, 1.0))
        seconds = math.fsum(times(one.work.in_rounds(), rates).work for one in everybody)
        joules = seconds * device.watts
        intensity = home.intensity(datetime.now(UTC), 60.0)
        grams = None if intensity is None else joules * home.pue / JOULES_A_KWH * intensity
        rent = middle(device.rent)
        money = None if rent is None else {"USD": rent * seconds / 3600.0}
        note = Reason("data-would-leave").as_record()
        out.append(Option("central", device.name, texts, seconds, joules, grams, money, note))
    return out


def _option(
    key: str,
    where: str,
    quality: float,
    total: Mapping[str, Any],
    note: Mapping[str, Any] | None = None,
) -> Option:
    seconds, joules, grams, money = (
        total[name] for name in ("seconds", "joules", "grams", "money")
    )
    priced, of = total["priced"]
    return Option(key, where, quality, seconds, joules, grams, money, note, priced == of)


def judged(options: Sequence[Option], axes: Sequence[str]) -> list[dict[str, Any]]:
    """Options with `best` (in the Pareto set of those that leave data where they are) and
    `best_of_all`.
    """
    possible = [option for option in options if option.key != "central"]
    best = {id(o) for o, found in zip(possible, pareto(possible, axes), strict=True) if found}
    of_all = pareto(options, compared(options))
    return [
        {**asdict(o), "best": id(o) in best, "best_of_all": found}
        for o, found in zip(options, of_all, strict=True)
    ]


def _green(
    people: Sequence[Placed], centre: Placed | None, whole: Mapping[str, Any]
) -> Option | None:
    """The hybrid with everybody who has a series of intensities at its greenest hours within a
    day;

    None where nobody has.
    """
    grams, moved = 0.0, 0
    for one in [*people, *([centre] if centre else [])]:
        seconds = times(one.work, one.rates).work
        best = next(
            (g for s in one.site.intensities if (g := s.greenest(seconds)) is not None), None
        )
        now = costs(one, seconds)["grams"]
        if best is None and now is None:
            return None
        moved += best is not None
        kwh = one.rates.watts * seconds * one.site.pue / JOULES_A_KWH
        grams += kwh * best if best is not None else now
    if not moved:
        return None
    texts = float(sum(one.work.examples for one in [*people, *([centre] if centre else [])]))
    note = Reason("greenest-hours", {"count": moved}).as_record()
    day = max(86_400.0, whole["seconds"])
    return _option("renewable", "", texts, {**whole, "seconds": day, "grams": grams}, note)


def break_even(
    devices: Mapping[str, Device], options: Sequence[Option], tariff: float | None
) -> list[dict[str, Any]]:
    """Hours of use from which buying beats renting, and how many such runs that is."""
    out = []
    for option in options:
        if option.key != "central":
            continue
        device = devices[option.where]
        rent, buy = middle(device.rent), middle(device.buy)
        if rent is None or buy is None:
            continue
        running = 0.0 if tariff is None else device.watts / 1000.0 * tariff
        hours = break_even_hours(1000.0 * buy, rent, running)
        runs = None if hours is None or option.seconds <= 0 else hours * 3600.0 / option.seconds
        row = {
            "device": device.name,
            "rent": rent,
            "buy": 1000.0 * buy,
            "hours": hours,
            "runs": runs,
        }
        out.append(
            row | {"unsure": list(device.unsure), "as_of": device.rent_as_of or device.as_of}
        )
    return out
