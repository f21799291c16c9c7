"""The end of a federation across a network: each participant makes its personal model and reports
on it.

After the last round the coordinator waits a while for participants that are offline. It records
those that do not come, and they may come later: a finished run opens again for participants that
have no personal model yet.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tequio.app.assembly.budget import allowances, participant_rows
from tequio.app.network.coordinator.confirmations import note_heard, note_unheard, unheard
from tequio.app.network.hub.folder import left, node_numbers
from tequio.app.run_files import (
    SHARED_FILE,
    base_file,
    config_from_header,
    read_model,
    recorded_header,
    unbroken,
)
from tequio.config import MAIN
from tequio.coordinator.evaluation import failure_reason
from tequio.core.durations import duration
from tequio.core.errors import LedgerError, MessageError, NetworkError
from tequio.core.events import EventHandler
from tequio.core.reason import Reason
from tequio.core.replies import read_personal_outcome
from tequio.core.texts.words import ENGLISH, refusal
from tequio.core.types import PersonaliseRequest, Reply
from tequio.core.update import Update
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.runtimes.flower.runtime import FlowerRuntime

LOOK = 0.5  # seconds between two looks at which participants have connected
QUIET = 3.0  # seconds within which connected participants learn that their models are recorded
DIGEST = re.compile("[0-9a-f]{64}")
AWAY = Reason("not-connected")


@dataclass(frozen=True)
class PersonalPhase:
    """Hold what the coordinator needs while participants make their personal models.

    here: returns the connected participants by index, and since when. grace: seconds to wait for
    offline ones. hub: the coordinator's folder, for messages.
    """

    hub: Path
    net: FlowerRuntime
    here: Callable[[], Mapping[int, str]]
    grace: float
    say: EventHandler
    # Node -> when it could first learn that its model is recorded.
    _since: dict[int, float] = field(default_factory=dict)

    def ask(
        self,
        ledger: Ledger,
        tasks: Iterable[PersonaliseRequest],
        barred: Mapping[str, Reason] = MappingProxyType({}),
    ) -> None:
        """Have each participant make its model from the shared one, once, and record what it
        reports.

        Participants that made none are recorded, too. It ends when all have made theirs, or `grace`
        seconds after the connected ones were done.

        barred: participants that are not asked, and why.
        """
        done, end = _personal(ledger), float("inf")
        barred = {name: reason for name, reason in barred.items() if name not in done}
        self._confirm_recorded(ledger)
        owed = {task.index: task for task in tasks if task.name not in done}
        asked, why = dict[int, str](), dict.fromkeys(owed, AWAY)
        while owed:
            self.net.settle()
            there = self.here()
            now = [
                i
                for i in owed
                if i in there and i not in self.net.pending and asked.get(i) != there[i]
            ]
            asked |= {i: there[i] for i in now}
            for reply in self.net.exchange([owed[i] for i in now]) if now else ():
                if isinstance(reply, Reply):
                    problem = self._keep(ledger, reply)
                    if problem is not None:
                        why[reply.index] = problem
                    else:
                        del owed[reply.index]
                    continue
                why[reply.index] = failure_reason(reply)
                if (
                    reply.index in self.net.pending or reply.error == NetworkError.__name__
                ):  # asked again once it is free, or there
                    asked.pop(reply.index)
            awaited = [i for i in owed if i not in there or asked.get(i) != there[i]]
            if not awaited or time.monotonic() > end:
                break
            if end == float("inf"):
                end = time.monotonic() + self.grace
                self._say_awaited([owed[i].name for i in awaited])
            self.net.expect(owed[i].name for i in awaited)
            time.sleep(min(LOOK, self.grace))
        self.net.expect(())
        if owed or barred:
            self._tell_missing(ledger, {owed[i].name: why[i] for i in owed} | dict(barred))

    def _keep(self, ledger: Ledger, reply: Reply) -> Reason | None:
        """Record what a participant reports of its model; return why not, where that cannot be
        used.
        """
        try:
            body = read_personal_outcome(reply, _sizes(ledger).get(reply.name, {}))
        except MessageError as error:
            return Reason(
                "unreadable-outcome",
                {"why": error.reason.as_record() if error.reason else str(error)},
            )
        if digest := _digest(body):
            note_unheard(self.hub, reply.name, digest)
        wire = self.net.traffic.take(self.net.nodes[reply.index])  # since the last round
        ledger.append("personal", {**body, "name": reply.name, "kept": "participant", "wire": wire})
        self._confirm(self.net.nodes[reply.index], body)
        self.say(f"{reply.name} made its personal model.", "personal", participant=reply.name)
        return None

    def _confirm_recorded(self, ledger: Ledger) -> None:
        """Confirm to each participant that its personal model is recorded, also before this start.

        A participant stays connected until it knows.
        """
        nodes = node_numbers(self.hub)
        for entry in ledger.entries("personal"):
            if entry.body["name"] in nodes:
                self._confirm(nodes[entry.body["name"]], entry.body)

    def _confirm(self, node: int, body: Mapping[str, Any]) -> None:
        if digest := _digest(body):
            self._since.setdefault(node, time.monotonic())
            self.net.long_poll.confirm(node, digest)

    def await_heard(self, run: Path) -> None:
        """Wait until all participants know that their personal models are on record.

        Each has at most `grace` seconds from the moment at which it could know.
        """
        quiet, nodes = time.monotonic() + QUIET, node_numbers(self.hub)
        said = False
        while waiting := [
            name
            for name in self.note_heard(run)
            if time.monotonic() < self._since.get(nodes.get(name, 0), float("-inf")) + self.grace
        ]:
            if not said and time.monotonic() > quiet:
                said, names = True, ", ".join(waiting)
                self.say(
                    f"Waiting up to {duration(self.grace)} for {names} to learn that the "
                    "coordinator recorded the personal model.",
                    "waiting",
                    stage="personal models",
                    missing=names,
                )
            self.net.expect(waiting if said else ())
            time.sleep(min(LOOK, self.grace))
        self.net.expect(())

    def note_heard(self, run: Path) -> list[str]:
        """Note which participants know that their personal models are recorded; return the
        others.
        """
        rows, nodes = unheard(self.hub, run), node_numbers(self.hub)
        heard = {
            name
            for name, digest in rows.items()
            if self.net.long_poll.heard(nodes.get(name, 0), digest)
        }
        note_heard(self.hub, heard)
        return [name for name in rows if name not in heard]

    def _say_awaited(self, names: list[str]) -> None:
        if self.grace > 0:
            self.say(
                f"Waiting up to {duration(self.grace)} for {', '.join(names)} to fetch the "
                "shared model.",
                "waiting",
                stage="personal models",
                missing=", ".join(names),
            )

    def _tell_missing(self, ledger: Ledger, why: Mapping[str, Reason]) -> None:
        ledger.append(
            "missing",
            {
                "participants": [
                    {"name": name, "reason": reason.as_record()} for name, reason in why.items()
                ],
                "grace": self.grace,
            },
        )
        for name, reason in why.items():
            self.say(
                f"{name} made no personal model: {ENGLISH.reason(reason)}. "
                f"To let it make one, start again: tequio coordinator start {self.hub}",
                "personal-missing",
                "warning",
                participant=name,
                reason=reason.code,
            )


def owed(hub: Path, run: Path) -> list[str]:
    """Return the participants of a run that made no personal model, without those that left."""
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        return [
            row["name"]
            for row in _owed(hub, recorded_header(ledger, RunFolder(run)), ledger).values()
        ]


def reopen(run: Path, personal_phase: PersonalPhase) -> None:
    """Let participants without a personal model make it, in a run that has ended."""
    folder = RunFolder.open(run)
    with folder.lock(), unbroken(folder) as ledger:
        header = recorded_header(ledger, folder)
        rows, found = _owed(personal_phase.hub, header, ledger), ledger.last("shared")
        if found is None:
            raise refusal(LedgerError, "record-missing", path=run, record="shared")
        of = {MAIN: found.body, **found.body.get("bases", {})}
        shared = {
            base: read_model(folder, base_file(base, SHARED_FILE), of[base]["digest"])
            for base in {row.get("base", MAIN) for row in rows.values()}
        }
        allowed = allowances(
            config_from_header(header, folder.ledger_path), ledger, one_process=False
        )
        tasks = [_task(i, row, shared, of) for i, row in rows.items()]
        personal_phase.ask(
            ledger, [replace(task, budget=allowed.get(task.name, {})) for task in tasks]
        )


def _task(
    index: int,
    row: Mapping[str, Any],
    shared: Mapping[str, Update],
    of: Mapping[str, Mapping[str, Any]],
) -> PersonaliseRequest:
    base = row.get("base", MAIN)
    round_, rank, steps = int(of[base]["round"]), int(row["rank"]), int(row["steps"])
    return PersonaliseRequest(round_, index, str(row["name"]), shared[base], rank, steps)


def _owed(hub: Path, header: Mapping[str, Any], ledger: Ledger) -> dict[int, Mapping[str, Any]]:
    """Return the rows of the participants that made no personal model, by index."""
    known, without = (
        {row["name"]: row for row in participant_rows(ledger)},
        _personal(ledger) | left(hub).keys(),
    )
    return {
        i: known[name]
        for i, name in enumerate([entry["name"] for entry in header["config"]["participants"]], 1)
        if name in known and name not in without
    }


def _sizes(ledger: Ledger) -> dict[str, Mapping[str, int]]:
    """Return the number of items by split with which each participant joined."""
    return {str(row["name"]): row["batches"] for row in participant_rows(ledger)}


def _personal(ledger: Ledger) -> set[str]:
    return {str(entry.body["name"]) for entry in ledger.entries("personal")}


def _digest(body: Mapping[str, Any]) -> str:
    """Return the digest of a personal model, if it has the form of one: it becomes a header."""
    digest = body.get("digest")
    return digest if isinstance(digest, str) and DIGEST.fullmatch(digest) else ""
