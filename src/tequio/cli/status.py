"""`tequio status`: how a federation across a network stands, for a person or as JSON."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from tequio.cli import output
from tequio.cli.options import Json
from tequio.core.durations import duration
from tequio.core.reply_schemas import LEAST_LOSS, MOST_LOSS
from tequio.core.texts.words import ENGLISH

LOSSES = 8  # the last so many rounds are shown


def status(
    folder: Annotated[Path, typer.Argument(help="Folder of a coordinator, or of a participant.")],
    json: Json = False,
) -> None:
    """Print the state of a federation across a network: rounds, connections, bytes, errors, and
    what to do.
    """
    from tequio.app.network.monitoring.status import read_status

    found = read_status(folder)
    words = _coordinator if found["role"] == "coordinator" else _participant
    output.emit(found, json, lambda: words(found))


def _coordinator(found: Mapping[str, Any]) -> None:
    output.say(
        f"{found['name'] or 'Federation'} at {found['address']}: {found['state']}{_process(found)}"
    )
    last = found["last_round"]
    if last is not None:
        of = f"Round {found['round']} of {found['rounds']}"
        counts = f"{found['accepted']} accepted, {found['rejected']} rejected"
        output.say(
            f"{of}; {counts}. {found['joules'] / 3600:.2f} Wh; last round "
            f"{duration(last['seconds'])}."
        )
        if last["accepted"] is False:
            output.say(f"The last round was rejected: {ENGLISH.reason(last['reason'])}")
        losses = "  ".join(
            f"{row['round']}: "
            f"{_loss(row['loss'])}{'' if row['accepted'] is not False else ' (rejected)'}"
            for row in found["validation"][-LOSSES:]
        )
        output.say(f"Validation loss by round  {losses}")
    heads = [
        "participant",
        "enrolled",
        "connected",
        "since",
        "last update",
        "updates sent",
        "sent in all",
        "received in all",
        "loss",
        "personal",
    ]
    lines = [
        [Text(cell) for cell in _cells(row)] for row in found["participants"]
    ]  # its words may hold markup
    output.table(output.tabular(heads, lines, left=(0, 1, 2, 3, 4, 9), wrapped=range(len(heads))))
    what = (
        "Bytes are those of the record, since the run began; in all: whatever passed the door "
        "for a participant."
    )
    output.say(what, *map(_wait, found["waits_for"]))
    if missing := {name: ENGLISH.reason(reason) for name, reason in found["missing"].items()}:
        output.say(
            "Without a personal model: "
            f"{', '.join(f'{k} ({v})' if v else k for k, v in missing.items())}."
        )
    output.say(*(f"Warning: {ENGLISH.reason(reason)}" for reason in found["certificates"]))
    if found["refusals"]:
        counts = ", ".join(
            f"{reason} {count}" for reason, count in sorted(found["refusals"].items())
        )
        output.say(f"Rejected connections: {counts}.")
    _end(found)


def _cells(row: Mapping[str, Any]) -> list[str]:
    joined = f"left {row['left']}" if row["left"] else _yes(row["enrolled"])
    sizes = [_size(row[key]) for key in ("bytes_up", "wire_up", "wire_down")]
    before = [row["name"], joined, _yes(row["connected"]), row["since"] or "–", _last(row)]
    return [*before, *sizes, _loss(row["loss"]), row["personal"] or "–"]


def _participant(found: Mapping[str, Any]) -> None:
    output.say(
        f"{found['name']}, of the federation at {found['address']}: "
        f"{found['state']}{_process(found)}"
    )
    if found["connected"] is not None:
        output.say(
            f"{'Connected' if found['connected'] else 'Not connected'} since {found['since']}."
        )
    if found["last_task"] is not None:
        task, tasks = (
            found["last_task"],
            ", ".join(f"{kind} {count}" for kind, count in sorted(found["tasks"].items())),
        )
        output.say(
            f"Last task: {task['kind']} of round {task['round']} (of {found['rounds']}), at "
            f"{task['time']}."
        )
        down, up = (_size(found["since_started"][key]) for key in ("bytes_down", "bytes_up"))
        output.say(f"Since this process was started: {tasks}; {down} down, {up} up in all.")
    if found["updates_up"]:
        output.say(f"Updates sent since it joined, by its own book: {_size(found['updates_up'])}.")
    if found["failures"]:
        output.say(
            "Could not be done: "
            f"{', '.join(f'{k} {n}' for k, n in sorted(found['failures'].items()))}."
        )
    if found["departed"] is not None:
        last = found["departed"]
        output.say(
            f"The coordinator departed from what was agreed ({last['times']}). Last, "
            f"{last['time']}: {last['what']}"
        )
    if found["members"] is not None:
        listed = found["members"]
        output.say(
            f"Masked rounds: {len(listed['keys'])} members, fingerprint {listed['fingerprint']}."
        )
        if listed["offered"]:
            output.say(
                f"Another key is shown for {', '.join(listed['offered'])}: see `tequio members`."
            )
    if found["personal"] is not None:
        output.say(f"Personal model made; kept: {found['personal']}.")
    if found["alone"] is not None:
        output.say(f"Personal model made alone, by `tequio island`; kept: {found['alone']}.")
    _end(found)


def _end(found: Mapping[str, Any]) -> None:
    error = found["last_error"]
    if error is not None:
        output.say(f"Last error, {error['time']}: {error['what']}")
    if found["note"] is not None:
        output.say(ENGLISH.reason(found["note"]))
    if found["next"] is not None:
        output.say(f"Next: {found['next']}")


def _process(found: Mapping[str, Any]) -> str:
    process = found["process"]
    if process is None:
        return "."
    health = "" if process["health"] is None else f", health page: {process['health']}"
    return f" (process {process['process']} since {process['begun']}{health})."


def _wait(row: Mapping[str, Any]) -> str:
    """Print which participants the coordinator waits for, and since when."""
    since = datetime.fromisoformat(row["since"])
    length = duration(max(0.0, (datetime.now(UTC) - since).total_seconds()))
    what = f"to answer ({row['task']})" if row["task"] else "to connect"
    times = "once" if row["sent_again"] == 1 else f"{row['sent_again']} times"
    again = f"; the task was sent again {times}" if row["sent_again"] else ""
    return f"Waiting for {row['name']} {what} since {since:%H:%M:%S} UTC ({length}){again}."


def _last(row: Mapping[str, Any]) -> str:
    if row["last"] is None:
        return "–"
    since = f"{row['last']} since round {row['since_round']}"
    return f"{since}: {ENGLISH.reason(row['reason'])[:80]}" if row["reason"] else since


def _yes(value: bool | None) -> str:
    return "–" if value is None else "yes" if value else "no"


def _loss(value: object) -> str:
    """A loss; what an older version recorded unread may be anything."""
    if value is None:
        return "–"
    known = isinstance(value, int | float) and LEAST_LOSS <= value <= MOST_LOSS
    return f"{value:.4f}" if known else "not usable"


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 10_000 else f"{count} B"
