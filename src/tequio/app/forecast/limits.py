"""The forecast beside what was declared: each [budget], the federation's and participants' own, and
the speeds that participants state.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tequio.app.forecast.calibration import HERE
from tequio.app.forecast.placement import Placed, costs
from tequio.config import Federation, ParticipantFile
from tequio.coordinator.run_spec import Member
from tequio.measure.budget import UNITS, amounts
from tequio.planning.workload import Times, times


def budgets(
    config: Federation,
    files: Mapping[str, ParticipantFile],
    people: Sequence[Placed],
    centre: Placed | None,
    own: bool,
) -> list[dict[str, Any]]:
    """Each limit beside the forecast of the `rounds`, and with personal models (`whole`), and these
    / limit (None: not known).

    `who` is
    None where it is all together's; those of participants are private, and in it with `own` only.

    As budgets are kept: all together's takes carbon and money as told, money in its own currency,
    and bytes both ways.
    """
    stages: list[Callable[[Times], float]] = [lambda t: t.train + t.evaluate, lambda t: t.work]
    need = {one.work.name: [_need(one, stage) for stage in stages] for one in people}
    currency = config.money.currency if config.money else ""
    estimated = [
        [_estimate(one, row, files[one.work.name], currency) for row in need[one.work.name]]
        for one in people
    ]
    if centre is not None:
        estimated.append([_need(centre, stage) for stage in stages])
    out = [
        _row(
            None,
            key,
            limit,
            [_sum(row[key] for row in rows) for rows in zip(*estimated, strict=True)],
            currency,
        )
        for key, limit in config.budget.limits().items()
    ]
    for name, file in files.items() if own else ():
        unit = file.money.currency if file.money else ""
        limits = file.budget.limits().items()
        out += [
            _row(name, key, limit, [row[key] for row in need[name]], unit) for key, limit in limits
        ]
    return out


def _estimate(
    one: Placed, need: Mapping[str, float | None], file: ParticipantFile, currency: str
) -> dict[str, float | None]:
    """What of it the coordinator hears."""
    counts = file.money is not None and file.money.tell and file.money.currency == currency
    return {
        **need,
        "kg_co2e": need["kg_co2e"] if file.energy.tell else None,
        "money": need["money"] if counts else 0.0,
        "megabytes": (one.work.bytes_up + one.work.bytes_down) * one.work.rounds / 1e6,
    }


def speeds(
    files: Mapping[str, ParticipantFile], people: Sequence[Placed], members: Sequence[Member]
) -> list[dict[str, Any]]:
    """Of each who states a speed and no device: that speed, and the seconds of all rounds' training
    and upload by it, as allotted.
    """
    allotted = {member.name: member.seconds for member in members}
    out = []
    for one in people:
        speed, seconds = files[one.work.name].hardware.tokens_per_second, allotted[one.work.name]
        if one.machine == HERE and speed is not None and seconds is not None:
            out.append(
                {
                    "name": one.work.name,
                    "tokens_per_second": speed,
                    "seconds": seconds * one.work.rounds,
                }
            )
    return out


def _need(one: Placed, stage: Callable[[Times], float]) -> dict[str, float | None]:
    """What a part of its work takes of one, by key of measure.budget."""
    seconds = stage(times(one.work, one.rates))
    cost = costs(one, seconds)
    money = None if cost["money"] is None else math.fsum(cost["money"].values())
    return amounts(
        cost["joules"] * one.site.pue,
        cost["grams"],
        money,
        seconds,
        one.work.bytes_up * one.work.rounds,
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else math.fsum(v for v in known if v is not None)


def _row(
    who: str | None, key: str, limit: float, need: Sequence[float | None], currency: str
) -> dict[str, Any]:
    row: dict[str, Any] = {"who": who, "key": key, "limit": limit, "unit": UNITS[key] or currency}
    ratios = [None if value is None else value / limit for value in need]
    return row | {"rounds": need[0], "whole": need[1], "ratio": ratios[0], "whole_ratio": ratios[1]}
