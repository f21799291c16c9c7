"""Peer-to-peer rounds for the loop of `federate.py`: the checkpoint is everybody's.

In a simulation one process holds all peers, so one transaction can hold them all, and patience can look at the mean of their losses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from tequio.coordinator.federate import Replan
from tequio.coordinator.gossip import Peers, PeerState, gossip_round, open_peers
from tequio.coordinator.round import open_state
from tequio.coordinator.run_spec import RunSpec
from tequio.core.canonical import from_tensors, pack_tensors, to_tensors, unpack_tensors
from tequio.core.protocols import Runtime

PARTS = ("models", "copies", "best")


@dataclass(frozen=True)
class PeerRounds:
    """Rounds of peers, for `federate`."""

    run_spec: RunSpec
    peers: Peers
    runtime: Runtime

    @property
    def run_specs(self) -> tuple[RunSpec, ...]:
        """The one plan."""
        return (self.run_spec,)

    def replanned(self, change: Replan) -> PeerRounds:
        """The same with another plan."""
        return replace(self, run_spec=change(self.run_spec, ""))

    def begin(self) -> tuple[PeerState, dict[str, Any]]:
        """Everybody at the base."""
        base, body = open_state(self.run_spec, self.runtime)
        return open_peers(self.run_spec, base.best_loss), body

    def advance(self, state: PeerState) -> tuple[PeerState, dict[str, Any]]:
        """As `gossip_round`."""
        return gossip_round(state, self.run_spec, self.peers, self.runtime)

    def ended(self, state: PeerState) -> bool:
        """Rounds or patience."""
        return state.round >= self.run_spec.rounds or state.stale_rounds >= self.run_spec.patience

    def made(self, state: PeerState) -> int:
        """As the state says."""
        return state.round

    def pack(self, state: PeerState) -> bytes:
        """As `pack_peers`."""
        return pack_peers(state)

    def unpack(self, data: bytes, source: str) -> PeerState:
        """As `unpack_peers`."""
        return unpack_peers(data, source)


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
