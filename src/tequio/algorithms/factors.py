"""Shared factors (layout factors): where training continues A and B themselves instead of
restarting on a folded model.

The shared model is then coordinates, `module:a` (r × n) and `module:b` (m × r), and its meaning is
s·B·A.
"""

import math
from collections.abc import Mapping

import torch

from tequio.core.types import Trained
from tequio.core.update import Dense, Entry, Factored, Update, plain


def initial_factors(
    shapes: Mapping[str, tuple[int, int]], rank: int, seed: int, spec: str
) -> Update:
    """A ~ U(−1/√n, 1/√n) from `seed` and B = 0 for every module of shape (m, n)."""
    generator = torch.Generator().manual_seed(seed)
    entries: dict[str, Entry] = {}
    for name in sorted(shapes):
        m, n = shapes[name]
        entries[f"{name}:a"] = Dense(
            (torch.rand(rank, n, generator=generator) * 2 - 1) / math.sqrt(n)
        )
        entries[f"{name}:b"] = Dense(torch.zeros(m, rank))
    return Update(entries, spec)


def product(shared: Update, scale: float) -> Update:
    """What coordinates mean: ΔW = s·B·A a module; other entries (heads) as they are."""
    entries: dict[str, Entry] = {}
    for name, entry in shared.entries.items():
        if name.endswith(":a"):
            a, b = shared.entries[name], shared.entries[f"{name[:-2]}:b"]
            if isinstance(a, Dense) and isinstance(b, Dense):
                entries[name[:-2]] = Factored(b=b.value * scale, a=a.value)
        elif not name.endswith(":b"):
            entries[name] = entry
    return Update(entries, shared.spec)


def heads(shared: Update) -> Update:
    """Only what is not a factor."""
    return Update(
        {n: e for n, e in shared.entries.items() if not n.endswith((":a", ":b"))}, shared.spec
    )


def prefix(shared: Update, rank: int) -> Update:
    """The first `rank` rows of every A and columns of every B; what a participant of that rank is
    sent.
    """
    entries: dict[str, Entry] = {}
    for name, entry in shared.entries.items():
        if isinstance(entry, Dense) and name.endswith(":a"):
            entries[name] = Dense(entry.value[:rank])
        elif isinstance(entry, Dense) and name.endswith(":b"):
            entries[name] = Dense(entry.value[:, :rank])
        else:
            entries[name] = entry
    return Update(entries, shared.spec)


def tail(shared: Update, rank: int, scale: float) -> Update:
    """What the ranks after the first `rank` mean, s·B[:, rank:]·A[rank:] a module; nothing where
    there are none.
    """
    rest: dict[str, Entry] = {}
    for name, entry in shared.entries.items():
        value = plain(entry)
        if name.endswith(":a") and len(value) > rank:
            rest[name], rest[f"{name[:-2]}:b"] = (
                Dense(value[rank:]),
                Dense(plain(shared.entries[f"{name[:-2]}:b"])[:, rank:]),
            )
    return product(Update(rest, shared.spec), scale)


def trainable(shared: Update, which: Trained) -> Trained:
    """`which`, but B instead of A while all of B is 0: A has no gradient then."""
    if which == "a" and not any(
        bool(plain(e).any()) for name, e in shared.entries.items() if name.endswith(":b")
    ):
        return "b"
    return which


def parted(update: Update, trained: Trained) -> tuple[Update, Update]:
    """(what a round that trains these factors moves, heads included; the entries of the factors
    that rest).

    Goes by the end of the names, so a server optimiser's memory can be parted too.
    """
    resting = {"both": "", "a": ":b", "b": ":a"}[trained]
    rests = {n: e for n, e in update.entries.items() if resting and n.endswith(resting)}
    return Update({n: e for n, e in update.entries.items() if n not in rests}, update.spec), Update(
        rests, update.spec
    )


def padded_sum(x: Update, y: Update) -> Update:
    """x + y where the factors of one may have fewer ranks than the other's: missing ranks count
    as 0.
    """
    entries = dict(x.entries)
    for name, entry in y.entries.items():
        mine = entries.get(name)
        if isinstance(mine, Dense) and isinstance(entry, Dense) and mine.shape != entry.shape:
            total = torch.zeros([max(p, q) for p, q in zip(mine.shape, entry.shape, strict=True)])
            for part in (mine.value, entry.value):
                total[tuple(slice(0, size) for size in part.shape)] += part
            entries[name] = Dense(total)
        else:
            entries[name] = entry if mine is None else _sum(x.spec, name, mine, entry)
    return Update(entries, x.spec)


def _sum(spec: str, name: str, x: Entry, y: Entry) -> Entry:
    return Update({name: x}, spec).plus(Update({name: y}, spec)).entries[name]
