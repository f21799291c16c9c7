"""LoRA on a frozen linear layer (Hu et al., arXiv 2106.09685): y = (W₀ + H)x + s·B(Ax).

H, the shared update that everybody holds, is folded into the frozen weight; A and B are the
participant's own, float32 masters used in the base's precision. Or the whole weight is trained: a
float32 master of W₀ + H. With nothing attached the layer is a plain linear layer.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tequio.core.errors import BaseModelError, UpdateError
from tequio.core.texts.words import refusal, refuse_first
from tequio.core.update import Entry, Factored, plain
from tequio.participant.module_names import choose_layers, is_transposed
from tequio.participant.sharding import first_row, local


class AdaptedLinear(nn.Module):
    """A frozen linear layer that can hold a folded update and carry trainable factors a (r × n) and
    b (m × r).

    `linear` is an `nn.Linear`, or a Conv1D of transformers, whose weight is (in × out).
    """

    def __init__(self, linear: Any) -> None:
        super().__init__()
        self.transposed = is_transposed(linear)
        weight: Tensor = linear.weight.detach()
        self.original = weight.T if self.transposed else weight  # W₀ (m × n), never changed
        self.weight = self.original  # W₀ + H in the base's precision
        self.bias = None if linear.bias is None else linear.bias.detach()
        self.a: nn.Parameter | None = None
        self.b: nn.Parameter | None = None
        self.full: nn.Parameter | None = None  # W, in place of W₀ + H, where all of it is trained
        self.held: Entry | None = None  # H
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Shape (…, n) to (…, m)."""
        y = self._frozen(x) if self.full is None else F.linear(x, self.full.to(x.dtype), self.bias)
        if self.a is None or self.b is None:
            return y
        inner = F.linear(x, self.a.to(x.dtype))
        return y + F.linear(inner, (self.b * self.scale).to(x.dtype))

    def _frozen(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def fold(self, entry: Entry | None) -> None:
        """Hold W₀ + ΔW; None holds W₀ itself. The sum is made in float32 and rounded once."""
        self.held = entry
        self.weight = self.original if entry is None else self.exact().to(self.original.dtype)

    def exact(self) -> Tensor:
        """W₀ + H in float32, not rounded to the base's precision."""
        whole = self.original.float()
        return whole if self.held is None else whole + plain(self.held).to(self.original.device)

    def attach_full(self) -> None:
        """Start training the whole weight, from W₀ + H."""
        self.detach()
        self.full = nn.Parameter(self.exact().clone())

    def change(self) -> Tensor:
        """What training changed of the whole weight, on the CPU."""
        if self.full is None:
            raise refusal(UpdateError, "nothing-attached")
        return (self.full.detach() - self.exact()).cpu()

    def attach(self, a: Tensor, b: Tensor, scale: float) -> None:
        """Start training from copies of these factors."""
        device = self.original.device
        self.a = nn.Parameter(a.detach().clone().to(device, torch.float32))
        self.b = nn.Parameter(b.detach().clone().to(device, torch.float32))
        self.full, self.scale = None, scale

    def detach(self) -> None:
        """Drop the factors, or the weight that was trained."""
        self.a = self.b = self.full = None


class PartedLinear(AdaptedLinear):
    """One whose frozen weight is in shards (`shards`);

    `original` are this process's rows of W₀, `weight` is that of `sheet`.

    Such a weight cannot be trained.
    """

    def __init__(self, linear: Any) -> None:
        super().__init__(linear)
        self.sheet: Any = linear  # has W₀ + H, and is gathered with its layer
        self.original = self._rows()
        self._first = first_row(linear.weight)

    def _frozen(self, x: Tensor) -> Tensor:
        out: Tensor = self.sheet(x)
        return out

    def _rows(self) -> Tensor:
        return local(self.sheet.weight.detach())

    def fold(self, entry: Entry | None) -> None:
        """Hold W₀ + ΔW, each process in its own rows."""
        rows = self._rows()
        if entry is not None and self.original.data_ptr() == rows.data_ptr():
            self.original = rows.clone()  # from now on W₀ is kept beside W₀ + H
        self.held = entry
        rows.copy_(self.original if entry is None else self.exact())

    def exact(self) -> Tensor:
        """This process's rows of W₀ + H in float32."""
        rows = self.original.float()
        if self.held is None:
            return rows
        mine = slice(self._first, self._first + len(rows))
        held = (
            self.held.b[mine] @ self.held.a
            if isinstance(self.held, Factored)
            else self.held.value[mine]
        )
        return rows + held.to(rows.device)

    def attach_full(self) -> None:
        """Raises UpdateError."""
        raise refusal(UpdateError, "shards-of-full")


def fresh_a(rank: int, columns: int, generator: torch.Generator) -> Tensor:
    """The usual LoRA start for A: Kaiming-uniform with a = √5, that is U(−1/√n, 1/√n);

    B starts at zero.
    """
    bound = 1.0 / math.sqrt(columns)
    return (torch.rand(rank, columns, generator=generator) * 2 - 1) * bound


def adapt(model: nn.Module, names: list[str], parted: bool = False) -> dict[str, AdaptedLinear]:
    """Replace the linear layers that `names` chooses (see `choose_layers`), and return them by
    path. parted: they are in shards.

    Raises BaseModelError, listing what the model has, when a name chooses nothing; and for a layer
    in shards that shares its weight with the embeddings or has it transposed.
    """
    wanted = choose_layers(model, names)
    adapted: dict[str, AdaptedLinear] = {}
    tied = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for path, linear in wanted.items():
        parent_path, _, leaf = path.rpartition(".")
        found = {
            "shards-embeddings": id(linear.weight) in tied,
            "shards-transposed": is_transposed(linear),
        }
        refuse_first(
            BaseModelError, {code: parted and holds for code, holds in found.items()}, path=path
        )
        layer = (PartedLinear if parted else AdaptedLinear)(linear)
        setattr(model.get_submodule(parent_path), leaf, layer)
        adapted[path] = layer
    return adapted
