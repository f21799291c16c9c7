"""The gradient of a loss with respect to the adapted weights, as factors of a low rank; the full
matrix is never formed.

G is m × n a module. A randomised range finder (Halko, Martinsson and Tropp, arXiv 0909.4061), with
the factors as probes: at B = 0 and random A the gradient of B is s·G·Aᵀ, which spans the leading
columns of G; with Q an orthonormal basis of that, the gradient of A at B = Q, A = 0 is s·QᵀG. So G
≈ Q·(QᵀG), exactly where the rank of G is no higher. Two passes over the same batches.
"""

import math
from collections.abc import Sequence

import torch

from tequio.core.errors import TrainingError
from tequio.core.texts.words import refusal
from tequio.core.update import Dense, Entry, Factored, Update
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.text_tasks import Item, TextTask


def public_gradient(
    adapted: AdaptedModel,
    task: TextTask,
    parts: Sequence[Sequence[Item]],
    held: Update,
    rank: int,
    seed: int,
) -> Update:
    """Mean gradient over the batches `parts` at base + `held`: factored entries of at most `rank`,
    heads as they are.

    Raises TrainingError if it is not finite.
    """
    adapted.fold_in(held)
    try:
        adapted.attach(rank, seed)
        _backward(adapted, task, parts)
        bases: dict[str, Entry] = {}
        for name, layer in adapted.layers.items():
            if layer.b is not None and layer.b.grad is not None:
                basis, _ = torch.linalg.qr(layer.b.grad)
                bases[name] = Factored(
                    b=basis.cpu(), a=torch.zeros(basis.shape[1], layer.weight.shape[1])
                )
        adapted.attach_product(
            Update(bases, adapted.spec), rank, seed
        )  # b is Q/√s there, so the gradient of a is √s·QᵀG
        _backward(adapted, task, parts)
        out: dict[str, Entry] = {}
        for name, entry in bases.items():
            a = adapted.layers[name].a
            if isinstance(entry, Factored) and a is not None and a.grad is not None:
                out[name] = Factored(
                    b=entry.b, a=a.grad[: entry.rank].cpu() / math.sqrt(adapted.scale)
                )
        for name, tensor in adapted.head.items():
            if tensor.grad is not None:
                out[name] = Dense(tensor.grad.detach().cpu())
    finally:
        adapted.detach()
    gradient = Update(out, adapted.spec)
    if not gradient.is_finite():
        raise refusal(TrainingError, "gradient-not-finite")
    return gradient


def _backward(adapted: AdaptedModel, task: TextTask, parts: Sequence[Sequence[Item]]) -> None:
    for part in parts:
        (task.loss(adapted, part) / len(parts)).backward()  # type: ignore[no-untyped-call]
