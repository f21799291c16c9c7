"""The coordinator's side of masked rounds across a network: the list of members that it publishes,
and what was opened.

A member gives its shares for one sum of a round. What a sum told is therefore written to the run's
folder before anything is made of it: a coordinator that is killed then, and started again, goes on
from there and asks for no second one.
"""

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tequio.app.assembly.masked import listed_plan
from tequio.app.network.coordinator.roster import Roster
from tequio.app.network.hub.folder import member_keys, read_coordinator_folder
from tequio.app.network.members import Listed, MemberList, pack_members
from tequio.app.run_files import json_table
from tequio.coordinator.aggregation import OpenedSum
from tequio.coordinator.evaluation import Evaluation
from tequio.coordinator.masked import SumOutcome, SumRounds, SumRuntime
from tequio.coordinator.run_spec import Member, RunSpec
from tequio.core.canonical import pack_tensors, unpack_tensors
from tequio.core.reason import Reason
from tequio.core.types import EvaluateRequest, Failure, Reply, Request, State, SumRequest
from tequio.ledger.folder import RunFolder
from tequio.trust.secure_sum.coordinator import Opened

SUMS = "sums"
NOTHING = torch.empty(0, dtype=torch.uint8)


@dataclass(frozen=True)
class SumFiles:
    """sums/ in the coordinator's run: state.json (the run's id, the last attempt of each purpose),
    and the last sum of each purpose.
    """

    run: RunFolder

    def _state(self) -> dict[str, Any]:
        path = self.run.path / SUMS / "state.json"
        return json_table(path) if path.exists() else {"run": secrets.token_hex(16)}

    def _write_state(self, state: Mapping[str, Any]) -> None:
        self.run.write_atomic(f"{SUMS}/state.json", json.dumps(state).encode(), private=True)

    def identity(self) -> str:
        """Return the id of the run, the same after a restart."""
        state = self._state()
        if not (self.run.path / SUMS / "state.json").exists():
            self._write_state(state)
        return str(state["run"])

    def number(self, purpose: str, round_: int) -> int:
        """Return the number of the next attempt at a sum; none is used twice, whatever is
        restarted.
        """
        state = self._state()
        before, attempt = state.get(purpose, (round_, 0))
        state[purpose] = (round_, attempt + 1 if before == round_ else 1)
        self._write_state(state)
        return int(state[purpose][1])

    def find(self, purpose: str, round_: int, head: str) -> SumOutcome | None:
        """Return what this sum came to, if it was opened before."""
        path = self.run.path / SUMS / f"{purpose}.safetensors"
        if not path.exists():
            return None
        tensors, plain = unpack_tensors(path.read_bytes(), str(path))
        if (plain["round"], plain["head"]) != (round_, head):
            return None
        values = np.frombuffer(tensors["values"].numpy().tobytes(), np.float64)
        opened = Opened(values, plain["figures"], tuple(plain["counts"]), tuple(plain["survivors"]))
        failed = {int(i): Reason(why["code"], why["facts"]) for i, why in plain["failed"].items()}
        sent = {int(i): int(size) for i, size in plain["sent"].items()}
        return SumOutcome(opened, failed, sent, {int(i): row for i, row in plain["costs"].items()})

    def write(self, purpose: str, round_: int, head: str, outcome: SumOutcome) -> None:
        """Record what was opened."""
        opened = outcome.opened
        assert opened is not None, "only what was opened is recorded"
        raw = opened.values.astype(np.float64).tobytes()
        plain = {
            "round": round_,
            "head": head,
            "figures": dict(opened.figures),
            "counts": list(opened.counts),
            "survivors": list(opened.survivors),
            "failed": {str(i): why.as_record() for i, why in outcome.failed.items()},
            "sent": {str(i): size for i, size in outcome.sent.items()},
            "costs": {str(i): dict(row) for i, row in outcome.costs.items()},
        }
        data = pack_tensors(
            {"values": torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else NOTHING},
            plain,
        )
        self.run.write_atomic(f"{SUMS}/{purpose}.safetensors", data, private=True)


@dataclass(frozen=True)
class Published:
    """A runtime that tells the list of members with the first step of each sum."""

    inner: SumRuntime
    members: bytes

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        """Carry requests as the inner runtime does."""
        yield from self.inner.exchange(self._with_members(task) for task in tasks)

    def _with_members(self, task: Request) -> Request:
        if isinstance(task, SumRequest) and task.step == "announce":
            return replace(task, payload=self.members)
        return task


@dataclass(frozen=True)
class NetworkSums:
    """Masked rounds over a network: whoever took part so far is on the list, also who left or is
    away, so the threshold never falls.
    """

    inner: SumRuntime
    roster: Roster
    run_spec: RunSpec
    files: SumFiles

    def _rounds(self) -> SumRounds:
        roster, spec, keys = self.roster, self.run_spec, member_keys(self.roster.folder)
        parts = {i: member for i, member in sorted(roster.members.items()) if i > 0}
        listed = {i: Listed(m.name, keys[m.name], m.rank, m.steps) for i, m in parts.items()}
        run, federation = self.files.identity(), read_coordinator_folder(roster.folder).digest
        given = {i: (one.key.encode(), one.rank, one.steps) for i, one in listed.items()}
        plan = listed_plan(
            run, federation, given, roster.config, spec.shapes, spec.head_shapes, spec.scale
        )
        return SumRounds(
            Published(self.inner, pack_members(MemberList(run, listed))), plan, self.files
        )

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        """Carry what is asked of the centre."""
        yield from self._rounds().exchange(tasks)

    def gather(
        self,
        tasks: Iterator[Request],
        roster: Sequence[Member],
        state: State,
        run_spec: RunSpec,
        _: object,
        /,
    ) -> OpenedSum:
        """Have the participants of a round train, and open the sum of their updates."""
        return self._rounds().gather(tasks, roster, state, run_spec, _)

    def look(self, requests: Iterable[EvaluateRequest], panel: Sequence[Member]) -> Evaluation:
        """Have a model scored, and tell what the sum tells."""
        return self._rounds().look(requests, panel)
