"""The run of rounds: each is committed to the ledger, state and record in one transaction, before the next begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, Protocol

from tequio.coordinator.budget import BudgetTracker
from tequio.coordinator.buffered import run_window
from tequio.coordinator.byte_bounds import round_most
from tequio.coordinator.carbon_schedule import Shift, Turn
from tequio.coordinator.checkpoint import pack_state, unpack_state
from tequio.coordinator.round import ShortRound, open_state, run_round
from tequio.coordinator.run_spec import RunSpec
from tequio.core.protocols import Runtime
from tequio.core.reason import Reason
from tequio.core.types import Energy, State
from tequio.measure.energy import Meter


class Record(Protocol):
    """What this module needs of the ledger."""

    def append(self, kind: str, body: dict[str, Any], state: bytes | None = None) -> Any:
        """Commit one record, and the checkpoint with it, in one transaction."""

    def checkpoint(self) -> tuple[Any, bytes] | None:
        """The last checkpoint."""


class Host(Protocol):
    """Who knows the participants where they come and go: across a network."""

    def admit_newcomers(self, run_spec: RunSpec, round_: int) -> RunSpec:
        """The plan with those who came since; asked before each round."""

    def on_short_round(self, short: ShortRound) -> None:
        """Wait until it is worth another try. Raises `short` or NetworkError where it is not."""

    def traffic(self) -> dict[str, Any]:
        """For the record: what went over the network since it was last asked, and what came late."""


class Advance(Protocol):
    """One round: `run_round`, `run_window` or such."""

    def __call__(self, state: State, run_spec: RunSpec, runtime: Runtime, /) -> tuple[State, dict[str, Any]]:
        """The next state and the record."""


def federate(
    run_spec: RunSpec,
    runtime: Runtime,
    ledger: Record,
    meter: Meter,
    host: Host | None = None,
    advance: Advance | None = None,
    tracker: BudgetTracker | None = None,
    shift: Shift | None = None,
) -> Iterator[tuple[State, dict[str, Any] | None]]:
    """Yield the state after every committed round (None as record for the one resumed from), until rounds or patience end.

    tracker: what was spent before is in it already; where it allows no round, that is recorded and the rounds end. shift: the simulated
    clock as the last round left it; its budget ends the rounds likewise. They end too where participants' own budgets leave too few of
    them. With a host, a round with too few usable replies is recorded as a wait and tried again; without one it ends the run.
    """
    saved = ledger.checkpoint()
    if saved is None:
        run_spec = run_spec if shift is None else replace(run_spec, after=shift.hour)
        with meter.at(run_spec.after).measure() as reading:
            state, body = open_state(run_spec, runtime)
        body = body | cost(reading.energy) | _carried(host)
        ledger.append("start", body, pack_state(state))
        if tracker is not None:
            tracker.add(body)
    else:
        state = unpack_state(saved[1], "the checkpoint in the ledger")
    yield state, None
    advance = advance or (run_round if run_spec.window_seconds is None else run_window)
    while state.round < run_spec.rounds and state.stale_rounds < run_spec.patience:
        run_spec = run_spec if host is None else host.admit_newcomers(run_spec, state.round + 1)
        turn: Turn | None = None
        if shift is not None:
            turn = shift.turn(run_spec, state.round + 1)
            if turn is None:
                ledger.append("budget", {"round": state.round} | shift.spent())
                return
            run_spec = turn.run_spec
        if tracker is not None:
            allowed = tracker.allow(
                run_spec.roster(state.round + 1), run_spec.rounds - state.round, round_most(state, run_spec)
            )
            if allowed is None:
                ledger.append("budget", {"round": state.round} | tracker.stopped())
                return
            run_spec = replace(run_spec, budgets=allowed)
        short: ShortRound | None = None
        with meter.measure() as reading:
            try:
                state, body = advance(state, run_spec, runtime)
            except ShortRound as found:
                short = found
        if short is None:
            energy, record = (
                (reading.energy, {}) if turn is None else (turn.of_coordinator(reading.energy, body), turn.record)
            )
            body = body | cost(energy) | _carried(host) | record
            ledger.append("round", body, pack_state(state))
            if tracker is not None:
                tracker.add(body)
            shift = shift if turn is None else turn.shift
            yield state, body
            continue
        over = all_spent(short, run_spec)
        if host is None and not over:
            raise short
        body = short.body | cost(reading.energy) | _carried(host)
        ledger.append("wait", body)
        if tracker is not None:
            tracker.add(body)
        if over:
            ledger.append("budget", {"round": state.round, "reason": over.as_record(), "spent": {}})
            return
        if host is not None:
            host.on_short_round(short)


def all_spent(short: ShortRound, run_spec: RunSpec) -> Reason | None:
    """Why no round can be made any more, where so many participants' own budgets are spent; else None."""
    names = {member.name for member in run_spec.members}
    withheld = {row["name"] for row in short.body["admissions"] if row["status"] == "withheld"} & names
    if run_spec.cohort is not None or not withheld or len(names) - len(withheld) >= max(1, run_spec.quorum):
        return None
    return Reason("own-budgets-spent", {"count": len(withheld), "participants": len(names)})


def _carried(host: Host | None) -> dict[str, Any]:
    return {} if host is None else host.traffic()


def cost(energy: Energy) -> dict[str, Any]:
    """Energy and time of a round: training, evaluation and the coordinator together."""
    return {"energy": asdict(energy), "seconds": energy.seconds}
