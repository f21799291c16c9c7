"""Peer-to-peer rounds for the loop of `federate.py`: the checkpoint is everybody's.

In a simulation one process holds all peers, so one transaction can hold them all, and patience can
look at the mean of their losses.
"""

from typing import Any

from torch import Tensor

from tequio.coordinator.federate import Rounds, finished
from tequio.coordinator.gossip import Peers, PeerState, gossip_round, open_peers
from tequio.coordinator.round import open_state
from tequio.coordinator.run_spec import RunSpec
from tequio.core.canonical import from_tensors, pack_tensors, to_tensors, unpack_tensors
from tequio.core.protocols import Runtime

PARTS = ("models", "copies", "best")


def peer_rounds(run_spec: RunSpec, peers: Peers, runtime: Runtime) -> Rounds[PeerState]:
    """Return the rounds of peers, for `federate`."""

    def begin() -> tuple[PeerState, dict[str, Any]]:
        base, body = open_state(run_spec, runtime)
        return open_peers(run_spec, base.best_loss), body

    return Rounds(
        run_specs=(run_spec,),
        replanned=lambda change: peer_rounds(change(run_spec, ""), peers, runtime),
        begin=begin,
        advance=lambda state: gossip_round(state, run_spec, peers, runtime),
        ended=lambda state: finished(state, run_spec),
        made=lambda state: state.round,
        pack=pack_peers,
        unpack=unpack_peers,
    )


def pack_peers(state: PeerState) -> bytes:
    """Equal states give equal bytes."""
    flat: dict[str, Tensor] = {}
    for part in PARTS:
        for i, update in getattr(state, part).items():
            flat |= {
                f"{part}/{i}/{name}": tensor.clone() for name, tensor in to_tensors(update).items()
            }
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
            own = {
                name.removeprefix(start): tensor
                for name, tensor in flat.items()
                if name.startswith(start)
            }
            parts[part][i] = from_tensors(own, spec, source)
    return PeerState(**parts, **numbers)
