"""The envelope of a coded update: few tensors and one JSON manifest, in the canonical container,
under zstd (RFC 8878).

All coded tensors are laid out as vectors × length, the vectors along the longer axis (columns of B,
rows of A), one after the other. Opening an envelope trusts nothing: sizes, names and shapes are
checked before anything is allocated.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
import zstandard
from torch import Tensor

from tequio.core.canonical import Shape, pack_tensors, packed_size, unpack_tensors
from tequio.core.errors import UpdateError
from tequio.core.texts.words import refusal
from tequio.core.update import HEAD_PREFIX, Dense, Entry, Factored, Update

FORMAT = "tequio-code-1"
SMALL = 256  # dense entries with fewer numbers, and vectors, travel in float32
HEADER_LIMIT = 1 << 23  # bytes of names and shapes; JSON needs many times its size in memory
ZSTD_LEVEL = 9
WINDOW_LIMIT = 1 << 27  # bytes of history that a frame may ask for
MOST_ENTRIES, MOST_AXES, LONGEST_NAME = 100_000, 8, 512


@dataclass(frozen=True)
class Item:
    """One entry as announced. kind: f factored (shape m, R, n), d dense; capital: sent in
    float32.
    """

    name: str
    kind: str
    shape: tuple[int, ...]

    @property
    def exact(self) -> bool:
        """Whether it travels in float32."""
        return self.kind.isupper()

    def layout(self) -> list[tuple[int, int]]:
        """(vectors, length) of each of its matrices."""
        if self.kind in "fF":
            m, rank, n = self.shape
            return [(rank, n), (rank, m)]
        rows, columns = self._plane()
        return [(columns, rows) if rows > columns else (rows, columns)]

    def matrices(self, entry: Entry) -> list[Tensor]:
        """The entry laid out as vectors × length."""
        if isinstance(entry, Factored):
            return [entry.a, entry.b.T]
        rows, columns = self._plane()
        value = entry.value.reshape(rows, columns)
        return [value.T if rows > columns else value]

    def entry(self, matrices: Sequence[Tensor]) -> Entry:
        """The inverse of `matrices`."""
        if self.kind in "fF":
            return Factored(b=matrices[1].T.contiguous(), a=matrices[0])
        rows, columns = self._plane()
        value = matrices[0].T if rows > columns else matrices[0]
        return Dense(value.reshape(self.shape).contiguous())

    def _plane(self) -> tuple[int, int]:
        return math.prod(self.shape[:-1]), self.shape[-1] if self.shape else 1


def to_items(update: Update) -> list[Item]:
    """The manifest of an update. Raises UpdateError if it holds NaN or infinity."""
    if not update.is_finite():
        raise refusal(UpdateError, "sent-not-finite")
    return [to_item(name, entry) for name, entry in sorted(update.entries.items())]


def to_item(name: str, entry: Entry) -> Item:
    """How an entry is announced."""
    if isinstance(entry, Factored):
        return factored(name, entry.b.shape[0], entry.a.shape[1], entry.rank)
    return dense(name, tuple(entry.shape))


def factored(name: str, m: int, n: int, rank: int) -> Item:
    """A factored entry, announced."""
    return Item(name, "F" if name.startswith(HEAD_PREFIX) else "f", (m, rank, n))


def dense(name: str, shape: tuple[int, ...]) -> Item:
    """A dense entry, announced."""
    exact = name.startswith(HEAD_PREFIX) or len(shape) < 2 or math.prod(shape) < SMALL
    return Item(name, "D" if exact else "d", shape)


def announced(
    whole: Mapping[str, tuple[int, ...]],
    factors: Mapping[str, tuple[int, int]] | None = None,
    rank: int = 0,
) -> list[Item]:
    """Entries known by their shapes only: dense ones, and matrices (m, n) as factors of `rank`."""
    items = [dense(name, shape) for name, shape in whole.items()]
    return items + [factored(name, m, n, rank) for name, (m, n) in (factors or {}).items()]


def coded_matrices(update: Update, items: Sequence[Item]) -> list[Tensor]:
    """What a codec has to write, in the manifest's order: each vectors × length, float32."""
    return [m for item in items if not item.exact for m in item.matrices(update.entries[item.name])]


def seal(
    label: str,
    update: Update,
    items: Sequence[Item],
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, int],
) -> bytes:
    """Envelope of the codec `label` (its name and settings): its tensors, its numbers, the
    manifest, the exact entries.
    """
    exact = [
        m.reshape(-1)
        for item in items
        if item.exact
        for m in item.matrices(update.entries[item.name])
    ]
    flat = {**tensors, "exact": torch.cat(exact)} if exact else dict(tensors)
    raw = pack_tensors(flat, _meta(label, update.spec, items, numbers))
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(raw)


def sealed_most(
    label: str,
    spec: str,
    items: Sequence[Item],
    sizes: Mapping[str, int],
    numbers: Mapping[str, int],
) -> int:
    """Bytes of `seal` at most. sizes: of the codec's tensors, in bytes; numbers: the longest that
    there can be.
    """
    shapes: dict[str, Shape] = {name: (torch.uint8, (count,)) for name, count in sizes.items()}
    if exact := [
        vectors * length for item in items if item.exact for vectors, length in item.layout()
    ]:
        shapes["exact"] = (torch.float32, (sum(exact),))
    raw = packed_size(shapes, _meta(label, spec, items, numbers))
    return raw + (raw >> 8) + max(0, (1 << 17) - raw >> 11)  # as zstd's own ZSTD_compressBound


def coded_layouts(items: Sequence[Item]) -> list[tuple[int, int]]:
    """(vectors, length) of each matrix that a codec has to write."""
    return [shape for item in items if not item.exact for shape in item.layout()]


def _meta(
    label: str, spec: str, items: Sequence[Item], numbers: Mapping[str, int]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "codec": label,
        "spec": spec,
        "entries": [[item.name, item.kind, *item.shape] for item in items],
        **numbers,
    }


@dataclass(frozen=True)
class Opened:
    """A checked envelope; its tensors and numbers are checked as they are taken out."""

    source: str
    spec: str
    items: tuple[Item, ...]
    tensors: Mapping[str, Tensor]
    meta: Mapping[str, Any]

    def layouts(self) -> list[tuple[int, int]]:
        """(vectors, length) of each coded matrix."""
        return coded_layouts(self.items)

    def tensor(self, name: str, count: int, dtype: torch.dtype = torch.uint8) -> Tensor:
        """A flat tensor with `count` numbers of `dtype`."""
        tensor = self.tensors[name]
        if tensor.dtype != dtype or tuple(tensor.shape) != (count,):
            raise damaged(self.source, "tensors")
        return tensor

    def number(self, key: str, low: int, high: int) -> int:
        """A whole number from low to high."""
        value = self.meta.get(key)
        if type(value) is not int or not low <= value <= high:
            raise damaged(self.source, "numbers")
        return value

    def update(self, matrices: Sequence[Tensor]) -> Update:
        """Coded matrices and exact entries as an update; refused unless finite."""
        exact = [shape for item in self.items if item.exact for shape in item.layout()]
        count = sum(vectors * length for vectors, length in exact)
        flat = self.tensor("exact", count, torch.float32) if exact else torch.empty(0)
        pieces = cut(flat, [vectors * length for vectors, length in exact])
        plain = iter([piece.reshape(shape) for piece, shape in zip(pieces, exact, strict=True)])
        coded = iter(matrices)
        entries = {
            item.name: item.entry([next(plain if item.exact else coded) for _ in item.layout()])
            for item in self.items
        }
        update = Update(entries, self.spec)
        if not update.is_finite():
            raise damaged(self.source, "values")
        return update


def cut(flat: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """A flat tensor in consecutive parts of these sizes."""
    edges = [0, *accumulate(sizes)]
    return [flat[start:end] for start, end in pairwise(edges)]


def unseal(data: bytes, source: str, label: str, names: Sequence[str], limit: int) -> Opened:
    """Open an envelope of the codec `label` with tensors `names`.

    Raises UpdateError naming `source`.
    """
    flat, meta = unpack_tensors(_inflate(data, source, limit), source)
    if meta.get("format") != FORMAT or meta.get("codec") != label:
        raise refusal(UpdateError, "update-of-other-codec", source=source, codec=label)
    spec, entries = meta.get("spec", ""), meta.get("entries")
    if not _is_word(spec) or not isinstance(entries, list):
        raise damaged(source, "manifest")
    items = _read_items(entries, source, limit)
    wanted = {*names, "exact"} if any(item.exact for item in items) else set(names)
    if set(flat) != wanted:
        raise damaged(source, "tensors")
    return Opened(source, spec, items, flat, meta)


def check_header(raw: bytes, source: str, limit: int) -> None:
    """Raise UpdateError unless `raw` is within the limit, and its list of tensors small enough to
    be read.
    """
    if len(raw) > limit or int.from_bytes(raw[:8], "little") > HEADER_LIMIT:
        raise damaged(source, "size")


def damaged(source: str, part: str) -> UpdateError:
    """Build the error for a coded update that its codec cannot have written. part: what is wrong,
    as a text `coded.PART` names it.
    """
    return refusal(UpdateError, "coded-update-damaged", source=source, part=part)


def _inflate(data: bytes, source: str, limit: int) -> bytes:
    try:
        size = zstandard.get_frame_parameters(data).content_size
        if size > limit:  # a frame that does not say its size has the largest number here
            raise damaged(source, "size")
        reader = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT)
        raw = reader.decompress(data, max_output_size=limit, allow_extra_data=False)
    except zstandard.ZstdError:
        raise damaged(source, "frame") from None
    check_header(raw, source, limit)
    return raw


def _read_items(entries: list[Any], source: str, limit: int) -> tuple[Item, ...]:
    if len(entries) > MOST_ENTRIES:
        raise damaged(source, "size")
    items = tuple(_read_item(row, source, limit) for row in entries)
    if [item.name for item in items] != sorted({item.name for item in items}):
        raise damaged(source, "order")
    count = sum(vectors * length for item in items for vectors, length in item.layout())
    if 4 * count > limit:
        raise damaged(source, "size")
    return items


def _read_item(row: Any, source: str, limit: int) -> Item:
    if not isinstance(row, list) or len(row) < 2:
        raise damaged(source, "manifest")
    name, kind, shape = row[0], row[1], row[2:]
    if not _is_word(name) or kind not in ("f", "d", "F", "D"):
        raise damaged(source, "name")
    axes = len(shape) == 3 if kind in "fF" else len(shape) <= MOST_AXES
    if not axes or not all(type(size) is int and 0 <= size <= limit for size in shape):
        raise damaged(source, "shape")
    return Item(name, kind, tuple(shape))


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_NAME and value.isprintable()
