"""A frozen base in shards: each process of a team keeps its rows of every weight, and has a layer
whole only while that computes.

PyTorch's FSDP2 (`fully_shard`) gathers a layer's weights before its forward and its backward pass
and drops them after. Factors and head
are no part of it: they are whole in each process. A gather needs all processes, so all make the
    same passes in the same order.
"""

from __future__ import annotations

import ctypes
import math
import sys
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:  # they take half a second, and most processes shard nothing
    from torch.distributed.device_mesh import DeviceMesh

MMAP_THRESHOLD, BLOCK = (
    -3,
    2**20,
)  # M_MMAP_THRESHOLD of malloc.h; bytes from which a block is the system's own


def spread(model: Any, mesh: DeviceMesh) -> None:
    """Keep only this process's rows, on the mesh's device: layer by layer, then what is outside
    layers.
    """
    from torch.distributed.fsdp import fully_shard

    if mesh.device_type == "cpu" and sys.platform == "linux":
        _give_back()
    for unit in [*_layers(model), *_ends(model), model]:
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)


def _give_back() -> None:
    """Have freed blocks go back to the system from now on: glibc keeps the weights of layers that
    were dropped.

    Without glibc: nothing.
    """
    if hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(MMAP_THRESHOLD, BLOCK)


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a weight in shards (in place: the same memory), or a whole one as
    it is.
    """
    rows: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return rows


def first_row(weight: Any) -> int:
    """Where this process's rows begin: all processes keep ⌈rows / processes⌉ of them, the last ones
    what is left.
    """
    mesh = weight.device_mesh
    each = math.ceil(weight.shape[0] / mesh.size())
    return int(min(mesh.get_local_rank() * each, weight.shape[0]))


def _layers(model: nn.Module) -> list[nn.Module]:
    """The members of each list of modules that is in no other list."""
    lists = [path for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outer = [path for path in lists if not any(path.startswith(f"{other}.") for other in lists)]
    return [layer for path in outer for layer in model.get_submodule(path).children()]


def _ends(model: Any) -> list[nn.Module]:
    """Embeddings and output layer, unless they share a weight, which only what has both can
    gather.
    """
    first, last = model.get_input_embeddings(), model.get_output_embeddings()
    return (
        []
        if last is not None and last.weight is first.weight
        else [m for m in (first, last) if m is not None]
    )
