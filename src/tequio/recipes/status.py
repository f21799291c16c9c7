"""How a federation across a network stands, from what lies in a coordinator's or a participant's folder; nothing is changed or sent.

`tequio status` and the metrics page both read it here. It works while the run goes on, after its end, and after a crash.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tequio.core.errors import ConfigError
from tequio.ledger.folder import IDENTITY, OFFICE, RUN
from tequio.ledger.record import Ledger
from tequio.recipes import office, renewal
from tequio.recipes.books import read_books
from tequio.recipes.files import json_table
from tequio.recipes.vitals import read_vitals

PATIENCE = 3.0  # seconds that the health page may take


class Tally:
    """The rounds of a ledger, added up; `read` goes on where it ended the last time, so that asking often costs little."""

    def __init__(self, path: Path) -> None:
        self.path, self._seen = path, -1
        self.header: Mapping[str, Any] = {}
        self.rounds: list[dict[str, Any]] = []  # short: round, accepted, reason, loss, seconds
        self.people: dict[str, dict[str, Any]] = {}
        self.joules = 0.0
        self.outcomes: dict[tuple[str, str, str], int] = {}  # (participant, status, kind of failure) -> rounds
        self.took_part: set[str] = set()
        self.missing: dict[str, str] = {}  # who has no personal model at the end, and why
        self.ended: Mapping[str, Any] | None = None

    def read(self) -> Tally:
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
            self._person(body["name"])["alone" if body.get("alone") else "personal"] = body["chosen"]
            self.missing.pop(body["name"], None)
            self._add_energy(body)
            self._add_wire({body["name"]: body["wire"]} if "wire" in body else {})
        elif kind == "missing":
            self.missing |= {row["name"]: row["reason"] for row in body["participants"]}
        elif kind == "end":
            self.ended = body
            self._add_wire(body.get("wire", {}))

    def _add_round(self, body: Mapping[str, Any]) -> None:
        number = int(body.get("round", 0))
        row = {"round": number, "accepted": body.get("accepted"), "reason": body.get("reason", "")}
        self.rounds.append(row | {"loss": body["mean_validation_loss"], "seconds": body["seconds"]})
        for name, scores in body["validation"].items():
            self._person(name)["loss"] = scores["loss"]
        for row in body.get("train", []):
            person = self._person(row["name"])
            person["bytes_up"] += int(row["bytes_up"])
            person["bytes_down"] += int(row.get("bytes_down", 0))
        for row in body.get("admissions", []):
            person = self._person(row["name"])
            if person["last"] != row["status"]:
                person |= {"last": row["status"], "since_round": number}
            person["reason"] = row["reason"]
            person["rounds"][row["status"]] = person["rounds"].get(row["status"], 0) + 1
            error = row["reason"].partition(":")[0] if row["status"] == "failed" else ""
            key = (row["name"], row["status"], error if error.endswith("Error") and error.isalpha() else "")
            self.outcomes[key] = self.outcomes.get(key, 0) + 1

    def _add_energy(self, body: Mapping[str, Any]) -> None:
        """Of a record: what the coordinator took, the centre with it, and what each participant says that it took."""
        centre = (self.header.get("centre") or {}).get("name")
        rows = [row for key in ("train", "in_flight", "evaluation") for row in body.get(key, ())]
        for record in (body.get("energy"), *(row.get("energy") for row in rows if row["name"] != centre)):
            self.joules += float((record or {}).get("joules") or 0.0)

    def _add_wire(self, wire: Mapping[str, Mapping[str, int]]) -> None:
        for name, ways in wire.items():
            for way in ("up", "down"):
                self._person(name)[f"wire_{way}"] += int(ways[way])

    def _person(self, name: str) -> dict[str, Any]:
        fresh: dict[str, Any] = {
            "last": None,
            "since_round": None,
            "reason": "",
            "rounds": {},
            "bytes_up": 0,
            "bytes_down": 0,
            "wire_up": 0,
            "wire_down": 0,
        }
        return self.people.setdefault(name, fresh | {"loss": None, "personal": None, "alone": None})


def status_of(folder: Path) -> dict[str, Any]:
    """Everything, as plain JSON. Raises ConfigError if the folder is neither a coordinator's nor a participant's."""
    if (folder / OFFICE).exists():
        return coordinator_status(folder, Tally(folder / "run/ledger.sqlite").read(), read_vitals(folder))
    if (folder / IDENTITY).exists():
        return _participant_status(folder)
    why = f"Expected {OFFICE} or {IDENTITY} in it."
    fix = "Name the folder that `tequio coordinator init` or `tequio join` made."
    if (folder / "ledger.sqlite").exists():
        why, fix = "It is a run.", f"See it with: tequio report {folder}"
    raise ConfigError(f"{folder} is neither a coordinator's folder nor a participant's.", why, fix)


def coordinator_status(folder: Path, tally: Tally, vitals: dict[str, Any] | None) -> dict[str, Any]:
    """Of a coordinator's folder: the rounds, and everybody on the roster.

    Of each, as recorded: bytes_up and bytes_down of updates; wire_up and wire_down of all that passed the door for it.
    """
    kept = office.read_office(folder)
    joined, rows = office.numbers_of(folder), office.enrolled(folder)
    alive = vitals is not None and bool(vitals["alive"])
    present = vitals["present"] if vitals else {}
    people = []
    for name in kept.tokens:
        here = present.get(str(joined.get(name)), {})
        on = bool(here.get("connected")) if alive and here else None
        row = {"name": name, "enrolled": name in joined, "connected": on, "since": here.get("since")}
        people.append(row | {"left": rows.get(name, {}).get("left")} | tally._person(name))
    last: dict[str, Any] = tally.rounds[-1] if tally.rounds else {}
    owed = {row["name"] for row in people if not row["personal"] and not row["left"]} & tally.took_part
    missing = {name: tally.missing.get(name, "") for name in sorted(owed)} if tally.ended else {}
    rounds = tally.header.get("config", {}).get("train", {}).get("rounds")
    return {
        "role": "coordinator",
        "name": tally.header.get("name"),
        "address": kept.address,
        "state": _state(vitals, tally.ended is not None, tally.header != {}),
        "process": _process(vitals),
        "round": last.get("round"),
        "rounds": rounds,
        "last_round": last or None,
        "accepted": sum(row["accepted"] is True for row in tally.rounds),
        "rejected": sum(row["accepted"] is False for row in tally.rounds),
        "validation": [{"round": r["round"], "loss": r["loss"], "accepted": r["accepted"]} for r in tally.rounds],
        "joules": tally.joules,
        "participants": people,
        "centre": {name: row for name, row in tally.people.items() if name not in kept.tokens},
        "refusals": vitals["refusals"] if vitals else {},
        "last_error": vitals["last_error"] if vitals else None,
        "missing": missing,
        "certificates": renewal.ending(folder, kept),
        "ended": None if tally.ended is None else tally.ended["reason"],
        "next": _coordinator_next(folder, vitals if alive else None, tally.ended is not None, bool(missing), people),
    }


def _participant_status(folder: Path) -> dict[str, Any]:
    """Of a participant's folder. updates_up: bytes of all updates it sent, by its own book; since_started: of whole messages, in the life
    of its process."""
    identity, vitals = json_table(folder / IDENTITY), read_vitals(folder)
    name, run = str(identity["name"]), folder / RUN
    tally = Tally(run / "ledger.sqlite").read()
    own = tally.people.get(name, {})
    made, alone = own.get("personal"), own.get("alone")
    alive = vitals is not None and bool(vitals["alive"])
    found = vitals or {}
    state, again = _state(vitals, made is not None, tally.header != {}), f"tequio participate {folder}"
    if alone and not made and not alive:
        state = "alone"  # by `tequio island`; the federation may go on
    return {
        "role": "participant",
        "name": name,
        "address": identity["address"],
        "state": state,
        "process": _process(vitals),
        "connected": bool(found.get("connected")) if alive else None,
        "since": found.get("since"),
        "connections": found.get("connections"),
        "last_task": found.get("last_task"),
        "rounds": tally.header.get("config", {}).get("train", {}).get("rounds"),
        "tasks": found.get("tasks", {}),
        "failures": found.get("failures", {}),
        "updates_up": int(sum(line.get("bytes", 0.0) for line in read_books(run).get(name, ()))),
        "since_started": {"bytes_down": found.get("bytes_down", 0), "bytes_up": found.get("bytes_up", 0)},
        "last_error": found.get("last_error"),
        "personal": made,
        "alone": alone,
        "next": None if alive and not made else f'tequio predict {run} {name} "a text"' if made or alone else again,
    }


def _state(vitals: Mapping[str, Any] | None, ended: bool, begun: bool) -> str:
    """not started, one of the stages of a live process, finished, stopped, failed, or killed (it ended without a word)."""
    if ended and not (vitals and vitals["alive"]):
        return "finished"
    if vitals is None:
        return "not running" if begun else "not started"
    stage = str(vitals["stage"])
    over = stage in ("stopped", "failed", "ended")
    return stage if vitals["alive"] or over else "killed"


def _process(vitals: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The live process, with what its health page says. None if none runs."""
    if vitals is None or not vitals["alive"]:
        return None
    row = {key: vitals.get(key) for key in ("process", "begun", "seen", "metrics", "superlink")}
    return row | {"health": None if vitals["metrics"] is None else _health(str(vitals["metrics"]))}


def _health(address: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{address}/health", timeout=PATIENCE):
            return "ok"
    except urllib.error.HTTPError as error:
        return f"not well ({error.code})"
    except (OSError, ValueError):
        return "no answer"


def _coordinator_next(
    folder: Path, process: Mapping[str, Any] | None, ended: bool, owed: bool, people: list[dict[str, Any]]
) -> str | None:
    """process: what the live one says of itself, None if none runs."""
    if process is None:
        return f"tequio report {folder / 'run'}" if ended and not owed else f"tequio coordinator start {folder}"
    invited = [row["name"] for row in people if not row["enrolled"] and not row["left"]]
    if not invited or ended or process["stage"] == "preparing":  # its door is not open yet
        return None
    return f"tequio join {folder / 'invitations' / invited[0]}.json participant.toml"
