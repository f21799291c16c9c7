"""Top-k: the `density` largest coordinates of each matrix; sorted positions as Golomb-Rice gaps,
values in few bits (SparseLoCo,
arXiv 2508.15706: 1-3 % at 2 bits, with error feedback). About H(p) + p·bits a parameter, H the
binary entropy.

A value is its sign and one of 2^(bits−1) magnitudes, evenly from lo to hi, both float16 and per
matrix: at 2 bits the two means that fit best (1-D 2-means, exact), else the least and the largest
magnitude.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tequio.algorithms.compress._bits import (
    WIDEST_LOW,
    Ints,
    as_bytes,
    as_tensor,
    byte_count,
    pack_bits,
    rice_decode,
    rice_encode,
    unpack_bits,
)
from tequio.algorithms.compress._container import (
    Item,
    Opened,
    coded_layouts,
    coded_matrices,
    damaged,
    seal,
    sealed_most,
    to_items,
    unseal,
)
from tequio.algorithms.compress._halves import (
    EXPONENT_LIMIT,
    from_half,
    shared_exponent,
    to_half,
    to_planes,
)
from tequio.algorithms.compress.codec import LIMIT
from tequio.algorithms.compress.quantise import read_scales
from tequio.algorithms.settings import require
from tequio.core.update import Update

Floats = NDArray[np.float32]
SLACK = 64  # bytes: how the code of the positions is parted moves offsets in the header


@dataclass(frozen=True)
class TopK:
    """density: share of each matrix that is sent; bits 2, 4, 8 or 16 a value.

    Biased: use error feedback, on fixed coordinates.
    """

    density: float = 0.01
    bits: int = 2
    name: str = "topk"
    stochastic: bool = False
    unbiased: bool = False

    def __post_init__(self) -> None:
        require(0.0 < self.density <= 1.0, self.name, "density", self.density, "0 < density ≤ 1")
        require(self.bits in (2, 4, 8, 16), self.name, "bits", self.bits, "2, 4, 8, 16")

    @property
    def label(self) -> str:
        """Name and settings, as the message states them; the density may differ between two
        senders.
        """
        return f"{self.name}/{self.bits}"

    def encode(self, update: Update, seed: int) -> bytes:
        """See `Codec`."""
        items = to_items(update)
        matrices = coded_matrices(update, items)
        positions, values = _select(matrices, self.density)
        largest = max((float(v.abs().max()) for v in values if v.numel()), default=0.0)
        exponent = shared_exponent(largest)
        ends = [_ends(v.abs(), exponent, self.bits) for v in values]
        half = (
            torch.stack([torch.stack(pair) for pair in ends])
            if ends
            else torch.empty(0, 2, dtype=torch.float16)
        )
        codes = [
            _codes(v, from_half(pair, exponent), self.bits)
            for v, pair in zip(values, half, strict=True)
        ]
        unary, low, width = rice_encode(positions)
        tensors = {
            "unary": as_tensor(unary),
            "low": as_tensor(low),
            "values": as_tensor(
                pack_bits(np.concatenate([np.empty(0, np.int64), *codes]), self.bits)
            ),
            "scales": to_planes(half),
        }
        return seal(
            self.label,
            update,
            items,
            tensors,
            {"exponent": exponent, "count": positions.size, "width": width},
        )

    def most(self, items: Sequence[Item], spec: str) -> int:
        """See `Codec`."""
        layouts = coded_layouts(items)
        counts = [vectors * length for vectors, length in layouts]
        total, selected = sum(counts), sum(_count(n, self.density) for n in counts)
        gaps = min(
            selected * (k + 1) + (total >> k) for k in range(WIDEST_LOW + 1)
        )  # bits: the gaps sum up to `total`
        sizes = {
            "unary": byte_count(gaps, 1) + 2,
            "low": 0,
            "values": byte_count(selected, self.bits),
        }
        numbers = {"exponent": -EXPONENT_LIMIT, "count": total, "width": WIDEST_LOW}
        return (
            sealed_most(self.label, spec, items, sizes | {"scales": 4 * len(layouts)}, numbers)
            + SLACK
        )

    def decode(self, data: bytes, source: str, limit: int = LIMIT) -> Update:
        """See `Codec`."""
        opened = unseal(data, source, self.label, ("unary", "low", "values", "scales"), limit)
        layouts = opened.layouts()
        edges = np.cumsum([0, *(vectors * length for vectors, length in layouts)], dtype=np.int64)
        positions = _positions(opened, int(edges[-1]))
        codes = as_bytes(opened.tensor("values", byte_count(positions.size, self.bits)))
        values = unpack_bits(codes, positions.size, self.bits)
        scales = read_scales(opened, [2] * len(layouts))
        cuts = np.searchsorted(positions, edges)
        out: list[Tensor] = []
        for index, (shape, pair) in enumerate(zip(layouts, scales, strict=True)):
            mine = slice(int(cuts[index]), int(cuts[index + 1]))
            flat = torch.zeros(shape[0] * shape[1])
            flat[torch.from_numpy(positions[mine] - edges[index])] = _values(
                values[mine], pair, self.bits
            )
            out.append(flat.reshape(shape))
        return opened.update(out)


def _select(matrices: list[Tensor], density: float) -> tuple[Ints, list[Tensor]]:
    """(sorted positions over all matrices laid end to end, kept values of each matrix); zeros are
    never kept.
    """
    positions: list[Ints] = [np.empty(0, np.int64)]
    values: list[Tensor] = []
    offset = 0
    for matrix in matrices:
        flat = matrix.reshape(-1)
        chosen = (
            torch.topk(flat.abs(), _count(flat.numel(), density), sorted=False)
            .indices.sort()
            .values
        )
        chosen = chosen[flat[chosen] != 0.0]
        positions.append(chosen.numpy() + offset)
        values.append(flat[chosen])
        offset += flat.numel()
    return np.concatenate(positions), values


def _count(numbers: int, density: float) -> int:
    return min(numbers, max(1, round(density * numbers)))


def _ends(sizes: Tensor, exponent: int, bits: int) -> tuple[Tensor, Tensor]:
    """(lo, hi) of one matrix, float16."""
    if sizes.numel() == 0:
        return torch.zeros((), dtype=torch.float16), torch.zeros((), dtype=torch.float16)
    if bits > 2:
        return to_half(sizes.min(), exponent, "down"), to_half(sizes.max(), exponent, "up")
    low, high = _two_means(sizes)
    return to_half(low, exponent), to_half(high, exponent)


def _two_means(sizes: Tensor) -> tuple[Tensor, Tensor]:
    """The two values with the least squared distance to `sizes`: of all cuts of the sorted sizes,
    the best.
    """
    if sizes.numel() == 1:
        return sizes[0], sizes[0]
    total = torch.cumsum(sizes.sort().values.double(), 0)
    left, right = total[:-1], total[-1] - total[:-1]
    count = torch.arange(1, sizes.numel())
    rest = sizes.numel() - count
    best = int(torch.argmax(left.square() / count + right.square() / rest))
    return left[best] / count[best], right[best] / rest[best]


def _codes(values: Tensor, pair: Tensor, bits: int) -> Ints:
    top = 2 ** (bits - 1) - 1
    low, high = float(pair[0]), float(pair[1])
    place = (
        (values.abs().double() - low) / (high - low) * top
        if high > low
        else torch.zeros_like(values).double()
    )
    sign = (values < 0.0).long() << (bits - 1)
    out: Ints = (place.round().clamp(0, top).long() | sign).numpy()
    return out


def _values(codes: Ints, pair: Tensor, bits: int) -> Tensor:
    top = 2 ** (bits - 1) - 1
    whole = torch.from_numpy(codes.astype(np.int64))
    size = pair[0] + (pair[1] - pair[0]) * ((whole & top).float() / top)
    return torch.where(whole > top, -size, size)


def _positions(opened: Opened, total: int) -> Ints:
    """Sorted positions under `total`; UpdateError if the streams do not hold `count` of them."""
    count = opened.number("count", 0, total)
    width = opened.number("width", 0, WIDEST_LOW)
    low = as_bytes(opened.tensor("low", byte_count(count, width)))
    longest = byte_count((total >> width) + count, 1)
    unary = opened.tensor("unary", min(opened.tensors["unary"].numel(), longest))
    positions = rice_decode(as_bytes(unary), low, width, count)
    if positions is None or (count and int(positions[-1]) >= total):
        raise damaged(opened.source, "positions")
    return positions
