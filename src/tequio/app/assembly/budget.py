"""The federation's budget as a ledger has it: what its records say was spent, and what is left for
personal models.
"""

from collections.abc import Mapping
from typing import Any

from tequio.app.assembly.site import build_price
from tequio.config import Federation
from tequio.coordinator.budget import BudgetTracker
from tequio.ledger.record import Ledger
from tequio.participant.personal_budget import closing_passes


def build_budget_tracker(
    config: Federation, ledger: Ledger, one_process: bool
) -> BudgetTracker | None:
    """The federation's budget, with what this run spent before; None without one."""
    limits = config.budget.limits()
    if not limits:
        return None
    currency = "" if config.money is None else config.money.currency
    sizes = [row["batches"] for row in participant_rows(ledger)]
    passes = [closing_passes(row["validation"], row["test"]) for row in sizes]
    price = None if config.money is None else build_price(config.money, config.energy.life_years)
    tracker = BudgetTracker(
        limits, one_process, currency, len(sizes), sum(passes) / max(1, len(passes)), price
    )
    for kind in ("start", "round", "wait"):
        for entry in ledger.entries(kind):
            tracker.add(entry.body)
    for entry in ledger.entries("personal"):
        tracker.add_personal(entry.body)
    return tracker


def allowances(
    config: Federation, ledger: Ledger, one_process: bool
) -> dict[str, dict[str, float]]:
    """What each who has no personal model yet may take for it, of the federation's budget, by name
    and key; nothing without one.
    """
    tracker = build_budget_tracker(config, ledger, one_process)
    if tracker is None:
        return {}
    made = {entry.body["name"] for entry in ledger.entries("personal")}
    return tracker.allow_personal(
        {
            row["name"]: int(row["steps"])
            for row in participant_rows(ledger)
            if row["name"] not in made
        }
    )


def participant_rows(ledger: Ledger) -> list[Mapping[str, Any]]:
    """Everybody's row in the record: who was there at the beginning, and who joined later."""
    header = ledger.last("run")
    first = [] if header is None else list(header.body.get("participants", ()))
    return [*first, *(entry.body["participant"] for entry in ledger.entries("joined"))]
