"""Stochastic uniform quantisation (QSGD, Alistarh et al., arXiv 1610.02132; per vector with
rotation:

Suresh et al., arXiv 1611.00429).

Each vector (column of B, row of A), cut into pieces of at most `block`, has a scale s ≥ max|x| in float16 and 2^bits levels from −s to s.
x goes to one of its two neighbours, to the upper one with probability = its distance from the lower
one in steps, so E[decode] = x; roundings of A and B are independent, so E[BA] holds too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tequio.algorithms.compress._bits import as_bytes, as_tensor, byte_count, pack_bits, unpack_bits
from tequio.algorithms.compress._container import (
    Item,
    Opened,
    coded_layouts,
    coded_matrices,
    cut,
    damaged,
    seal,
    sealed_most,
    to_items,
    unseal,
)
from tequio.algorithms.compress._hadamard import rotate, unrotate
from tequio.algorithms.compress._halves import (
    EXPONENT_LIMIT,
    from_half,
    from_planes,
    shared_exponent,
    to_half,
    to_planes,
)
from tequio.algorithms.compress.codec import LIMIT
from tequio.algorithms.settings import require
from tequio.core.seeds import derive
from tequio.core.update import Update

SEED_BITS = 53  # a seed in JSON must survive readers that hold numbers as doubles
LONGEST = {"exponent": -EXPONENT_LIMIT, "seed": (1 << SEED_BITS) - 1}


@dataclass(frozen=True)
class Quantise:
    """bits 8, 4 or 2 a number; block: most numbers that share a scale; rotate: spread each vector
    by a random rotation first.
    """

    bits: int = 4
    block: int = 256
    rotate: bool = False
    name: str = "quantise"
    stochastic: bool = True
    unbiased: bool = True

    def __post_init__(self) -> None:
        require(self.bits in (8, 4, 2), self.name, "bits", self.bits, "8, 4, 2")
        require(8 <= self.block <= 65536, self.name, "block", self.block, "8 ≤ block ≤ 65536")

    @property
    def label(self) -> str:
        """Name and settings, as the message states them."""
        return f"{self.name}/{self.bits}/{self.block}/{int(self.rotate)}"

    def encode(self, update: Update, seed: int) -> bytes:
        """See `Codec`."""
        items = to_items(update)
        matrices = coded_matrices(update, items)
        spin = derive(seed, "rotation") % (1 << SEED_BITS) if self.rotate else 0
        if self.rotate:
            matrices = [rotate(matrix, spin, index) for index, matrix in enumerate(matrices)]
        pieces = [_pieces(matrix, self.block) for matrix in matrices]
        largest = [
            piece.abs().amax(2) if piece.numel() else piece.new_zeros(piece.shape[:2])
            for piece in pieces
        ]
        flat = torch.cat([torch.zeros(1), *(m.reshape(-1) for m in largest)])
        exponent = shared_exponent(float(flat.max()))
        half = [to_half(m, exponent, "up") for m in largest]
        noise = torch.Generator().manual_seed(derive(seed, "rounding"))
        codes = [
            _quantise(piece, from_half(scale, exponent), self.bits, noise)[
                :, : matrix.shape[1]
            ].reshape(-1)
            for piece, scale, matrix in zip(pieces, half, matrices, strict=True)
        ]
        packed = as_tensor(
            pack_bits(torch.cat([torch.empty(0, dtype=torch.uint8), *codes]).numpy(), self.bits)
        )
        scales = to_planes(
            torch.cat([torch.empty(0, dtype=torch.float16), *(h.reshape(-1) for h in half)])
        )
        return seal(
            self.label,
            update,
            items,
            {"codes": packed, "scales": scales},
            {"exponent": exponent, "seed": spin},
        )

    def most(self, items: Sequence[Item], spec: str) -> int:
        """See `Codec`."""
        layouts = coded_layouts(items)
        count = sum(vectors * length for vectors, length in layouts)
        scales = 2 * sum(vectors * piece_count(length, self.block) for vectors, length in layouts)
        return sealed_most(
            self.label,
            spec,
            items,
            {"codes": byte_count(count, self.bits), "scales": scales},
            LONGEST,
        )

    def decode(self, data: bytes, source: str, limit: int = LIMIT) -> Update:
        """See `Codec`."""
        opened = unseal(data, source, self.label, ("codes", "scales"), limit)
        layouts = opened.layouts()
        sizes = [vectors * length for vectors, length in layouts]
        count = sum(sizes)
        codes = unpack_bits(
            as_bytes(opened.tensor("codes", byte_count(count, self.bits))), count, self.bits
        )
        parts = cut(as_tensor(codes), sizes)
        scales = read_scales(
            opened, [vectors * piece_count(length, self.block) for vectors, length in layouts]
        )
        spin = opened.number("seed", 0, (1 << SEED_BITS) - 1)
        out: list[Tensor] = []
        for index, (part, scale, (vectors, length)) in enumerate(
            zip(parts, scales, layouts, strict=True)
        ):
            unit = part.reshape(vectors, length).float() * (2.0 / (2**self.bits - 1)) - 1.0
            matrix = unit * _spread(
                scale.reshape(vectors, piece_count(length, self.block)), length, self.block
            )
            out.append(unrotate(matrix, spin, index) if self.rotate else matrix)
        return opened.update(out)


def piece_count(length: int, block: int) -> int:
    """Pieces of at most `block` that a vector is cut into."""
    return -(-length // block)


def read_scales(opened: Opened, counts: list[int]) -> list[Tensor]:
    """The scales of each matrix, float32; UpdateError unless finite and ≥ 0."""
    scales = from_half(
        from_planes(opened.tensor("scales", 2 * sum(counts))),
        opened.number("exponent", -EXPONENT_LIMIT, EXPONENT_LIMIT),
    )
    if not bool(torch.isfinite(scales).all()) or bool((scales < 0.0).any()):
        raise damaged(opened.source, "scales")
    return cut(scales, counts)


def _pieces(matrix: Tensor, block: int) -> Tensor:
    """(vectors × length) as (vectors × pieces × piece length), zeros after the end of each
    vector.
    """
    vectors, length = matrix.shape
    count = piece_count(length, block)
    if count == 0:
        return matrix.new_zeros(vectors, 0, 0)
    size = math.ceil(length / count)
    out = matrix.new_zeros(vectors, count * size)
    out[:, :length] = matrix
    return out.reshape(vectors, count, size)


def _spread(scales: Tensor, length: int, block: int) -> Tensor:
    """(vectors × pieces) repeated to (vectors × length)."""
    count = piece_count(length, block)
    size = math.ceil(length / count) if count else 0
    return scales.repeat_interleave(size, 1)[:, :length]


def _quantise(pieces: Tensor, scales: Tensor, bits: int, noise: torch.Generator) -> Tensor:
    """Level numbers, (vectors × pieces·length), uint8."""
    top = 2**bits - 1
    safe = torch.where(scales > 0.0, scales, 1.0)[..., None]
    place = (pieces / safe + 1.0) * (top / 2.0)
    codes = torch.floor(place + torch.rand(place.shape, generator=noise)).clamp_(0, top)
    return codes.to(torch.uint8).flatten(1)
