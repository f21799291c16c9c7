"""The carbon of a run as a model card states it."""

from pathlib import Path
from typing import Any


def run_emissions(folder: Path) -> dict[str, Any]:
    """Return the field `co2_eq_emissions` of a model card; its `emissions` are None where they are
    not known.
    """
    from tequio.ledger.folder import RunFolder
    from tequio.ledger.record import Ledger
    from tequio.participant.accounts import read_account_books
    from tequio.report.data.accounts import accounts, card

    with Ledger.open(RunFolder.open(folder).ledger_path, read_only=True) as ledger:
        entries = list(ledger.entries())
    found: dict[str, Any] = card(accounts(entries), entries, read_account_books(folder))[
        "co2_eq_emissions"
    ]
    return found
