"""What a codec must offer: an update to bytes, and bytes that may be hostile to an update."""

from collections.abc import Sequence
from typing import Protocol

from tequio.algorithms.compress._container import Item
from tequio.core.update import Update

LIMIT = 1 << 30  # bytes; a caller that knows the layout should pass a few times the size it expects


class Codec(Protocol):
    """Same update, seed and settings: same bytes.

    Heads and small dense entries always travel in float32.
    """

    @property
    def name(self) -> str:
        """How configuration calls it."""

    @property
    def stochastic(self) -> bool:
        """Whether the seed changes the bytes."""

    @property
    def unbiased(self) -> bool:
        """Whether the mean of decode(encode(x, seed)) over seeds is x, for every x; other codecs
        want error feedback.
        """

    def encode(self, update: Update, seed: int) -> bytes:
        """The update as bytes. Raises UpdateError if it holds NaN or infinity."""

    def most(self, items: Sequence[Item], spec: str) -> int:
        """Bytes of `encode` at most, for entries so announced, whatever their numbers are."""

    def decode(self, data: bytes, source: str, limit: int = LIMIT) -> Update:
        """The update in `data`.

        Raises UpdateError naming `source` on anything that this codec, so set, would not write.

        limit: bytes that the unpacked message, and the float32 tensors decoded from it, may have;
            checked before they are made.
        """
