"""How a federation across a network stands, from what lies in a coordinator's or a participant's folder; nothing is changed or sent.

`tequio status` and the metrics page both read it here. It works while the run goes on, after its end, and after a crash.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from tequio.app.network.hub import certificates
from tequio.app.network.hub import folder as hub_folder
from tequio.app.network.monitoring.health import OVER, read_vitals
from tequio.app.network.monitoring.totals import Tally
from tequio.app.run_files import json_table
from tequio.core.errors import ConfigError
from tequio.ledger.folder import BUNDLE, IDENTITY, OFFICE, RUN
from tequio.participant.accounts import read_books

PATIENCE = 3.0  # seconds that the health page may take


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
    kept = hub_folder.read_office(folder)
    joined, rows = hub_folder.numbers_of(folder), hub_folder.enrolled(folder)
    alive = _awake(vitals)
    present = vitals["present"] if vitals else {}
    people = []
    for name in kept.tokens:
        here = present.get(str(joined.get(name)), {})
        on = bool(here.get("connected")) if alive and here else None
        row = {"name": name, "enrolled": name in joined, "connected": on, "since": here.get("since")}
        people.append(row | {"left": rows.get(name, {}).get("left")} | tally.person(name))
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
        "note": _silence(vitals),
        "missing": missing,
        "certificates": certificates.ending(folder, kept),
        "ended": None if tally.ended is None else tally.ended["reason"],
        "next": _wake(vitals, f"tequio coordinator start {folder}")
        or _coordinator_next(folder, vitals if alive else None, tally.ended is not None, bool(missing), people),
    }


def _participant_status(folder: Path) -> dict[str, Any]:
    """Of a participant's folder. updates_up: bytes of all updates it sent, by its own book; since_started: of whole messages, in the life
    of its process."""
    identity, vitals = json_table(folder / IDENTITY), read_vitals(folder)
    name, run = str(identity["name"]), folder / RUN
    tally = Tally(run / "ledger.sqlite").read()
    own = tally.people.get(name, {})
    made, alone = own.get("personal"), own.get("alone")
    alive = _awake(vitals)
    found = vitals or {}
    over = bool(made) and (tally.heard or found.get("stage") == "ended")  # ended: the coordinator said that it is over
    state, again = _state(vitals, over, tally.header != {}), f"tequio participate {folder}"
    left = _left(folder, identity, tally.header != {}, bool(made or alone)) if "left" in identity else None
    if vitals is None or not vitals["alive"]:
        state = "left" if left else "alone" if alone and not made else state  # alone: the federation may go on
    following: str | None = f'tequio predict {run} {name} "a text"'
    if not over and (alive or made or not alone):
        following = None if alive else again
    unheard = "The coordinator has not heard of the personal model yet." if made and not over else None
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
        "left": left and left["left"],
        "bundle": left and left["bundle"],
        "note": _silence(vitals) or (left["note"] if left else unheard),
        "next": _wake(vitals, again) or (left["next"] if left else following),
    }


def _left(folder: Path, identity: Mapping[str, Any], begun: bool, made: bool) -> dict[str, Any]:
    """Of a participant that left: when, where that lies which it took along, what to know of it, and how to go on."""
    name, bundle = str(identity["name"]), Path(identity.get("bundle", folder / BUNDLE))
    told = identity.get("told") == "yes"
    words = "the coordinator was told" if told else "the coordinator was not told: leave again with another --out"
    note, following = f"{name} left the federation on {identity['left']}; {words}.", None
    taken = Tally(bundle / "ledger.sqlite").read() if bundle.is_dir() else None
    if taken is not None:
        note += f" What it took along: {bundle}."
    if made:
        own = taken.people.get(name, {}) if taken is not None else {}
        where = bundle if own.get("personal") or own.get("alone") else folder / RUN
        following = f'tequio predict {where} {name} "a text"'
    elif begun:
        following = f"tequio island {folder}"
    return {
        "left": identity["left"],
        "bundle": str(bundle) if taken is not None else None,
        "note": note,
        "next": following,
    }


def _state(vitals: Mapping[str, Any] | None, ended: bool, begun: bool) -> str:
    """not started, one of the stages of a live process, not responding, finished, stopped, failed, or killed (it ended without a word)."""
    if vitals is not None and vitals.get("silent"):
        return "not responding"
    if ended and not (vitals and vitals["alive"]):
        return "finished"
    if vitals is None:
        return "not running" if begun else "not started"
    stage = str(vitals["stage"])
    return stage if vitals["alive"] or stage in OVER else "killed"


def _awake(vitals: Mapping[str, Any] | None) -> bool:
    """Whether a process runs, and what it says is of now."""
    return vitals is not None and bool(vitals["alive"]) and not vitals.get("silent")


def _silence(vitals: Mapping[str, Any] | None) -> str | None:
    """What a person should know of a process that does not respond."""
    if vitals is None or not vitals.get("silent"):
        return None
    seen = datetime.fromisoformat(vitals["seen"])
    why = "is paused" if vitals["paused"] else "hangs, or cannot write to its folder"
    return f"Process {vitals['process']}, not responding since {seen:%H:%M:%S} UTC of {seen:%Y-%m-%d}, {why}."


def _wake(vitals: Mapping[str, Any] | None, again: str) -> str | None:
    """The command to go on with where a process does not respond. again: what starts one."""
    if vitals is None or not vitals.get("silent"):
        return None
    return f"kill -CONT {vitals['process']}" if vitals["paused"] else f"kill -9 {vitals['process']}; {again}"


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
