"""The update algebra: what travels between participants and coordinator, and the arithmetic on it.

An `Update` is a set of named entries, each the change of one weight matrix:
`Factored` ΔW = B·A with B (m × R), A (R × n), the LoRA scale α/r already inside B; `Dense` ΔW of
any shape. Sums of factored entries are exact, by stacking: [B₁ B₂]·[A₁; A₂] (FLoRA, arXiv
2409.05976). `dot` and `norm` never form B·A: ⟨B₁A₁, B₂A₂⟩ = tr((B₂ᵀB₁)(A₁A₂ᵀ)). All tensors are
float32; nothing is changed in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from tequio.core.errors import UpdateError
from tequio.core.texts.words import refusal


@dataclass(frozen=True)
class Factored:
    """ΔW = b @ a, b (m × R) and a (R × n), float32, scale included."""

    b: Tensor
    a: Tensor

    def __post_init__(self) -> None:
        if self.b.ndim != 2 or self.a.ndim != 2 or self.b.shape[1] != self.a.shape[0]:
            raise refusal(
                UpdateError, "factors-do-not-fit", shape=[*self.b.shape], expected=[*self.a.shape]
            )

    @property
    def rank(self) -> int:
        """R, the number of columns of b (an upper bound of the matrix rank)."""
        return self.b.shape[1]

    @property
    def shape(self) -> torch.Size:
        """(m, n) of ΔW."""
        return torch.Size((self.b.shape[0], self.a.shape[1]))

    def value(self) -> Tensor:
        """ΔW itself, (m × n)."""
        return self.b @ self.a


@dataclass(frozen=True)
class Dense:
    """ΔW as it is, float32, any shape: heads, biases, full weights."""

    value: Tensor

    @property
    def shape(self) -> torch.Size:
        """Shape of ΔW."""
        return self.value.shape


Entry = Factored | Dense


class Streamed(Mapping[str, Entry]):
    """Entries that are read one by one whenever they are looked at, and not kept: an update larger
    than one wants in memory.

    names in order; read: name -> entry, the same each time.
    """

    def __init__(self, names: Sequence[str], read: Callable[[str], Entry]) -> None:
        self._names, self._read = dict.fromkeys(names), read

    def __getitem__(self, name: str) -> Entry:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def map(self, change: Callable[[Entry], Entry]) -> Streamed:
        """The same, each entry changed as it is read."""
        return Streamed(list(self._names), lambda name: change(self._read(name)))


def plain(entry: Entry) -> Tensor:
    """ΔW as one tensor."""
    return entry.value() if isinstance(entry, Factored) else entry.value


def _add(x: Entry, y: Entry) -> Entry:
    if isinstance(x, Factored) and isinstance(y, Factored):
        m, n = x.shape
        if (x.rank + y.rank) * (m + n) < m * n:  # stacked factors are still smaller than the matrix
            return Factored(torch.cat([x.b, y.b], 1), torch.cat([x.a, y.a], 0))
    if isinstance(x, Dense) and isinstance(y, Factored) and x.value.shape == y.shape:
        return Dense(torch.addmm(x.value, y.b, y.a))  # one pass over the matrix, not three
    return Dense(plain(x) + plain(y))


def _scaled(entry: Entry, factor: float) -> Entry:
    if isinstance(entry, Factored):
        return Factored(entry.b * factor, entry.a)
    return Dense(entry.value * factor)


def _dot(x: Entry, y: Entry) -> float:
    if isinstance(x, Factored) and isinstance(y, Factored):
        return float(torch.sum((y.b.T @ x.b).double() * (y.a @ x.a.T).double()))
    if isinstance(x, Factored):
        return float(torch.sum((plain(y) @ x.a.T).double() * x.b.double()))
    if isinstance(y, Factored):
        return _dot(y, x)
    return float(torch.sum(x.value.double() * y.value.double()))


def _split(entry: Factored | Dense, rank: int) -> tuple[Entry, Entry]:
    """Best rank-`rank` approximation in the Frobenius norm (Eckart-Young) and the exact
    remainder.
    """
    if isinstance(entry, Factored):
        q_b, r_b = torch.linalg.qr(entry.b)
        q_a, r_a = torch.linalg.qr(entry.a.T)
        u, s, vh = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
        b, a = q_b @ (u * s), vh @ q_a.T
    else:
        u, s, vh = torch.linalg.svd(entry.value, full_matrices=False)
        b, a = u * s, vh
    return Factored(b[:, :rank].clone(), a[:rank].clone()), _shorter(
        Factored(b[:, rank:], a[rank:])
    )


def _shorter(entry: Factored) -> Entry:
    """The same as factors or as one matrix, whichever has fewer numbers; in memory of its own."""
    m, n = entry.shape
    return (
        Dense(entry.value())
        if entry.rank * (m + n) >= m * n
        else Factored(entry.b.clone(), entry.a.clone())
    )


@dataclass(frozen=True)
class Update:
    """Named entries and `spec`, the digest of the layout (base, modules, shapes) they belong to."""

    entries: Mapping[str, Entry]
    spec: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.entries, Streamed):
            object.__setattr__(self, "entries", MappingProxyType(dict(self.entries)))

    def _zip(self, other: Update, combine: Callable[[Entry, Entry], Entry]) -> Update:
        self._check(other)
        out = dict(self.entries)
        for name, entry in other.entries.items():
            mine = out.get(name)
            out[name] = entry if mine is None else combine(mine, entry)
        return Update(out, self.spec)

    def _check(self, other: Update) -> None:
        if self.spec != other.spec:
            found = {"found": self.spec[:12] or None, "expected": other.spec[:12] or None}
            raise refusal(UpdateError, "layouts-differ", **found)
        for name in self.entries.keys() & other.entries.keys():
            mine, theirs = self.entries[name].shape, other.entries[name].shape
            if mine != theirs:
                raise refusal(
                    UpdateError,
                    "entry-shapes-differ",
                    entry=name,
                    shape=[*mine],
                    expected=[*theirs],
                )

    def plus(self, other: Update) -> Update:
        """self + other, exactly: factors are stacked, until the plain matrix is smaller.

        Missing entries are 0.
        """
        return self._zip(other, _add)

    def scaled(self, factor: float) -> Update:
        """factor · self."""
        if isinstance(self.entries, Streamed):
            return Update(self.entries.map(lambda entry: _scaled(entry, factor)), self.spec)
        return Update(
            {name: _scaled(entry, factor) for name, entry in self.entries.items()}, self.spec
        )

    def minus(self, other: Update) -> Update:
        """self − other."""
        return self.plus(other.scaled(-1.0))

    def dot(self, other: Update) -> float:
        """Frobenius inner product Σ⟨ΔW, ΔW'⟩ over the entries both have;

        O(r²(m+n)) for factored ones.
        """
        self._check(other)
        names = sorted(self.entries.keys() & other.entries.keys())
        return math.fsum(_dot(self.entries[name], other.entries[name]) for name in names)

    def norm(self) -> float:
        """Frobenius norm over all entries."""
        return math.sqrt(max(math.fsum(_dot(entry, entry) for entry in self.entries.values()), 0.0))

    def pieces(self) -> Iterator[Update]:
        """Parts that add up to self: one an entry where entries are read as they are looked at,
        else all at once.
        """
        if not isinstance(self.entries, Streamed):
            yield self
            return
        for name, entry in self.entries.items():
            yield Update({name: entry}, self.spec)

    def split_rank(self, rank: int) -> tuple[Update, Update]:
        """(head, tail): head has factored entries of at most `rank`, the best such approximation;
        head + tail = self.

        Entries already small enough, and vectors, go whole into the head. QR of both factors, then
        the SVD of the small core R_B·R_Aᵀ: ΔW is never formed. The prefix of length r of a head is
        the best rank-r approximation. Matrices held `Dense` are split too, but for those of a head
        (see `is_matrix`).
        """
        head: dict[str, Entry] = {}
        tail: dict[str, Entry] = {}
        for name, entry in self.entries.items():
            fits = rank >= (
                entry.rank if isinstance(entry, Factored) else min(entry.shape, default=0)
            )
            if fits or not is_matrix(name, entry):
                head[name] = entry
            else:
                head[name], tail[name] = _split(entry, rank)
        return Update(head, self.spec), Update(tail, self.spec)

    def to_rank(self, rank: int) -> Update:
        """The best approximation with factored entries of rank ≤ `rank`."""
        return self.split_rank(rank)[0]

    def max_rank(self) -> int:
        """Largest R of the factored entries, 0 if there is none."""
        return max((e.rank for e in self.entries.values() if isinstance(e, Factored)), default=0)

    def nbytes(self) -> int:
        """Bytes of the tensors, float32."""
        total = 0
        for entry in self.entries.values():
            parts = (entry.a, entry.b) if isinstance(entry, Factored) else (entry.value,)
            total += sum(part.numel() * 4 for part in parts)
        return total

    def is_finite(self) -> bool:
        """Whether no tensor holds NaN or infinity."""
        for entry in self.entries.values():
            parts = (entry.a, entry.b) if isinstance(entry, Factored) else (entry.value,)
            if not all(bool(torch.isfinite(part).all()) for part in parts):
                return False
        return True


HEAD_PREFIX = "head."


def is_matrix(name: str, entry: Entry) -> bool:
    """Whether an entry may be re-factored: 2-D, and not part of a head (small, and wanted
    exactly).
    """
    return len(entry.shape) == 2 and not name.startswith(HEAD_PREFIX)


def zero(spec: str) -> Update:
    """The neutral element: no entries, all missing ones count as 0."""
    return Update({}, spec)
