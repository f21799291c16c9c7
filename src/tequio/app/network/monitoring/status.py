"""How a federation across a network stands, from what lies in a coordinator's or a participant's
folder; nothing is changed or sent.

`tequio status` and the metrics page both read it here. It works while the run goes on, after its
end, and after a crash.
"""

import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tequio.app.network.hub import certificates
from tequio.app.network.hub import folder as hub_folder
from tequio.app.network.members import describe_members
from tequio.app.network.monitoring.health import OVER, read_health
from tequio.app.network.monitoring.totals import RunTotals
from tequio.app.run_files import json_table
from tequio.config import whole
from tequio.core.errors import ConfigError
from tequio.core.reason import Reason
from tequio.core.texts.earlier import read_record
from tequio.core.texts.words import refusal
from tequio.ledger.folder import BUNDLE, COORDINATOR_FILE, IDENTITY, RUN
from tequio.participant.accounts import read_account_books

DESERTED = "rounds, nobody connected"
PATIENCE = 3.0  # seconds that the health page may take


def read_status(folder: Path) -> dict[str, Any]:
    """Everything, as plain JSON.

    Raises ConfigError if the folder is neither a coordinator's nor a participant's.
    """
    if (folder / COORDINATOR_FILE).exists():
        return coordinator_status(
            folder, RunTotals(folder / "run/ledger.sqlite").read(), read_health(folder)
        )
    if (folder / IDENTITY).exists():
        return _participant_status(folder)
    raise refusal(
        ConfigError,
        "folder-is-a-run" if (folder / "ledger.sqlite").exists() else "folder-of-no-network",
        folder=folder,
    )


def coordinator_status(
    folder: Path, totals: RunTotals, health: dict[str, Any] | None
) -> dict[str, Any]:
    """Of a coordinator's folder: the rounds, and everybody on the roster.

    Of each, as recorded: bytes_up and bytes_down of updates; wire_up and wire_down of all that
    passed the gateway for it.
    """
    hub = hub_folder.read_coordinator_folder(folder)
    joined, rows = hub_folder.node_numbers(folder), hub_folder.enrolled(folder)
    alive = _awake(health)
    present = health["present"] if health else {}
    people = []
    for name in hub.tokens:
        here = present.get(str(joined.get(name)), {})
        people.append(
            {
                "name": name,
                "enrolled": name in joined,
                "connected": bool(here.get("connected")) if alive and here else None,
                "since": here.get("since"),
                "left": rows.get(name, {}).get("left"),
            }
            | totals.person(name)
        )
    last: dict[str, Any] = totals.rounds[-1] if totals.rounds else {}
    owed = {
        row["name"] for row in people if not row["personal"] and not row["left"]
    } & totals.took_part
    missing = {name: totals.missing.get(name) for name in sorted(owed)} if totals.ended else {}
    rounds = _rounds(totals)
    state, note = (
        _state(health, totals.ended is not None, totals.header != {}),
        _silence(health) or _last_seen(health),
    )
    if state == "rounds" and (note := _deserted(people)) is not None:
        state = DESERTED
    return {
        "role": "coordinator",
        "name": totals.header.get("name"),
        "address": hub.address,
        "state": state,
        "process": _process(health),
        "round": last.get("round"),
        "rounds": rounds,
        "last_round": last or None,
        "accepted": sum(row["accepted"] is True for row in totals.rounds),
        "rejected": sum(row["accepted"] is False for row in totals.rounds),
        "validation": [
            {"round": r["round"], "loss": r["loss"], "accepted": r["accepted"]}
            for r in totals.rounds
        ],
        "joules": totals.joules,
        "participants": people,
        "waits_for": health.get("waits_for", [])
        if health and alive and health["stage"] not in OVER
        else [],
        "centre": {name: row for name, row in totals.people.items() if name not in hub.tokens},
        "refusals": health["refusals"] if health else {},
        "last_error": health["last_error"] if health else None,
        "note": read_record(note),
        "missing": missing,
        "certificates": certificates.ending(folder, hub),
        "ended": None if totals.ended is None else read_record(totals.ended["reason"]),
        "next": _wake(health, f"tequio coordinator start {folder}")
        or _coordinator_next(
            folder, health if alive else None, totals.ended is not None, bool(missing), people
        ),
    }


def _rounds(totals: RunTotals) -> int | None:
    """Return how many rounds a run may have; None where it has not begun."""
    found: int | None = whole(totals.header.get("config")).get("train", {}).get("rounds")
    return found


def _participant_status(folder: Path) -> dict[str, Any]:
    """Of a participant's folder. updates_up: bytes of all updates it sent, by its own book;
    since_started: of whole messages, in the life
    of its process."""
    identity, health = json_table(folder / IDENTITY), read_health(folder)
    name, run = str(identity["name"]), folder / RUN
    totals = RunTotals(run / "ledger.sqlite").read()
    own = totals.people.get(name, {})
    made, alone = own.get("personal"), own.get("alone")
    alive = _awake(health)
    found = health or {}
    over = bool(made) and (
        totals.heard or found.get("stage") == "ended"
    )  # ended: by the coordinator
    state, again = _state(health, over, totals.header != {}), f"tequio participate {folder}"
    left = (
        _left(folder, identity, totals.header != {}, bool(made or alone))
        if "left" in identity
        else None
    )
    if health is None or not health["alive"]:
        # alone: the federation may continue
        state = "left" if left else "alone" if alone and not made else state
    following: str | None = f'tequio predict {run} {name} "a text"'
    if not over and (alive or made or not alone):
        following = None if alive else again
    unheard = Reason("personal-unheard") if made and not over else None
    if over and not totals.heard:
        unheard = Reason("personal-unconfirmed")
    return {
        "role": "participant",
        "name": name,
        "address": identity["address"],
        "state": state,
        "process": _process(health),
        "connected": bool(found.get("connected")) if alive else None,
        "since": found.get("since"),
        "connections": found.get("connections"),
        "last_task": found.get("last_task"),
        "rounds": _rounds(totals),
        "tasks": found.get("tasks", {}),
        "failures": found.get("failures", {}),
        "departed": found.get("departed"),
        "updates_up": int(
            sum(line.get("bytes", 0.0) for line in read_account_books(run).get(name, ()))
        ),
        "since_started": {
            "bytes_down": found.get("bytes_down", 0),
            "bytes_up": found.get("bytes_up", 0),
        },
        "last_error": found.get("last_error"),
        "personal": made,
        "members": describe_members(folder, str(identity.get("federation", ""))),
        "alone": alone,
        "left": left and left["left"],
        "bundle": left and left["bundle"],
        "note": read_record(_silence(health) or (left["note"] if left else unheard)),
        "next": _wake(health, again) or (left["next"] if left else following),
    }


def _left(folder: Path, identity: Mapping[str, Any], begun: bool, made: bool) -> dict[str, Any]:
    """Of a participant that left: when, where that lies which it took along, what to know of it,
    and how to go on.
    """
    name, bundle = str(identity["name"]), Path(identity.get("bundle", folder / BUNDLE))
    taken = RunTotals(bundle / "ledger.sqlite").read() if bundle.is_dir() else None
    note = Reason(
        "left-on" if identity.get("told") == "yes" else "left-unannounced",
        {"name": name, "when": identity["left"], "bundle": None if taken is None else str(bundle)},
    )
    following = None
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


def _state(health: Mapping[str, Any] | None, ended: bool, begun: bool) -> str:
    """not started, one of the stages of a live process, not responding, finished, stopped, failed,
    or killed (it ended without a word).
    """
    if health is not None and health.get("silent"):
        return "not responding"
    if ended and not (health and health["alive"]):
        return "finished"
    if health is None:
        return "not running" if begun else "not started"
    stage = str(health["stage"])
    return stage if health["alive"] or stage in OVER else "killed"


def _awake(health: Mapping[str, Any] | None) -> bool:
    """Return whether a process runs and its file is up to date."""
    return health is not None and bool(health["alive"]) and not health.get("silent")


def _silence(health: Mapping[str, Any] | None) -> Reason | None:
    """Return what a person should know of a process that does not respond."""
    if health is None or not health.get("silent"):
        return None
    return Reason(
        "process-paused" if health["paused"] else "process-hangs",
        {
            "process": health["process"],
            "since": f"{datetime.fromisoformat(health['seen']):%Y-%m-%d %H:%M:%S} UTC",
        },
    )


def _last_seen(health: Mapping[str, Any] | None) -> Reason | None:
    """Return when a stopped coordinator last ran;

    None where one runs, or where the run has ended.
    """
    if health is None or health["alive"] or health["stage"] == "ended":
        return None
    return Reason(
        "no-coordinator",
        {"until": f"{datetime.fromisoformat(health['seen']):%Y-%m-%d %H:%M:%S} UTC"},
    )


def _deserted(people: Sequence[Mapping[str, Any]]) -> Reason | None:
    """Return since when no enrolled participant is connected; None where one is, or if unknown."""
    joined = [row for row in people if row["enrolled"] and not row["left"]]
    if not joined or any(row["connected"] is not False for row in joined):
        return None
    return Reason("nobody-connected", {"since": max(str(row["since"]) for row in joined)})


def _wake(health: Mapping[str, Any] | None, again: str) -> str | None:
    """Return the command to resume with where a process does not respond. again: what starts
    one.
    """
    if health is None or not health.get("silent"):
        return None
    return (
        f"kill -CONT {health['process']}"
        if health["paused"]
        else f"kill -9 {health['process']}; {again}"
    )


def _process(health: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the live process, with the facts of its health page; None if none runs."""
    if health is None or not health["alive"]:
        return None
    return {
        **{key: health.get(key) for key in ("process", "begun", "seen", "metrics", "superlink")},
        "health": None if health["metrics"] is None else _health(str(health["metrics"])),
    }


def _health(address: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{address}/health", timeout=PATIENCE):
            return "ok"
    except urllib.error.HTTPError as error:
        return f"not well ({error.code})"
    except (OSError, ValueError):
        return "no answer"


def _coordinator_next(
    folder: Path,
    process: Mapping[str, Any] | None,
    ended: bool,
    owed: bool,
    people: list[dict[str, Any]],
) -> str | None:
    """process: what the live one says of itself, None if none runs."""
    if process is None:
        return (
            f"tequio report {folder / 'run'}"
            if ended and not owed
            else f"tequio coordinator start {folder}"
        )
    invited = [row["name"] for row in people if not row["enrolled"] and not row["left"]]
    if not invited or ended or process["stage"] == "preparing":  # its gateway is not open yet
        return None
    return f"tequio join {folder / 'invitations' / invited[0]}.json participant.toml"
