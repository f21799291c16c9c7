"""How a running process is: counted from what it tells, and kept in `vitals.json` in its folder, to
be read meanwhile and after a crash.

The record of the run is the ledger; this file holds only what the ledger does not: who is
connected, what was refused at the gateway, the last error. It is written at most once a second,
whole or not at all. It holds no secrets, and nothing of anybody's data.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Literal

import psutil

from tequio.app.network.monitoring.rate_limit import BY_COORDINATOR, Throttle
from tequio.core.errors import ResourceError, TequioError
from tequio.core.events import EventHandler, Level, Value
from tequio.ledger.folder import RunFolder
from tequio.runtimes.http_pages import Page, served

FILE = "vitals.json"
BEAT = (
    5  # seconds between two looks at who is connected; also how old a running process's file may be
)
SILENCE = (
    6 * BEAT
)  # seconds after which a running process whose file is not written anew counts as not responding
# bytes of the file at least, so that it can still say how the process ended where the disk is full
SPARE = 8192
TICK = 1.0  # seconds between two looks whether there is something to write
FLUSH = 60  # ticks between two words on refusals that were only counted
PLAIN = ("stage", "round", "rounds")  # fields of any event that are kept as they are
OVER = ("stopped", "failed", "ended")  # stages after which the file is written no more
STAGES = {
    "connected": "waiting",
    "sent": "waiting",
    "disconnected": "not connected",
}  # of a participant, by event

Role = Literal["coordinator", "participant"]
Present = Mapping[int, tuple[bool, str]]
"""Number of a participant -> (is it connected, since when).

None where the server does not answer.
"""
Waits = Callable[[], list[dict[str, Any]]]
"""Whom a coordinator waits for:

`name`, `task` (empty: to connect), `since` (UTC), `sent_again` (how often).
"""


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Health:
    """Tell it events: it counts them, and passes them on."""

    def __init__(
        self, role: Role, passed_on: EventHandler, metrics: tuple[str, int] | None = None
    ) -> None:
        self.look: Callable[[], Present | None] | None = (
            None  # set by the coordinator once its server runs
        )
        self.waits: Waits = list  # set by it, too
        self._passed_on = Throttle(
            passed_on, events=BY_COORDINATOR if role == "participant" else ()
        )
        self._metrics = metrics
        self._lock, self._changed = Lock(), True
        process = psutil.Process()
        self._facts: dict[str, Any] = {
            "role": role,
            "process": process.pid,
            "started": process.create_time(),
            "begun": now(),
            "stage": "preparing",
            "metrics": None,
            "last_error": None,
        }
        if role == "coordinator":
            self._facts |= {"superlink": None, "present": {}, "refusals": {}, "waits_for": []}
        else:
            self._facts |= {
                "connected": False,
                "since": now(),
                "connections": 0,
                "tasks": {},
                "failures": {},
            }
            self._facts |= {"bytes_down": 0, "bytes_up": 0, "last_task": None, "departed": None}

    def tell(self, words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        """Count an event, and pass it on."""
        with self._lock:
            self._changed = True
            facts = self._facts
            facts |= {key: fields[key] for key in PLAIN if key in fields}
            if facts["role"] == "participant" and event in STAGES:
                facts["stage"] = STAGES[event]
            if event == "refused" and "refusals" in facts:
                _count(facts["refusals"], str(fields["reason"]))
            elif level != "info":
                facts["last_error"] = {"time": now(), "event": event, "what": words}
            if event in ("connected", "disconnected") and facts.get("connected") != (
                event == "connected"
            ):
                facts |= {"connected": event == "connected", "since": now()}
                facts["connections"] += event == "connected"
            if event == "task":
                _count(facts["tasks"], str(fields["kind"]))
                facts["last_task"] = {
                    "time": now(),
                    "kind": fields["kind"],
                    "round": fields["round"],
                }
            if event in ("task-failed", "departed"):
                _count(facts["failures"], str(fields["error"]))
            if event == "departed":
                times = 1 + (facts["departed"] or {"times": 0})["times"]
                facts["departed"] = {"time": now(), "times": times, "what": words}
            for key in ("bytes_down", "bytes_up"):
                if key in fields and key in facts:
                    facts[key] += fields[key]
        self._passed_on(words, event, level, **fields)

    def facts(self) -> dict[str, Any]:
        """A copy of what is known now."""
        with self._lock:
            copy: dict[str, Any] = json.loads(json.dumps(self._facts))
        return copy

    @contextmanager
    def written_to(self, folder: Path) -> Iterator[None]:
        """Keep the file until the block ends; tell how it ended. The folder must be ours alone."""
        stop = Event()
        writer = Thread(target=self._keep, args=(folder, stop), daemon=True)
        writer.start()
        try:
            yield
            self.tell("ended", "ended", stage="ended")
        except KeyboardInterrupt:
            self.tell("stopped", "stopped", stage="stopped")
            raise
        except TequioError as error:
            self.tell(str(error), "failed", "error", stage="failed", error=type(error).__name__)
            raise
        except (
            BaseException
        ) as error:  # an error of ours: only its kind, for its words may quote anything
            self.tell(
                f"{type(error).__name__}",
                "failed",
                "error",
                stage="failed",
                error=type(error).__name__,
            )
            raise
        finally:
            stop.set()
            writer.join()

    @contextmanager
    def answering(self, pages: Mapping[str, Page]) -> Iterator[None]:
        """Answer on the metrics port, if there is one, until the block ends.

        Raises NetworkError where it is taken.
        """
        if self._metrics is None:
            yield
            return
        with served(*self._metrics, pages) as address:
            self._facts["metrics"] = address
            self.tell(f"Metrics at http://{address}/metrics.", "metrics", address=address)
            yield

    def _keep(self, folder: Path, stop: Event) -> None:
        place, ticks = RunFolder(folder), 0
        while True:
            over = stop.wait(TICK if ticks else 0.0)
            if ticks % BEAT == 0 and not over:
                self._beat()
            if over or ticks % FLUSH == FLUSH - 1:
                self._passed_on.flush()
            if self._changed or over:
                self._changed = False
                data = json.dumps(self.facts() | {"seen": now()}, indent=1).encode()
                try:
                    place.write_atomic(FILE, data.ljust(SPARE))
                except ResourceError:  # a full disk does not end the run here
                    _overwrite(folder / FILE, data)
            if over:
                return
            ticks += 1

    def _beat(self) -> None:
        if self.look is not None:
            present, waits_for = self.look(), self.waits()
            with self._lock:
                self._facts["waits_for"] = waits_for
                self._facts["superlink"] = present is not None
                if present is not None:
                    self._facts["present"] = {
                        str(k): {"connected": on, "since": t} for k, (on, t) in present.items()
                    }
        self._changed = True


def _overwrite(path: Path, data: bytes) -> None:
    """Write into the file as it is: on a full disk no other can be made, and its own space is
    enough.

    Not whole or not at all.
    """
    with suppress(OSError):
        handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(handle, "wb", buffering=0) as stream:
            stream.write(data)
            stream.truncate()


def read_health(folder: Path) -> dict[str, Any] | None:
    """What the last process in this folder left;

    `alive`: whether it still runs, `silent`: it does, and has not written for long, `paused`.

    None if there is nothing, or nothing readable.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
        status = _status(int(facts["process"]), float(facts["started"]))
        age = (datetime.now(UTC) - datetime.fromisoformat(facts["seen"])).total_seconds()
        silent = status is not None and facts["stage"] not in OVER and age > SILENCE
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return facts | {
        "alive": status is not None,
        "silent": silent,
        "paused": status == psutil.STATUS_STOPPED,
    }


def _status(process: int, started: float) -> str | None:
    """Of a process that began then, as the system names it; None where it is gone."""
    try:
        found = psutil.Process(process)
        status = found.status()
        return (
            str(status)
            if abs(found.create_time() - started) < 1.0 and status != psutil.STATUS_ZOMBIE
            else None
        )
    except psutil.Error:
        return None


def _count(counts: dict[str, int], what: str) -> None:
    counts[what] = counts.get(what, 0) + 1
