"""The rounds of a ledger added up, for `tequio status` and the metrics page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tequio.core.bounds import LARGEST, TEXT
from tequio.core.texts.earlier import read_record
from tequio.ledger.record import Ledger

UNUSABLE = "not usable"  # what stands in place of what an older version recorded unread


class RunTotals:
    """The rounds of a ledger, added up;

    `read` goes on where it ended the last time, so that asking often costs little.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._seen = path, -1
        self.header: Mapping[str, Any] = {}
        self.rounds: list[dict[str, Any]] = []  # short: round, accepted, reason, loss, seconds
        self.people: dict[str, dict[str, Any]] = {}
        self.joules = 0.0
        self.outcomes: dict[
            tuple[str, str, str], int
        ] = {}  # (participant, status, code or kind of failure) -> rounds
        self.took_part: set[str] = set()
        self.heard = False  # of a participant: whether the coordinator heard of its personal model
        self.missing: dict[
            str, dict[str, Any] | None
        ] = {}  # who has no personal model at the end, and why
        self.ended: Mapping[str, Any] | None = None

    def read(self) -> RunTotals:
        """Add what is new. A ledger that is not there yet is an empty one."""
        if self.path.exists():
            with Ledger.open(self.path, read_only=True) as ledger:
                for entry in ledger.entries(after=self._seen):
                    self._add(entry.kind, entry.body)
                    self._seen = entry.seq
        return self

    def _add(self, kind: str, body: Mapping[str, Any]) -> None:
        if kind == "run":
            self.header = body
            self.took_part |= {row["name"] for row in body["participants"]}
        elif kind == "joined":
            self.took_part.add(body["participant"]["name"])
        elif kind in ("start", "round"):
            self._add_round(body)
            self._add_energy(body)
            self._add_wire(body.get("wire", {}))
        elif kind == "wait":
            self._add_energy(body)
            self._add_wire(body.get("wire", {}))
        elif kind == "personal":
            chosen = body.get("chosen")
            known = isinstance(chosen, str) and len(chosen) <= TEXT
            self.person(body["name"])["alone" if body.get("alone") else "personal"] = (
                chosen if known else UNUSABLE
            )
            self.missing.pop(body["name"], None)
            self._add_energy(body)
            self._add_wire({body["name"]: body["wire"]} if "wire" in body else {})
        elif kind == "delivered":
            self.heard = True
        elif kind == "missing":
            self.missing |= {
                row["name"]: read_record(row["reason"]) for row in body["participants"]
            }
        elif kind == "end":
            self.ended = body
            self._add_wire(body.get("wire", {}))

    def _add_round(self, body: Mapping[str, Any]) -> None:
        number = int(body.get("round", 0))
        row = {
            "round": number,
            "accepted": body.get("accepted"),
            "reason": read_record(body.get("reason")),
        }
        self.rounds.append(row | {"loss": body["mean_validation_loss"], "seconds": body["seconds"]})
        for name, scores in body["validation"].items():
            self.person(name)["loss"] = scores["loss"]
        for row in body.get("barred", []):
            self.person(row["name"]).update(
                last="barred", since_round=number, reason=read_record(row["reason"])
            )
        for row in body.get("train", []):
            person = self.person(row["name"])
            person["bytes_up"] += int(row["bytes_up"])
            person["bytes_down"] += int(row.get("bytes_down", 0))
        for row in body.get("admissions", []):
            person = self.person(row["name"])
            if person["last"] != row["status"]:
                person |= {"last": row["status"], "since_round": number}
            person["reason"] = why = read_record(row["reason"])
            person["rounds"][row["status"]] = person["rounds"].get(row["status"], 0) + 1
            kind = (
                ""
                if why is None or row["status"] != "failed"
                else str(why["facts"].get("error", why["code"]))
            )
            key = (row["name"], row["status"], kind)
            self.outcomes[key] = self.outcomes.get(key, 0) + 1

    def _add_energy(self, body: Mapping[str, Any]) -> None:
        """Of a record: what the coordinator took, the centre with it, and what each participant
        says that it took.
        """
        centre = (self.header.get("centre") or {}).get("name")
        rows = [row for key in ("train", "in_flight", "evaluation") for row in body.get(key, ())]
        for record in (
            body.get("energy"),
            *(row.get("energy") for row in rows if row["name"] != centre),
        ):
            joules = record.get("joules") if isinstance(record, Mapping) else None
            self.joules += (
                joules if isinstance(joules, int | float) and 0 <= joules <= LARGEST else 0.0
            )

    def _add_wire(self, wire: Mapping[str, Mapping[str, int]]) -> None:
        for name, ways in wire.items():
            for way in ("up", "down"):
                self.person(name)[f"wire_{way}"] += int(ways[way])

    def person(self, name: str) -> dict[str, Any]:
        fresh: dict[str, Any] = {
            "last": None,
            "since_round": None,
            "reason": None,
            "rounds": {},
            "bytes_up": 0,
            "bytes_down": 0,
            "wire_up": 0,
            "wire_down": 0,
        }
        return self.people.setdefault(name, fresh | {"loss": None, "personal": None, "alone": None})
