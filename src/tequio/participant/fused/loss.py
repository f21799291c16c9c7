"""Cross-entropy of a linear layer's output, some rows at a time: the rows × vocabulary matrix never
exists whole.

The gradient of the hidden states is made in the same pass, (softmax(z) − onehot)·W, for the output
layer is frozen.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

CELLS = {
    "cpu": 2**23,
    "cuda": 2**25,
}  # rows × vocabulary at a time: 32 MiB in float32; a GPU would wait for its launches
LEAST = 16  # rows at a time, however many words there are


def cells(vocabulary: int, device: torch.device) -> int:
    """Rows × words at a time."""
    return (
        max(LEAST, CELLS.get(device.type, CELLS["cpu"]) // vocabulary // LEAST * LEAST) * vocabulary
    )


def cross_entropy(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Nats of each row, float32: hidden (rows × n), weight (vocabulary × n), target (rows)."""
    out: Tensor = _Loss.apply(hidden, weight, target)  # type: ignore[no-untyped-call]
    return out


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        step = cells(len(weight), weight.device) // len(weight)
        wide = torch.empty(
            (min(step, len(hidden)), len(weight)), dtype=torch.float32, device=hidden.device
        )
        out = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for begin in range(0, len(hidden), step):
            part, truth = hidden[begin : begin + step], target[begin : begin + step, None]
            z = wide[: len(part)].copy_(F.linear(part, weight))
            own, top = z.gather(1, truth), z.amax(1, keepdim=True)
            total = z.sub_(top).exp_().sum(1, keepdim=True)
            out[begin : begin + step] = (total.log() + top - own)[:, 0]
            if gradient is not None:
                z.div_(total).scatter_add_(1, truth, torch.full_like(own, -1.0))
                gradient[begin : begin + step] = z.to(hidden.dtype) @ weight
        ctx.gradient = gradient
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return (ctx.gradient.float() * g[:, None]).to(ctx.gradient.dtype), None, None
