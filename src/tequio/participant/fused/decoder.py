"""A layer of the Llama family (RMSNorm, rotary positions, shared keys, SiLU gate) as one step of
autograd.

Rows are tokens: batch·length × width. Positions count from 0 in every row of the batch, and padding
is on the right, where nobody looks.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tequio.participant.fused import attention
from tequio.participant.fused.linear import backward, factors, forward, read

ONE_KERNEL = hasattr(torch.ops.aten, "_fused_rms_norm_backward")  # on a GPU, from PyTorch 2.8 on


@dataclass(frozen=True)
class Where:
    """What all layers of one pass share: sizes, rotary tables (length × d/2; those of q carry its
    scaling), the causal mask.
    """

    batch: int
    width: int
    q_cos: Tensor
    q_sin: Tensor
    cos: Tensor
    sin: Tensor
    mask: Tensor


class DecoderLayer:
    """Reads the weights of a transformers layer at each call, so that what is folded or attached
    meanwhile counts.
    """

    def __init__(self, layer: Any) -> None:
        self.attention, self.mlp = layer.self_attn, layer.mlp
        self.first, self.second = layer.input_layernorm, layer.post_attention_layernorm

    def __call__(self, x: Tensor, where: Where) -> Tensor:
        """(rows × width) to (rows × width)."""
        a, m = self.attention, self.mlp
        modules = [a.q_proj, a.k_proj, a.v_proj, a.o_proj, m.gate_proj, m.up_proj, m.down_proj]
        out: Tensor = _Layer.apply(x, self, where, modules, *factors(modules))  # type: ignore[no-untyped-call]
        return out


def _norm(x: Tensor, module: Any) -> tuple[Tensor, Tensor]:
    """RMSNorm (Zhang and Sennrich, arXiv 1910.07467) in float32, and 1/rms (rows × 1)."""
    if x.is_cuda and ONE_KERNEL:
        out, inverse = torch.ops.aten._fused_rms_norm(
            x, [x.shape[1]], module.weight, module.variance_epsilon
        )
        return out, inverse
    wide = x.float()
    inverse = wide.square().mean(-1, keepdim=True).add_(module.variance_epsilon).rsqrt_()
    return (wide * inverse).to(x.dtype).mul_(module.weight), inverse


def _norm_back(g: Tensor, x: Tensor, inverse: Tensor, module: Any, into: Tensor) -> Tensor:
    """The gradient of `_norm`'s x, added to `into`: with r = 1/rms, r·(g∘w) − x·r³·mean(g∘w∘x)."""
    if x.is_cuda and ONE_KERNEL:
        own, _ = torch.ops.aten._fused_rms_norm_backward(
            g, x, [x.shape[1]], inverse, module.weight, [True, False]
        )
        return into.add_(own)
    wide, scaled = x.float(), (g * module.weight).float()
    share = (scaled * wide).mean(-1, keepdim=True).mul_(inverse).mul_(inverse)
    return into.add_(scaled.addcmul_(wide, share, value=-1).mul_(inverse))


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        layer: DecoderLayer,
        where: Where,
        modules: list[nn.Module],
        *own: Tensor,
    ) -> Tensor:
        q_, k_, v_, o_, gate_, up_, down_ = (read(module) for module in modules)
        h, inverse = _norm(x, layer.first)
        (q, qi), (k, ki), (v, vi) = (forward(h, linear) for linear in (q_, k_, v_))
        q = attention.turn(q, where.batch, where.q_cos, where.q_sin)
        k = attention.turn(k, where.batch, where.cos, where.sin)
        v = attention.split_heads(v, where.batch, where.width)
        o, p = attention.forward(q, k, v, where.mask)
        o = attention.join_heads(o)
        y, oi = forward(o, o_)
        y += x
        h2, inverse2 = _norm(y, layer.second)
        (gate, gi), (up, ui) = forward(h2, gate_), forward(h2, up_)
        s = F.silu(gate)
        act = s * up
        out, di = forward(act, down_)
        out += y
        if any(ctx.needs_input_grad):
            ctx.layer, ctx.where, ctx.linears = layer, where, (q_, k_, v_, o_, gate_, up_, down_)
            ctx.inner = (qi, ki, vi, oi, gi, ui, di)
            saved = act if down_.a is not None else None
            ctx.saved = (x, h, inverse, q, k, v, p, o, y, h2, inverse2, gate, up, s, saved)
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        layer, where, wanted = ctx.layer, ctx.where, ctx.needs_input_grad[0]
        q_, k_, v_, o_, gate_, up_, down_ = ctx.linears
        qi, ki, vi, oi, gi, ui, di = ctx.inner
        x, h, inverse, q, k, v, p, o, y, h2, inverse2, gate, up, s, act = ctx.saved
        ctx.saved = None
        dact, downs = backward(g, act, di, down_)
        dup = dact * s
        dgate = torch.ops.aten.silu_backward(dact.mul_(up), gate)
        del dact, act, s, up, gate
        dh, gates = backward(dgate, h2, gi, gate_)
        dh, ups = backward(dup, h2, ui, up_, dh)
        dy = _norm_back(dh, y, inverse2, layer.second, g.clone())
        do, outs = backward(dy, o, oi, o_)
        dq, dk, dv = attention.backward(
            attention.split_heads(do, where.batch, where.width), q, k, v, p
        )
        dq = attention.turn_back(dq, where.q_cos, where.q_sin)
        dk, dv = attention.turn_back(dk, where.cos, where.sin), attention.join_heads(dv)
        dh, qs = backward(dq, h, qi, q_, None, wanted)
        dh, ks = backward(dk, h, ki, k_, dh, wanted)
        dh, vs = backward(dv, h, vi, v_, dh, wanted)
        dx = _norm_back(dh, x, inverse, layer.first, dy) if wanted else None
        return (dx, None, None, None, *qs, *ks, *vs, *outs, *gates, *ups, *downs)
