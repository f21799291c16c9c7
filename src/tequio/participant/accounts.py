"""A participant's own account book: one line a piece of work, with energy, carbon and money.

It stays in the participant's folder.

What was begun and lost (a process killed before its round was committed) stands in it too: the
electricity was drawn. The coordinator hears of carbon and of money only what participant.toml
allows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tequio.core.errors import ConfigError, RunError
from tequio.core.texts.words import refusal
from tequio.core.types import Energy, Money
from tequio.ledger.folder import RunFolder, own_folder, written
from tequio.measure.budget import KEYS, add, cost, left

FILE = "accounts.jsonl"


@dataclass
class Spending:
    """spent: so far, by key; look: the dearest look at the own validation data; step: the dearest
    mean step; trained: since that look.
    """

    spent: dict[str, float] = field(default_factory=dict)
    look: dict[str, float] = field(default_factory=dict)
    step: dict[str, float] = field(default_factory=dict)
    trained: bool = False

    def add(self, work: str, more: Mapping[str, float | None], steps: int = 0) -> None:
        """One piece of work; steps: of training, where it is one of a round."""
        self.spent = add(self.spent, more)
        if steps:
            self.step = {
                key: max(self.step.get(key, 0.0), (more.get(key) or 0.0) / steps) for key in KEYS
            }
        self.trained = work == "train" or (self.trained and work != "evaluate")
        if work == "evaluate":
            self.look = {key: max(self.look.get(key, 0.0), more.get(key) or 0.0) for key in KEYS}


@dataclass(frozen=True)
class AccountBook:
    """Lines go to `under`/accounts.jsonl of `folder`, or nowhere. tell_carbon, tell_money: what the
    coordinator may know.

    counted: whether its money is in the federation's budget, told and in that currency.
    limits: the participant's own budget, by key of measure.budget; totals: what was spent of it,
        the same in all copies of these books.
    """

    folder: RunFolder | None = None
    under: str = ""
    tell_carbon: bool = True
    tell_money: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    spending: Spending = field(default_factory=Spending)
    counted: bool = True

    def opened(self, folder: RunFolder, under: str) -> AccountBook:
        """The same in a folder; what its book says was spent before counts.

        Raises ConfigError where it is damaged.

        A last line without its end, of a process that was killed as it wrote, is taken off.
        """
        spending = Spending(dict(self.spending.spent))
        path = folder.path / under / FILE
        whole, _, broken = (path.read_text(encoding="utf-8") if path.is_file() else "").rpartition(
            "\n"
        )
        if broken:
            folder.write_atomic(
                f"{under}/{FILE}", f"{whole}\n".encode() if whole else b"", private=True
            )
        try:
            for row in map(json.loads, whole.splitlines()):
                energy = Energy(**{f: row[f] for f in Energy.__dataclass_fields__ if f != "hosted"})
                money = row["money"] and row["money"]["amount"]
                spending.add(
                    str(row["work"]),
                    cost(energy, money, row.get("bytes", 0.0)),
                    int(row.get("steps", 0)),
                )
        except (ValueError, KeyError, TypeError):
            raise refusal(ConfigError, "damaged", path=path) from None
        return AccountBook(
            folder, under, self.tell_carbon, self.tell_money, self.limits, spending, self.counted
        )

    def left(self) -> dict[str, float]:
        """What remains of the budget."""
        return left(self.limits, self.spending.spent)

    def bound(self, given: Mapping[str, float]) -> dict[str, float]:
        """Of what the federation's budget allows, that which counts here: no money of another
        currency, or untold.
        """
        return {key: value for key, value in given.items() if key != "money" or self.counted}

    def enter(
        self,
        work: str,
        round_: int | None,
        energy: Energy,
        money: Money | None,
        size: float = 0.0,
        steps: int = 0,
    ) -> tuple[Energy, Money | None]:
        """Write one line; returns what may be told of it. size: bytes that it sends.

        Raises ResourceError where the disk is full.
        """
        self.spending.add(work, cost(energy, None if money is None else money.amount, size), steps)
        if self.folder is not None:
            line = {
                "work": work,
                "round": round_,
                **asdict(energy),
                "grams": energy.grams,
                "bytes": size,
            }
            line |= {"steps": steps} if steps else {}
            line["money"] = None if money is None else asdict(money)
            path = self.folder.path / self.under / FILE
            with written(path):
                own_folder(path.parent)
            with written(path), open(path, "a", encoding="utf-8", opener=_private) as stream:
                stream.write(json.dumps(line, sort_keys=True) + "\n")
        return (
            energy if self.tell_carbon else energy.undisclosed(),
            money if self.tell_money else None,
        )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read_account_books(run: Path) -> dict[str, list[Mapping[str, Any]]]:
    """Participant -> its lines, of those whose book is in this folder.

    Raises RunError where a line is damaged.

    A last line without its end, of a process that was killed as it wrote, is left out.
    """
    out: dict[str, list[Mapping[str, Any]]] = {}
    for path in sorted((run / "participants").glob(f"*/{FILE}")):
        text = path.read_text(encoding="utf-8")
        lines = text.split("\n")[:-1]
        try:
            out[path.parent.name] = [json.loads(line) for line in lines]
        except ValueError:
            raise refusal(RunError, "damaged", path=path) from None
    return out
