"""A layer of the BERT family (LayerNorm after each part, GELU) as one step of autograd.

Rows are tokens, batch·length × width; where texts are of unequal length padding has no rows, and
only attention sees the whole rectangle.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tequio.participant.fused import attention
from tequio.participant.fused.linear import backward, factors, forward, read


@dataclass(frozen=True)
class Where:
    """What all layers of one pass share: batch, length, width of a head, scaling of q; the mask of
    padding, if there is any.

    rows: which of batch·length the rows are; None for all of them.
    """

    batch: int
    length: int
    width: int
    scaling: float
    mask: Tensor | None
    rows: Tensor | None = None

    def whole(self, x: Tensor) -> Tensor:
        """A row for each of batch·length; padding's are zero."""
        return (
            x
            if self.rows is None
            else x.new_zeros(self.batch * self.length, x.shape[1]).index_copy(0, self.rows, x)
        )

    def heads(self, x: Tensor) -> Tensor:
        """(rows × heads·width) to (batch × heads × length × width), contiguous."""
        return attention.split_heads(self.whole(x), self.batch, self.width)

    def tokens(self, x: Tensor) -> Tensor:
        """Back from `heads`."""
        x = attention.join_heads(x)
        return x if self.rows is None else x.index_select(0, self.rows)


class EncoderLayer:
    """Reads the weights of a transformers layer at each call, so that what is folded or attached
    meanwhile counts.
    """

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.first, self.second = layer.attention.output.LayerNorm, layer.output.LayerNorm

    def __call__(self, x: Tensor, where: Where) -> Tensor:
        """(rows × width) to (rows × width)."""
        own, layer = self.layer.attention.self, self.layer
        modules = [
            own.query,
            own.key,
            own.value,
            layer.attention.output.dense,
            layer.intermediate.dense,
            layer.output.dense,
        ]
        out: Tensor = _Layer.apply(x, self, where, modules, *factors(modules))  # type: ignore[no-untyped-call]
        return out


def _norm(x: Tensor, module: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.native_layer_norm(
        x, module.normalized_shape, module.weight, module.bias, module.eps
    )


def _norm_back(g: Tensor, x: Tensor, mean: Tensor, inverse: Tensor, module: Any) -> Tensor:
    sizes, mask = module.normalized_shape, [True, False, False]
    found = torch.ops.aten.native_layer_norm_backward(
        g, x, sizes, mean, inverse, module.weight, module.bias, mask
    )
    dx: Tensor = found[0]
    return dx


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layer: EncoderLayer,
        where: Where,
        modules: list[nn.Module],
        *own: Tensor,
    ) -> Tensor:
        q_, k_, v_, o_, in_, out_ = (read(module) for module in modules)
        (q, qi), (k, ki), (v, vi) = (forward(x, linear) for linear in (q_, k_, v_))
        q, k, v = (where.heads(t) for t in (q.mul_(where.scaling), k, v))
        o, p = attention.forward(q, k, v, where.mask)
        o = where.tokens(o)
        y, oi = forward(o, o_)
        y += x
        h, mean, inverse = _norm(y, layer.first)
        wide, ii = forward(h, in_)
        act = F.gelu(wide)
        z, zi = forward(act, out_)
        z += h
        out, mean2, inverse2 = _norm(z, layer.second)
        if any(ctx.needs_input_grad):
            ctx.layer, ctx.where, ctx.linears = layer, where, (q_, k_, v_, o_, in_, out_)
            ctx.inner = (qi, ki, vi, oi, ii, zi)
            saved = act if out_.a is not None else None
            ctx.saved = (x, q, k, v, p, o, y, mean, inverse, h, wide, saved, z, mean2, inverse2)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        layer, where, wanted = ctx.layer, ctx.where, ctx.needs_input_grad[0]
        q_, k_, v_, o_, in_, out_ = ctx.linears
        qi, ki, vi, oi, ii, zi = ctx.inner
        x, q, k, v, p, o, y, mean, inverse, h, wide, act, z, mean2, inverse2 = ctx.saved
        ctx.saved = None
        dz = _norm_back(g, z, mean2, inverse2, layer.second)
        dact, outs = backward(dz, act, zi, out_)
        dwide = torch.ops.aten.gelu_backward(dact, wide)
        dh, ins = backward(dwide, h, ii, in_, dz)
        dy = _norm_back(dh, y, mean, inverse, layer.first)
        do, os = backward(dy, o, oi, o_)
        dq, dk, dv = attention.backward(where.heads(do), q, k, v, p)
        dq, dk, dv = (where.tokens(t) for t in (dq.mul_(where.scaling), dk, dv))
        dx, qs = backward(dq, x, qi, q_, dy, wanted)
        dx, ks = backward(dk, x, ki, k_, dx, wanted)
        dx, vs = backward(dv, x, vi, v_, dx, wanted)
        return (dx if wanted else None, None, None, None, *qs, *ks, *vs, *os, *ins, *outs)
