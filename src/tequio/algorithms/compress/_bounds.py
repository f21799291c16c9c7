"""Bytes that an update can have in a codec, whatever its numbers are: coordinator and participant
keep budgets by the same bound.
"""

from collections.abc import Mapping

from tequio.algorithms.compress._container import announced
from tequio.algorithms.compress.codec import Codec
from tequio.core.update import Entry

Shapes = Mapping[str, tuple[int, ...]]


def upload_most(
    codec: Codec,
    spec: str,
    layers: Mapping[str, tuple[int, int]],
    heads: Shapes,
    full: bool = False,
    rank: int = 0,
    moves: Mapping[str, Entry] | None = None,
) -> int:
    """The message with an update of `layers` (m, n) and heads: whole weights if `full`, else
    factors of `rank`, else changes of `moves`.
    """
    if full:  # one message an entry
        return sum(
            codec.most(announced({name: shape}), spec)
            for name, shape in {**layers, **heads}.items()
        )
    if moves is None:
        return codec.most(announced(heads, layers, rank), spec)
    return codec.most(announced({**entry_shapes(moves), **heads}), spec)


def entry_shapes(entries: Mapping[str, Entry]) -> dict[str, tuple[int, ...]]:
    """The shape of each entry."""
    return {name: tuple(entry.shape) for name, entry in entries.items()}
