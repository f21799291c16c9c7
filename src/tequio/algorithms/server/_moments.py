"""The memory of the adaptive servers: first and second moments as dense tensors, `m/<entry>` and
`v/<entry>`.

Squares are a matter of coordinates, so a factored change is multiplied out: with layout product the
memory is two full matrices a module, and the step is dense, to be split again by an SVD for the
broadcast. Layout factors costs two copies of the factors.
"""

import torch
from torch import Tensor

from tequio.core.update import Update, plain, zero


def moments(
    memory: Update, change: Update, floor: float
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Entry -> (m, v, Δ) of one shape.

    What is not in the memory yet is m = 0, v = `floor`; what did not change is Δ = 0.

    A change of fewer ranks than the memory's (its top participant was absent), or of more, is
    padded in the same way. Raises UpdateError if the two belong to different layouts.
    """
    known = {
        name.split("/", 1)[1]: plain(memory.entries[name])
        for name in memory.entries
        if name.startswith("m/")
    }
    moved = {name: plain(entry) for name, entry in zero(memory.spec).plus(change).entries.items()}
    out: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for name in sorted(known.keys() | moved.keys()):
        delta = moved.get(name, torch.zeros_like(known[name]) if name in known else torch.zeros(()))
        m = known.get(name, torch.zeros_like(delta))
        v = plain(memory.entries[f"v/{name}"]) if name in known else torch.full_like(delta, floor)
        shape = [max(sizes) for sizes in zip(m.shape, delta.shape, strict=True)]
        out[name] = (_padded(m, shape, 0.0), _padded(v, shape, floor), _padded(delta, shape, 0.0))
    return out


def _padded(value: Tensor, shape: list[int], fill: float) -> Tensor:
    if list(value.shape) == shape:
        return value
    out = torch.full(shape, fill)
    out[tuple(slice(0, size) for size in value.shape)] = value
    return out
