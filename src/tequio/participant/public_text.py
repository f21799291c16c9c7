"""Public text for the local terms: fixed batches, drawn in an order of each round's own, and what
the base says on them.

All participants of a process share one of these, as they share the adapted model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.text_tasks import Item, TextTask, batches

CACHE_BYTES = (
    2**28
)  # of the base's logits; what does not fit is computed again, to the same numbers


@dataclass(frozen=True)
class Public:
    """Batches of public items; the base's logits (rows × classes) by batch, as far as they fit."""

    batches: tuple[tuple[Item, ...], ...]
    _cache: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def order(self, seed: int) -> Iterator[int]:
        """Endless positions of batches, each once before any comes again."""
        rng = np.random.default_rng(seed)
        while True:
            yield from (int(k) for k in rng.permutation(len(self.batches)))

    def base(self, position: int, adapted: AdaptedModel, task: TextTask) -> Tensor:
        """Logits of the base, adapters and shared update switched off, on one batch; without
        gradient.
        """
        if position not in self._cache:
            with torch.no_grad(), adapted.as_base():
                logits, _ = task.logits(adapted, self.batches[position])
            held = sum(t.numel() * t.element_size() for t in list(self._cache.values()))
            if held + logits.numel() * logits.element_size() > CACHE_BYTES:
                return logits
            self._cache[position] = logits
        return self._cache[position]


def public_text(items: Sequence[Item], size: int, seed: int) -> Public:
    """One epoch of batches of `size`, drawn once."""
    return Public(
        tuple(tuple(b) for b in islice(batches(items, size, seed), -(-len(items) // size)))
    )
