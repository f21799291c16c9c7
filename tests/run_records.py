"""What the tests of whole runs share: a run's records, in order and by kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tequio.ledger.record import Ledger


def records(run: Path) -> tuple[list[Any], dict[str, list[Any]]]:
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        entries = list(ledger.entries())
    kinds: dict[str, list[Any]] = {}
    for entry in entries:
        kinds.setdefault(entry.kind, []).append(entry.body)
    return entries, kinds
