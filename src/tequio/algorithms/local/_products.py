"""Differentiable arithmetic on what is being trained, ΔW = (s·B)·A a module: no B·A is formed.

`Update.dot` gives the same numbers, but as a float without gradient.
"""

import torch
from torch import Tensor

from tequio.core.update import Dense, Entry, Factored, Update, plain


def inner(x: Update, y: Update) -> Tensor:
    """Σ⟨ΔW, ΔW'⟩ over the entries both have, a scalar: tr((BᵀB')(A'Aᵀ)) for factored ones, O(r²(m +
    n)).
    """
    parts = [
        _inner(entry, y.entries[name]) for name, entry in x.entries.items() if name in y.entries
    ]
    return torch.stack(parts).sum() if parts else torch.zeros(())


def moved(now: Update, start: Update) -> Update:
    """now − start for factors of equal ranks:

    B·A − B₀·A₀ = (B − B₀)·A + B₀·(A − A₀), no difference of large products.
    """
    out: dict[str, Entry] = {}
    for name, entry in now.entries.items():
        before = start.entries[name]
        if isinstance(entry, Factored) and isinstance(before, Factored):
            b, a = (
                torch.cat([entry.b - before.b, before.b], 1),
                torch.cat([entry.a, entry.a - before.a]),
            )
            out[name] = Factored(b=b, a=a)
        else:
            out[name] = Dense(plain(entry) - plain(before))
    return Update(out, now.spec)


def still(update: Update, device: torch.device | None = None) -> Update:
    """A copy without gradient, on `device` if one is given."""

    def copy(tensor: Tensor) -> Tensor:
        return tensor.detach().clone().to(device or tensor.device)

    out: dict[str, Entry] = {}
    for name, entry in update.entries.items():
        if isinstance(entry, Factored):
            out[name] = Factored(b=copy(entry.b), a=copy(entry.a))
        else:
            out[name] = Dense(copy(entry.value))
    return Update(out, update.spec)


def _inner(x: Entry, y: Entry) -> Tensor:
    if isinstance(x, Factored) and isinstance(y, Factored):
        return torch.sum((x.b.T @ y.b) * (x.a @ y.a.T))
    return torch.sum(plain(x) * plain(y))
