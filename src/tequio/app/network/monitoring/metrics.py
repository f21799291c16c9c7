"""`/metrics` in Prometheus' text format, and `/health`, of a running coordinator or participant.

The few lines of the format are written here: the numbers are kept elsewhere already (ledger,
health), so a library would only print them. The tests read the page with Prometheus' own parser.
Names of participants stand at the coordinator's only; nothing of anybody's data.
"""

import json
import math
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import tequio
from tequio.app.network.monitoring.health import Health
from tequio.app.network.monitoring.status import coordinator_status
from tequio.app.network.monitoring.totals import RunTotals
from tequio.core import errors
from tequio.core.texts.words import TEXTS
from tequio.runtimes.http_pages import Page

KIND = "text/plain; version=0.0.4; charset=utf-8"
Sample = tuple[Mapping[str, str], float | int | None]


def coordinator_pages(folder: Path, health: Health) -> dict[str, Page]:
    """The two pages of a coordinator."""
    totals, lock = RunTotals(folder / "run/ledger.sqlite"), Lock()

    def status() -> dict[str, Any]:
        with lock:
            return coordinator_status(
                folder, totals.read(), health.facts() | {"alive": True, "metrics": None}
            )

    def metrics() -> tuple[int, str, str]:
        found = status()
        with lock:
            return 200, KIND, _coordinator(found, totals)

    def health_page() -> tuple[int, str, str]:
        found = status()
        ok = found["process"]["superlink"] is not False
        return _health(ok, {key: found[key] for key in ("state", "round", "rounds")})

    return {"/metrics": metrics, "/health": health_page}


def participant_pages(health: Health) -> dict[str, Page]:
    """The two pages of a participant. It is well without a connection: it tries for ever."""

    def metrics() -> tuple[int, str, str]:
        return 200, KIND, _participant(health.facts())

    def health_page() -> tuple[int, str, str]:
        facts = health.facts()
        return _health(True, {"state": facts["stage"], "connected": facts["connected"]})

    return {"/metrics": metrics, "/health": health_page}


def _health(ok: bool, body: Mapping[str, Any]) -> tuple[int, str, str]:
    return (200 if ok else 503), "application/json", json.dumps({"ok": ok, **body}) + "\n"


def _coordinator(found: Mapping[str, Any], totals: RunTotals) -> str:
    people = found["participants"]
    last = found["last_round"] or {}
    states = {"invited": len(people), "enrolled": sum(p["enrolled"] for p in people)}
    states["connected"] = sum(p["connected"] is True for p in people)
    updates = [
        ({"participant": name, "status": status, "kind": known(kind)}, count)
        for (name, status, kind), count in sorted(_merged(totals.outcomes).items())
    ]
    ways = _ways(people, "bytes")
    return "".join(
        (
            *_build(),
            metric(
                "tequio_superlink_up",
                "gauge",
                "SuperLink answered.",
                [({}, found["process"]["superlink"])],
            ),
            metric("tequio_round", "gauge", "Last committed round.", [({}, found["round"])]),
            metric("tequio_rounds", "gauge", "Rounds at most.", [({}, found["rounds"])]),
            metric(
                "tequio_rounds_total", "counter", "Committed rounds by outcome.", outcomes(found)
            ),
            metric(
                "tequio_round_seconds",
                "gauge",
                "Time of the last round.",
                [({}, last.get("seconds"))],
            ),
            metric(
                "tequio_validation_loss",
                "gauge",
                "Of the last round, mean.",
                [({}, last.get("loss"))],
            ),
            metric(
                "tequio_energy_joules_total",
                "counter",
                "Energy of all rounds.",
                [({}, found["joules"])],
            ),
            metric(
                "tequio_participants",
                "gauge",
                "How many.",
                [({"state": k}, v) for k, v in states.items()],
            ),
            metric(
                "tequio_participant_connected",
                "gauge",
                "1 if connected.",
                [({"participant": p["name"]}, p["connected"] is True) for p in people],
            ),
            metric(
                "tequio_updates_total",
                "counter",
                "Updates by what became of them, with the error.",
                updates,
            ),
            metric(
                "tequio_update_bytes_total", "counter", "Bytes of updates and of broadcasts.", ways
            ),
            metric(
                "tequio_wire_bytes_total",
                "counter",
                "Bytes of messages, to and from.",
                _ways(people, "wire"),
            ),
            metric(
                "tequio_door_refusals_total",
                "counter",
                "Requests refused at the door.",
                [
                    ({"reason": reason}, count)
                    for reason, count in sorted(found["refusals"].items())
                ],
            ),
        )
    )


def _ways(people: Iterable[Mapping[str, Any]], what: str) -> list[Sample]:
    return [
        ({"participant": p["name"], "direction": way}, p[f"{what}_{way}"])
        for p in people
        for way in ("up", "down")
    ]


def _participant(facts: Mapping[str, Any]) -> str:
    ways = [({"direction": way}, facts[f"bytes_{way}"]) for way in ("up", "down")]
    last = facts["last_task"] or {}
    return "".join(
        (
            *_build(),
            metric(
                "tequio_connected",
                "gauge",
                "1 if connected to the coordinator.",
                [({}, facts["connected"])],
            ),
            metric(
                "tequio_connections_total",
                "counter",
                "Connections made.",
                [({}, facts["connections"])],
            ),
            metric("tequio_round", "gauge", "Round of the last task.", [({}, last.get("round"))]),
            metric(
                "tequio_tasks_total",
                "counter",
                "Tasks that came.",
                [({"kind": kind}, count) for kind, count in sorted(facts["tasks"].items())],
            ),
            metric(
                "tequio_task_failures_total",
                "counter",
                "Tasks that could not be done.",
                [
                    ({"kind": known(kind)}, count)
                    for kind, count in sorted(facts["failures"].items())
                ],
            ),
            metric("tequio_message_bytes_total", "counter", "Bytes of messages.", ways),
        )
    )


def outcomes(found: Mapping[str, Any]) -> list[Sample]:
    """Accepted and rejected rounds."""
    return [({"outcome": key}, found[key]) for key in ("accepted", "rejected")]


def _build() -> list[str]:
    labels = {"version": tequio.__version__, "python": platform.python_version()}
    return [metric("tequio_build_info", "gauge", "Versions.", [(labels, 1)])]


def known(kind: str) -> str:
    """The code of a failure, or the name of an error of our tree, as a label; else `other`: a label
    must not grow without end.
    """
    return kind if not kind or hasattr(errors, kind) or f"reason.{kind}" in TEXTS["en"] else "other"


def _merged(counts: Mapping[tuple[str, str, str], int]) -> dict[tuple[str, str, str], int]:
    merged: dict[tuple[str, str, str], int] = {}
    for (name, status, kind), count in counts.items():
        key = (name, status, known(kind))
        merged[key] = merged.get(key, 0) + count
    return merged


def metric(
    name: str, kind: Literal["gauge", "counter"], help_: str, samples: Iterable[Sample]
) -> str:
    """One metric in the text format; samples without a number are left out."""
    lines = [f"# HELP {name} {help_}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        if value is not None and math.isfinite(value):
            inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            lines.append(
                f"{name}{{{inner}}} {float(value):.17g}" if inner else f"{name} {float(value):.17g}"
            )
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
