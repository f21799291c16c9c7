"""The state as bytes and back: safetensors, exact to the bit."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tequio.core.canonical import from_tensors, pack_tensors, to_tensors, unpack_tensors
from tequio.core.errors import UpdateError
from tequio.core.texts.words import refusal
from tequio.core.types import InFlightUpdate, State
from tequio.core.update import Update

PARTS = ("shared", "pending", "momentum", "best")


def pack_state(state: State) -> bytes:
    """Equal states give equal bytes."""
    flat: dict[str, Tensor] = {}
    for part in PARTS:
        update: Update = getattr(state, part)
        flat |= {f"{part}/{name}": tensor for name, tensor in to_tensors(update).items()}
    numbers: dict[str, Any] = {
        "round": state.round,
        "best_loss": state.best_loss,
        "best_round": state.best_round,
        "stale_rounds": state.stale_rounds,
        "step_scale": state.step_scale,
        "norm_per_rate": state.norm_per_rate,
        "base_losses": dict(state.base_losses),
        "losses": dict(state.losses),
        "best_losses": dict(state.best_losses),
        "memory_rounds": dict(state.memory_rounds),
        "base_slices": {name: list(losses) for name, losses in state.base_slices.items()},
        "spec": state.shared.spec,
    }
    for flight in state.flights:
        flat |= {
            f"flights/{flight.index}/{name}": tensor
            for name, tensor in to_tensors(flight.update).items()
        }
    if state.flights:
        numbers["flights"] = [_numbers(flight) for flight in state.flights]
    return pack_tensors(flat, numbers)


def unpack_state(data: bytes, source: str) -> State:
    """The inverse. Raises UpdateError naming `source`."""
    flat, numbers = unpack_tensors(data, source)
    spec = str(numbers.pop("spec"))
    slices = {name: tuple(losses) for name, losses in numbers.pop("base_slices").items()}
    parts: dict[str, Any] = {
        part: from_tensors(_below(f"{part}/", flat), spec, source) for part in PARTS
    }
    flying = _below("flights/", flat)
    flights = tuple(
        InFlightUpdate(**row, update=from_tensors(_below(f"{row['index']}/", flying), spec, source))
        for row in numbers.pop("flights", [])
    )
    return State(**parts, **numbers, base_slices=slices, flights=flights)


def _below(prefix: str, flat: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in flat.items()
        if name.startswith(prefix)
    }


def _numbers(flight: InFlightUpdate) -> dict[str, Any]:
    """All of it but the tensors."""
    return {
        "index": flight.index,
        "sent": flight.sent,
        "due": flight.due,
        "staleness": flight.staleness,
        "facts": dict(flight.facts),
        "row": dict(flight.row),
    }


def pack_states(states: Mapping[str, State]) -> bytes:
    """The states of several groups as one checkpoint."""
    blobs = {
        name: torch.frombuffer(bytearray(pack_state(s)), dtype=torch.uint8)
        for name, s in states.items()
    }
    return pack_tensors(blobs, {"groups": list(states)})


def unpack_states(data: bytes, source: str) -> dict[str, State]:
    """The inverse, in the same order. Raises UpdateError naming `source`."""
    blobs, meta = unpack_tensors(data, source)
    names = [str(name) for name in meta.get("groups", [])]
    if sorted(names) != sorted(blobs):
        raise refusal(UpdateError, "checkpoint-damaged", source=source)
    return {
        name: unpack_state(blobs[name].numpy().tobytes(), f"{source}, base {name}")
        for name in names
    }
