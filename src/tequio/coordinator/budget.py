"""The federation's budget at the coordinator: what was spent so far, what each may take in the next
round, and when to stop.

What remains is spread evenly over the rounds that remain (over fewer, where it would not pay for a
step of each in all of them), less what a round costs beside training and what the last look at
everybody's models will take, and over members by their steps. A participant that would overrun its
part makes fewer steps and says so; where not even one more round of one step each would fit, no
round is begun. Bytes
are not spread: a round is begun where the largest that it can be still fits. What is left after the
    rounds is for personal models.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tequio.coordinator.run_spec import Member
from tequio.core.reason import Reason
from tequio.measure.budget import KEYS, amounts, left
from tequio.measure.money import Price
from tequio.measure.site import JOULES_A_KWH

CENTRE = "centre"


@dataclass
class BudgetTracker:
    """limits by key; one_process: participants' energy is inside that of a round (no network).
    currency: of the limit on money.

    price: of the coordinator's machine, the centre with it.
    people: how many will be asked for a personal model; closing: what the last look at models
        takes, in passes over validation data.
    """

    limits: Mapping[str, float]
    one_process: bool
    currency: str = ""
    people: int = 0
    closing: float = 0.0
    price: Price | None = None
    spent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KEYS, 0.0))
    beside: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KEYS, 0.0))
    step: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KEYS, 0.0))
    look: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(KEYS, 0.0)
    )  # of one participant, mean
    own: dict[str, float] = field(
        default_factory=dict
    )  # of a participant's money in all, the part that it counts itself
    reason: Reason | None = None  # why no more round may begin

    def stopped(self) -> dict[str, Any]:
        """Return for the record why no more round may begin, and what was spent."""
        return {"reason": self.reason and self.reason.as_record(), "spent": dict(self.spent)}

    def add(self, body: Mapping[str, Any]) -> None:
        """Count a committed record: of the start, of a round, or of a wait for one."""
        flying = body.get(
            "in_flight",
            [],
            # buffered: trained in this window, to land in a later one, where its cost is not told
            # again
        )
        rows = [*body.get("train", []), *flying, *body.get("evaluation", [])]
        if not self.one_process:  # the centre works in the coordinator's
            rows = [row for row in rows if row["name"] != CENTRE]
        whole = _taken(body, self.currency)
        trained = [self._whole(row) for row in body.get("train", [])]
        taken = [_taken(row, self.currency) for row in rows]
        inside = dict.fromkeys(KEYS, 0.0)
        joules, own = _joules(body), sum(_hosted(row) for row in rows)
        rest = (
            max(0.0, joules - own) / joules if joules else 0.0
        )  # the coordinator's share of its process
        for key in KEYS:
            parts = sum(row[key] for row in taken)
            total = max(whole[key], parts) if self.one_process else whole[key] + parts
            if key == "money":
                total = parts + self._own_money(whole, body, rows)
            if key == "megabytes":  # the centre is where the coordinator is
                total = sum(
                    row[key] for row, of in zip(taken, rows, strict=True) if of["name"] != CENTRE
                )
            if (
                key in ("kwh", "kg_co2e") and self.one_process
            ):  # the rest of the process is the coordinator's, at its place
                total = parts + whole[key] * rest
            inside[key] = total
            self.spent[key] += total
        if rows:  # else it was a wait
            training = [*trained, *map(self._whole, flying)]
            self.own |= {
                row["name"]: of["money"] / all_
                for row, of in zip(rows, taken, strict=True)
                if row["name"] != CENTRE and (all_ := self._whole(row)["money"])
            }
            self.beside = {
                k: max(self.beside[k], inside[k] - sum(row[k] for row in training)) for k in KEYS
            }
        looks = [
            _taken(row, self.currency)
            for row in body.get("evaluation", [])
            if row["name"] != CENTRE
        ]
        if looks:
            self.look = {
                k: max(self.look[k], sum(row[k] for row in looks) / len(looks)) for k in KEYS
            }
        made = sum(row["steps"] for row in body.get("train", [])) / max(1, len(trained))
        if made:
            step = {key: sum(row[key] for row in trained) / made for key in KEYS}
            self.step = {
                key: max(value, self.step[key]) if "in_flight" in body else value
                for key, value in step.items()
            }
        if "kg_co2e" in self.limits:
            silent = [
                str(row["name"])
                for row in rows
                if row.get("energy") and row["energy"]["intensity"] is None
            ]
            if silent:
                self.reason = Reason("carbon-unknown", {"name": silent[0]})

    def _whole(self, row: Mapping[str, Any]) -> dict[str, float]:
        """What a row took, with what it adds to `_own_money`: the centre all of it, a participant
        in this process the hours.
        """
        taken = _taken(row, self.currency)
        if self.price is not None and row["name"] == CENTRE:
            taken["money"] = self.price.of(taken["kwh"], taken["hours"])
        elif self.price is not None and self.one_process:
            taken["money"] += self.price.of(0.0, taken["hours"])
        return taken

    def _own_money(
        self, whole: Mapping[str, float], body: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
    ) -> float:
        """The coordinator's and the centre's: its hours, and the electricity that participants in
        its process did not draw.
        """
        joules = _joules(body)
        drawn = (
            sum(_hosted(row) for row in rows if row["name"] != CENTRE) if self.one_process else 0.0
        )
        share = max(0.0, joules - drawn) / joules if joules else 0.0
        return 0.0 if self.price is None else self.price.of(whole["kwh"] * share, whole["hours"])

    def add_personal(self, body: Mapping[str, Any]) -> None:
        """Count what making one personal model took."""
        taken = _taken(body, self.currency)
        self.spent = {key: self.spent[key] + taken[key] for key in KEYS}

    def allow(
        self, members: Sequence[Member], rounds: int, most: int
    ) -> dict[int, dict[str, float]] | None:
        """What each may take in the round, by index and key;

        None (and `reason`) where no round may begin.

        rounds: that remain, this one with them. most: bytes it can have.
        """
        if self.reason:
            return None
        remaining = left(self.limits, self.spent)
        megabytes = remaining.pop("megabytes", math.inf)
        if most / 1e6 > megabytes:
            self.reason = Reason("bytes-spent", {"most": most / 1e6, "left": max(0.0, megabytes)})
            return None
        reserved_for = {
            key: value - self.closing * self.people * self.look[key]
            for key, value in remaining.items()
        }
        share = reserved_for
        for among in range(rounds, 0, -1):
            share = {key: value / among - self.beside[key] for key, value in reserved_for.items()}
            if all(value > self.step[key] for key, value in share.items()):
                break
        gone = [key for key in share if share[key] <= 0.0 or share[key] < self.step[key]]
        if gone:
            self.reason = Reason("budget-spent", {"keys": gone})
            return None
        steps = sum(member.steps for member in members)
        counts = {m.index: {"money": self.own.get(m.name, 1.0)} for m in members}
        return {
            m.index: {
                key: value * counts[m.index].get(key, 1.0) * m.steps / steps
                for key, value in share.items()
            }
            for m in members
        }

    def allow_personal(self, steps: Mapping[str, int]) -> dict[str, dict[str, float]]:
        """What each may take for its personal model, by name and key: what is left, by the steps of
        their rounds.

        Bytes are not in it.
        """
        remaining = left(self.limits, self.spent)
        remaining.pop("megabytes", None)
        whole = sum(steps.values())
        return {
            name: {key: max(0.0, value) * n / whole for key, value in remaining.items()}
            for name, n in steps.items()
        }


def _joules(row: Mapping[str, Any]) -> float:
    return float((row.get("energy") or {}).get("joules") or 0.0)


def _hosted(row: Mapping[str, Any]) -> float:
    """Joules at the watts of this machine, where the row's own are of another one."""
    hosted = (row.get("energy") or {}).get("hosted")
    return _joules(row) if hosted is None else float(hosted)


def _taken(row: Mapping[str, Any], currency: str) -> dict[str, float]:
    energy, money = row.get("energy") or {}, row.get("money") or {}
    joules = _joules(row) * float(energy.get("pue") or 1.0)
    grams = joules / JOULES_A_KWH * float(energy.get("intensity") or 0.0)
    amount = float(money["amount"]) if money and money.get("currency") == currency else 0.0
    size = (row.get("bytes_up") or 0) + (row.get("bytes_down") or 0)
    taken = amounts(joules, grams, amount, float(energy.get("seconds") or 0.0), size)
    return {key: value or 0.0 for key, value in taken.items()}
