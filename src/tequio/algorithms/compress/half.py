"""16 bits a number: float16 under one shared power of two (relative error ≤ 2^−11 near the largest
numbers), or bfloat16 (≤ 2^−8).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tequio.algorithms.compress._container import (
    Item,
    coded_layouts,
    coded_matrices,
    cut,
    seal,
    sealed_most,
    to_items,
    unseal,
)
from tequio.algorithms.compress._halves import (
    EXPONENT_LIMIT,
    from_half,
    from_planes,
    shared_exponent,
    to_half,
    to_planes,
)
from tequio.algorithms.compress.codec import LIMIT
from tequio.core.errors import ConfigError, UpdateError
from tequio.core.texts.words import refusal
from tequio.core.update import Update


@dataclass(frozen=True)
class Half:
    """form: fp16 (finer) or bf16 (zstd leaves about 11 of its 16 bits)."""

    form: str = "fp16"
    name: str = "half"
    stochastic: bool = False
    unbiased: bool = False

    def __post_init__(self) -> None:
        if self.form not in ("fp16", "bf16"):
            key = "[algorithm] half: form"
            raise refusal(
                ConfigError, "out-of-range", key=key, value=self.form, limits="fp16, bf16"
            )

    @property
    def label(self) -> str:
        """Name and settings, as the message states them."""
        return f"{self.name}/{self.form}"

    def encode(self, update: Update, seed: int) -> bytes:
        """See `Codec`."""
        items = to_items(update)
        flat = torch.cat([torch.empty(0), *(m.reshape(-1) for m in coded_matrices(update, items))])
        exponent = (
            shared_exponent(float(flat.abs().max())) if flat.numel() and self.form == "fp16" else 0
        )
        short = to_half(flat, exponent) if self.form == "fp16" else flat.bfloat16()
        if not bool(torch.isfinite(short).all()):
            raise refusal(UpdateError, "sent-too-large")
        return seal(self.label, update, items, {"values": to_planes(short)}, {"exponent": exponent})

    def most(self, items: Sequence[Item], spec: str) -> int:
        """See `Codec`."""
        count = sum(vectors * length for vectors, length in coded_layouts(items))
        return sealed_most(
            self.label, spec, items, {"values": 2 * count}, {"exponent": -EXPONENT_LIMIT}
        )

    def decode(self, data: bytes, source: str, limit: int = LIMIT) -> Update:
        """See `Codec`."""
        opened = unseal(data, source, self.label, ("values",), limit)
        layouts = opened.layouts()
        sizes = [vectors * length for vectors, length in layouts]
        dtype = torch.float16 if self.form == "fp16" else torch.bfloat16
        flat = from_half(
            from_planes(opened.tensor("values", 2 * sum(sizes)), dtype),
            opened.number("exponent", -EXPONENT_LIMIT, EXPONENT_LIMIT),
        )
        return opened.update(
            [part.reshape(shape) for part, shape in zip(cut(flat, sizes), layouts, strict=True)]
        )
