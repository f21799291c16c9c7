"""The run of peer-to-peer rounds: like `federate.py`, each round is committed in one transaction; the checkpoint is everybody's.

In a simulation one process holds all peers, so one transaction can hold them all, and patience can look at the mean of their losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from tequio.coordinator.federate import Record, all_spent, cost
from tequio.coordinator.gossip import Peers, PeerState, gossip_round, open_peers
from tequio.coordinator.round import ShortRound, open_state
from tequio.coordinator.run_spec import RunSpec
from tequio.core.canonical import from_tensors, pack_tensors, to_tensors, unpack_tensors
from tequio.core.protocols import Runtime
from tequio.measure.energy import Meter

PARTS = ("models", "copies", "best")


def federate_peers(
    run_spec: RunSpec, peers: Peers, runtime: Runtime, ledger: Record, meter: Meter
) -> Iterator[tuple[PeerState, dict[str, Any] | None]]:
    """Yield the state after every committed round (None as record for the one resumed from), until rounds, patience or all own budgets
    end."""
    saved = ledger.checkpoint()
    if saved is None:
        with meter.measure() as reading:
            base, body = open_state(run_spec, runtime)
            state = open_peers(run_spec, base.best_loss)
        ledger.append("start", body | cost(reading.energy), pack_peers(state))
    else:
        state = unpack_peers(saved[1], "the checkpoint in the ledger")
    yield state, None
    while state.round < run_spec.rounds and state.stale_rounds < run_spec.patience:
        short: ShortRound | None = None
        with meter.measure() as reading:
            try:
                state, body = gossip_round(state, run_spec, peers, runtime)
            except ShortRound as found:
                short = found
        if short is not None:
            over = all_spent(short, run_spec)
            if not over:
                raise short
            ledger.append("wait", short.body | cost(reading.energy))
            ledger.append("budget", {"round": state.round, "reason": over.as_record(), "spent": {}})
            return
        ledger.append("round", body | cost(reading.energy), pack_peers(state))
        yield state, body


def pack_peers(state: PeerState) -> bytes:
    """Equal states give equal bytes."""
    flat: dict[str, Tensor] = {}
    for part in PARTS:
        for i, update in getattr(state, part).items():
            flat |= {f"{part}/{i}/{name}": tensor.clone() for name, tensor in to_tensors(update).items()}
    numbers: dict[str, Any] = {
        "round": state.round,
        "best_loss": state.best_loss,
        "best_round": state.best_round,
        "stale_rounds": state.stale_rounds,
        "members": sorted(state.models),
        "spec": next(iter(state.models.values())).spec,
    }
    return pack_tensors(flat, numbers)


def unpack_peers(data: bytes, source: str) -> PeerState:
    """The inverse. Raises UpdateError naming `source`."""
    flat, numbers = unpack_tensors(data, source)
    spec, members = str(numbers.pop("spec")), [int(i) for i in numbers.pop("members")]
    parts: dict[str, Any] = {}
    for part in PARTS:
        parts[part] = {}
        for i in members:
            start = f"{part}/{i}/"
            own = {name.removeprefix(start): tensor for name, tensor in flat.items() if name.startswith(start)}
            parts[part][i] = from_tensors(own, spec, source)
    return PeerState(**parts, **numbers)
