"""No compression: the canonical float32 bytes. What every ratio is measured against."""

from __future__ import annotations

from dataclasses import dataclass

from tequio.algorithms.compress.codec import LIMIT
from tequio.algorithms.compress.container import check_header, damaged, items_of
from tequio.core.canonical import pack, unpack
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
        items_of(update)
        return pack(update)

    def decode(self, data: bytes, source: str, limit: int = LIMIT) -> Update:
        """See `Codec`."""
        check_header(data, source, limit)
        try:
            update = unpack(data, source)
        except UpdateError as error:
            if source in error.what:
                raise
            raise damaged(source, str(error)) from None
        if not update.is_finite():
            raise damaged(source, "It holds NaN or infinite numbers.")
        return update
