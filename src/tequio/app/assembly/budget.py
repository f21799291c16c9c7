"""The federation's budget as a ledger has it: what its records say was spent, and what is left for personal models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tequio.app.assembly.site import price_of
from tequio.config import Federation
from tequio.coordinator.budget import Purse
from tequio.ledger.record import Ledger
from tequio.participant.personal_budget import closing_passes


def purse_of(config: Federation, ledger: Ledger, one_process: bool) -> Purse | None:
    """The federation's budget, with what this run spent before; None without one."""
    limits = config.budget.limits()
    if not limits:
        return None
    currency = "" if config.money is None else config.money.currency
    sizes = [row["batches"] for row in rows_of(ledger)]
    passes = [closing_passes(row["validation"], row["test"]) for row in sizes]
    price = None if config.money is None else price_of(config.money, config.energy.life_years)
    purse = Purse(limits, one_process, currency, len(sizes), sum(passes) / max(1, len(passes)), price)
    for kind in ("start", "round", "wait"):
        for entry in ledger.entries(kind):
            purse.add(entry.body)
    for entry in ledger.entries("personal"):
        purse.add_personal(entry.body)
    return purse


def allowances(config: Federation, ledger: Ledger, one_process: bool) -> dict[str, dict[str, float]]:
    """What each who has no personal model yet may take for it, of the federation's budget, by name and key; nothing without one."""
    purse = purse_of(config, ledger, one_process)
    if purse is None:
        return {}
    made = {entry.body["name"] for entry in ledger.entries("personal")}
    return purse.allow_personal({row["name"]: int(row["steps"]) for row in rows_of(ledger) if row["name"] not in made})


def rows_of(ledger: Ledger) -> list[Mapping[str, Any]]:
    """Everybody's row in the record: who was there at the beginning, and who joined later."""
    header = ledger.last("run")
    first = [] if header is None else list(header.body["participants"])
    return [*first, *(entry.body["participant"] for entry in ledger.entries("joined"))]
