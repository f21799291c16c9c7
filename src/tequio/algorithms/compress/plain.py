"""No compression: the canonical float32 bytes. What every ratio is measured against."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tequio.algorithms.compress._container import Item, check_header, damaged, to_items
from tequio.algorithms.compress.codec import LIMIT
from tequio.core.canonical import FORMAT, Shape, pack, packed_size, unpack
from tequio.core.errors import UpdateError
from tequio.core.update import Update


@dataclass(frozen=True)
class Plain:
    """Exact."""

    name: str = "plain"
    stochastic: bool = False
    unbiased: bool = True

    def encode(self, update: Update, seed: int) -> bytes:
        """See `Codec`."""
        to_items(update)
        return pack(update)

    def most(self, items: Sequence[Item], spec: str) -> int:
        """See `Codec`."""
        shapes: dict[str, Shape] = {}
        for item in items:
            if item.kind in "fF":
                m, rank, n = item.shape
                shapes[f"{item.name}#a"], shapes[f"{item.name}#b"] = (
                    (torch.float32, (rank, n)),
                    (torch.float32, (m, rank)),
                )
            else:
                shapes[item.name] = (torch.float32, item.shape)
        return packed_size(shapes, {"format": FORMAT, "spec": spec})

    def decode(self, data: bytes, source: str, limit: int = LIMIT) -> Update:
        """See `Codec`."""
        check_header(data, source, limit)
        try:
            update = unpack(data, source)
        except UpdateError as error:
            if source in error.what:
                raise
            raise damaged(source, "tensors") from None
        if not update.is_finite():
            raise damaged(source, "values")
        return update
