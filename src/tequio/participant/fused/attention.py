"""Attention by hand: softmax(q·kᵀ + mask)·v with the probabilities kept, heads that share a key
without copies of it.

On a CPU the flash kernel's backward pass costs several times these products up to some hundred
tokens; the probabilities of one layer, batch × heads × length², are small there. Gradients: with P
the probabilities and o = P·v, ∂v = Pᵀ∂o, ∂S = P∘(∂P − rowsum(P∘∂P)).
"""

import torch
from torch import Tensor


def causal_mask(length: int, dtype: torch.dtype) -> Tensor:
    """(length × length): 0 where a row may look, −∞ after it."""
    return torch.full((length, length), -torch.inf, dtype=dtype).triu_(1)


def padding_mask(mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    """(batch × 1 × 1 × length): 0 at real tokens, a large negative number at padding;

    None where there is no padding.
    """
    if bool(mask.all()):
        return None
    return ((1 - mask.to(dtype)) * torch.finfo(dtype).min)[:, None, None, :]


def forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """(o, P) for q (b × heads × l × d), already scaled, and k, v (b × fewer heads × l × d); all
    contiguous. o is as q.
    """
    b, heads, length, d = q.shape
    shared = k.shape[1]
    scores = torch.bmm(q.view(b * shared, -1, d), k.view(b * shared, length, d).transpose(1, 2))
    if mask is not None:
        scores.view(b, heads, length, length).add_(mask)
    p = torch.softmax(scores, -1)
    return torch.bmm(p, v.view(b * shared, length, d)).view(b, heads, length, d), p


def backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, p: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v for g, that of o (b × heads × l × d, contiguous)."""
    b, _, length, d = q.shape
    n = b * k.shape[1]
    g, q, k, v = g.view(n, -1, d), q.view(n, -1, d), k.view(n, length, d), v.view(n, length, d)
    dv = torch.bmm(p.transpose(1, 2), g)
    dp = torch.bmm(g, v.transpose(1, 2))
    ds = torch.ops.aten._softmax_backward_data(dp, p, -1, p.dtype)
    dq = torch.bmm(ds, k)
    dk = torch.bmm(ds.transpose(1, 2), q)
    shape = (b, -1, length, d)
    return dq.view(shape), dk.view(shape), dv.view(shape)


def split_heads(x: Tensor, batch: int, d: int) -> Tensor:
    """(batch·length × heads·d) to (batch × heads × length × d), contiguous."""
    return x.view(batch, -1, x.shape[1] // d, d).transpose(1, 2).contiguous()


def join_heads(x: Tensor) -> Tensor:
    """(batch × heads × length × d) to (batch·length × heads·d)."""
    b, heads, length, d = x.shape
    return x.transpose(1, 2).reshape(b * length, heads * d)


def turn(x: Tensor, batch: int, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al., arXiv 2104.09864) on (batch·length × heads·d):

    (batch × heads × length × d), contiguous.

    cos and sin (length × d/2). The inverse turn is the one with −sin: `turn_back`.
    """
    half = cos.shape[1]
    x = x.view(batch, -1, x.shape[1] // (2 * half), 2 * half).transpose(1, 2)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    left, right = x[..., :half], x[..., half:]
    torch.mul(left, cos, out=out[..., :half]).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=out[..., half:]).addcmul_(left, sin)
    return out


def turn_back(g: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The gradient of `turn`: (batch × heads × length × d) to (batch·length × heads·d)."""
    b, heads, length, d = g.shape
    out = torch.empty((b, length, heads, d), dtype=g.dtype, device=g.device).transpose(1, 2)
    left, right = g[..., : d // 2], g[..., d // 2 :]
    torch.mul(left, cos, out=out[..., : d // 2]).addcmul_(right, sin)
    torch.mul(right, cos, out=out[..., d // 2 :]).addcmul_(left, sin, value=-1)
    return out.transpose(1, 2).reshape(b * length, heads * d)
