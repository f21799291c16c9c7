"""A participant's own account book: one line a piece of work, with energy, carbon and money. It stays in the participant's folder.

What was begun and lost (a process killed before its round was committed) stands in it too: the electricity was drawn. The coordinator hears
of carbon and of money only what participant.toml allows.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from tequio.core.types import Energy, Money
from tequio.ledger.folder import RunFolder

FILE = "accounts.jsonl"


@dataclass(frozen=True)
class Books:
    """Lines go to `under`/accounts.jsonl of `folder`, or nowhere. tell_carbon, tell_money: what the coordinator may know."""

    folder: RunFolder | None = None
    under: str = ""
    tell_carbon: bool = True
    tell_money: bool = False

    def enter(self, work: str, round_: int | None, energy: Energy, money: Money | None) -> tuple[Energy, Money | None]:
        """Write one line; returns what may be told of it."""
        if self.folder is not None:
            line = {"work": work, "round": round_, **asdict(energy), "grams": energy.grams}
            line["money"] = None if money is None else asdict(money)
            path = self.folder.path / self.under / FILE
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, sort_keys=True) + "\n")
        return energy if self.tell_carbon else energy.untold(), money if self.tell_money else None
