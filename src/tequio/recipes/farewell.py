"""The end of a federation across a network: everybody makes its personal model at home, and the record has what they tell.

Who is away when the rounds are over is waited for a while; who does not come then is recorded, and may come later: a run that is over is
opened again for those who are owed a model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tequio.coordinator.plan import Member
from tequio.core.errors import LedgerError, NetworkError
from tequio.core.events import Tell
from tequio.core.types import Failure, PersonaliseTask, Reply
from tequio.core.update import Update
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.recipes.office import left
from tequio.recipes.run import SHARED_FILE, read_model, recorded_header, unbroken
from tequio.runtimes.flower.exchange import Networked

LOOK = 0.5  # seconds between two looks at who has come
AWAY = "it was not connected"


@dataclass(frozen=True)
class Farewell:
    """here: who is connected, and since when, by index. grace: seconds for who is away; hub: the coordinator's folder, for a person."""

    hub: Path
    net: Networked
    here: Callable[[], Mapping[int, str]]
    grace: float
    say: Tell

    def ask(self, ledger: Ledger, members: Iterable[Member], shared: Update, round_: int) -> None:
        """Have each make its model of `shared`, once; record what they tell, and who made none.

        It ends when all have, or `grace` after those who are here were done.
        """
        done, end = _personal(ledger), float("inf")
        owed = {
            m.index: PersonaliseTask(round_, m.index, m.name, shared, m.rank, m.steps)
            for m in members
            if m.name not in done
        }
        asked, why = dict[int, str](), dict.fromkeys(owed, AWAY)
        while owed:
            self.net.settle()
            there = self.here()
            now = [i for i in owed if i in there and i not in self.net.pending and asked.get(i) != there[i]]
            asked |= {i: there[i] for i in now}
            for reply in self.net.exchange([owed[i] for i in now]) if now else ():
                if isinstance(reply, Reply):
                    self._keep(ledger, reply)
                    del owed[reply.index]
                    continue
                why[reply.index] = reply.message if _away(reply) else f"{reply.error}: {reply.message}"
                if reply.index in self.net.pending:  # asked again once it is free
                    asked.pop(reply.index)
            awaited = [i for i in owed if i not in there or asked.get(i) != there[i]]
            if not awaited or time.monotonic() > end:
                break
            if end == float("inf"):
                end = time.monotonic() + self.grace
                self._say_awaited([owed[i].name for i in awaited])
            time.sleep(min(LOOK, self.grace))
        if owed:
            self._tell_missing(ledger, {owed[i].name: why[i] for i in owed})

    def _keep(self, ledger: Ledger, reply: Reply) -> None:
        wire = self.net.traffic.take(self.net.nodes[reply.index])  # since the last round
        ledger.append("personal", {**json.loads(reply.body), "kept": "participant", "wire": wire})
        self.say(f"{reply.name} made its personal model.", "personal", participant=reply.name)

    def _say_awaited(self, names: list[str]) -> None:
        if self.grace > 0:
            words = f"Waiting at most {self.grace / 60:g} minutes for {', '.join(names)} to fetch the shared model."
            self.say(words, "waiting", stage="personal models", missing=", ".join(names))

    def _tell_missing(self, ledger: Ledger, why: Mapping[str, str]) -> None:
        rows = [{"name": name, "reason": reason} for name, reason in why.items()]
        ledger.append("missing", {"participants": rows, "grace": self.grace})
        for name, reason in why.items():
            words = (
                f"{name} made no personal model: {reason}. To let it, start again: tequio coordinator start {self.hub}"
            )
            self.say(words, "personal-missing", "warning", participant=name, reason=reason)


def owed(hub: Path, run: Path) -> list[Member]:
    """Who took part in a run and made no personal model, without those who left."""
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        return _owed(hub, recorded_header(ledger, RunFolder(run)), ledger)


def reopen(run: Path, farewell: Farewell) -> None:
    """Let those make their personal model who are owed one, in a run that is over."""
    folder = RunFolder.open(run)
    with folder.lock(), unbroken(folder) as ledger:
        members, found = _owed(farewell.hub, recorded_header(ledger, folder), ledger), ledger.last("shared")
        if found is None:
            raise LedgerError(f"{run} has no record of a shared model.", "", "Run `tequio verify`.")
        shared = read_model(folder, SHARED_FILE, found.body["digest"])
        farewell.ask(ledger, members, shared, int(found.body["round"]))


def _owed(hub: Path, header: Mapping[str, Any], ledger: Ledger) -> list[Member]:
    rows = [*header["participants"], *(entry.body["participant"] for entry in ledger.entries("joined"))]
    indices = {row["name"]: i for i, row in enumerate(header["config"]["participants"], 1)}
    without = _personal(ledger) | left(hub).keys()
    members = {
        str(r["name"]): Member(str(r["name"]), indices[r["name"]], int(r["rank"]), int(r["steps"])) for r in rows
    }
    return sorted((m for name, m in members.items() if name not in without), key=lambda m: m.index)


def _personal(ledger: Ledger) -> set[str]:
    return {str(entry.body["name"]) for entry in ledger.entries("personal")}


def _away(reply: Failure) -> bool:
    return reply.error == NetworkError.__name__
