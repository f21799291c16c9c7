"""The run of rounds: each is committed to the ledger, state and record in one transaction, before the next begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Protocol

from tequio.coordinator.buffered import run_window
from tequio.coordinator.checkpoint import pack_state, unpack_state
from tequio.coordinator.plan import Plan
from tequio.coordinator.round import open_state, run_round
from tequio.core.protocols import Runtime
from tequio.core.types import Energy, State
from tequio.measure.energy import Meter


class Record(Protocol):
    """What this module needs of the ledger."""

    def append(self, kind: str, body: dict[str, Any], state: bytes | None = None) -> Any:
        """Commit one record, and the checkpoint with it, in one transaction."""

    def checkpoint(self) -> tuple[Any, bytes] | None:
        """The last checkpoint."""


def federate(
    plan: Plan, runtime: Runtime, ledger: Record, meter: Meter
) -> Iterator[tuple[State, dict[str, Any] | None]]:
    """Yield the state after every committed round (None as record for the one resumed from), until rounds or patience end."""
    saved = ledger.checkpoint()
    if saved is None:
        with meter.measure() as reading:
            state, body = open_state(plan, runtime)
        ledger.append("start", body | cost(reading.energy), pack_state(state))
    else:
        state = unpack_state(saved[1], "the checkpoint in the ledger")
    yield state, None
    advance = run_round if plan.window_seconds is None else run_window
    while state.round < plan.rounds and state.stale_rounds < plan.patience:
        with meter.measure() as reading:
            state, body = advance(state, plan, runtime)
        ledger.append("round", body | cost(reading.energy), pack_state(state))
        yield state, body


def cost(energy: Energy) -> dict[str, Any]:
    """Energy and time of a round: training, evaluation and the coordinator together."""
    return {"energy": asdict(energy), "seconds": energy.seconds}
