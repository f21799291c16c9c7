"""Frozen linear layers with their LoRA factors: y = W·x + c + s·B·(A·x), and the gradients of x, A
and B by hand.

Rows of x may belong to several participants, in equal blocks one after the other; then the factors
of all of them are stacked, and each block meets its own. With g the gradient of y: ∂x = Wᵀg +
Aᵀ(sBᵀg), ∂A = (sBᵀg)·xᵀ, ∂B = s·g·(A·x)ᵀ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tequio.participant.lora import AdaptedLinear


@dataclass(frozen=True)
class Linear:
    """What a linear layer is during one step. weight (m × n); a (r × n) and b (m × r), scale
    included, in the weight's precision.

    Stacked for G participants: a (G × r × n), b (G × m × r).
    """

    weight: Tensor
    bias: Tensor | None
    a: Tensor | None = None
    b: Tensor | None = None
    scale: float = 1.0


def read(module: nn.Module) -> Linear:
    """The layer as it is now: what is held is folded in, what is attached is cast once."""
    weight, bias = module.weight, module.bias
    if not isinstance(module, AdaptedLinear) or module.a is None or module.b is None:
        return Linear(weight, bias)  # type: ignore[arg-type]
    a, b = (
        module.a.detach().to(module.weight.dtype),
        (module.b.detach() * module.scale).to(module.weight.dtype),
    )
    return Linear(module.weight, module.bias, a, b, module.scale)


def factors(modules: Sequence[nn.Module]) -> list[Tensor]:
    """The float32 factors attached to these layers: a, b, a, b, …"""
    adapted = (m for m in modules if isinstance(m, AdaptedLinear))
    return [factor for m in adapted if m.a is not None and m.b is not None for factor in (m.a, m.b)]


def forward(x: Tensor, layer: Linear) -> tuple[Tensor, Tensor | None]:
    """y (rows × m) of x (rows × n), and A·x (rows × r), which the backward pass needs."""
    y = F.linear(x, layer.weight, layer.bias)
    if layer.a is None or layer.b is None:
        return y, None
    if layer.a.dim() == 2:
        inner = F.linear(x, layer.a)
        return y.addmm_(inner, layer.b.t()), inner
    inner = torch.bmm(_blocks(x, layer.a), layer.a.transpose(1, 2))
    _blocks(y, layer.a).baddbmm_(inner, layer.b.transpose(1, 2))
    return y, inner


def backward(
    g: Tensor,
    x: Tensor,
    inner: Tensor | None,
    layer: Linear,
    into: Tensor | None = None,
    wanted: bool = True,
) -> tuple[Tensor, list[Tensor]]:
    """(gradient of x added to `into`, [∂A, ∂B] float32) for g (rows × m). wanted:

    False where nobody needs that of x.
    """
    dx = into if into is not None else g
    if wanted:
        dx = g @ layer.weight if into is None else into.addmm_(g, layer.weight)
    if layer.a is None or layer.b is None or inner is None:
        return dx, []
    if layer.a.dim() == 2:
        back = g @ layer.b
        da, db = back.t() @ x, g.t() @ inner
        if wanted:
            dx.addmm_(back, layer.a)
    else:
        own = _blocks(g, layer.a)
        back = torch.bmm(own, layer.b)
        da, db = (
            torch.bmm(back.transpose(1, 2), _blocks(x, layer.a)),
            torch.bmm(own.transpose(1, 2), inner),
        )
        if wanted:
            _blocks(dx, layer.a).baddbmm_(back, layer.a)
    return dx, [da.float(), db.float().mul_(layer.scale)]


def _blocks(x: Tensor, stacked: Tensor) -> Tensor:
    """(rows × n) as (G × rows/G × n)."""
    return x.view(len(stacked), -1, x.shape[1])
