"""Updates of shared factors as vectors: by rank block, so that members of unequal ranks have the
first blocks in common."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tequio.core.canonical import digest_update
from tequio.core.errors import ProtectionError
from tequio.core.texts.words import refusal
from tequio.core.types import Trained, TrainRequest
from tequio.core.update import Dense, Entry, Factored, Update, plain


@dataclass(frozen=True)
class Places:
    """Where the values of an update stand.

    Args:
        ranks: where each block of ranks ends, rising: with 2 and 4 the first block has ranks 0 and
            1, the second 2 and 3.
        shapes: (m, n) of each adapted module.
        heads: shapes of the tensors of the head; they stand in the first block.
        trained: which factors of a round are trained.
    """

    ranks: tuple[int, ...]
    shapes: Mapping[str, tuple[int, int]]
    heads: Mapping[str, tuple[int, ...]]
    trained: Trained

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return how many values each block has."""
        side = sum(
            shape[1 if factor == "a" else 0]
            for shape in self.shapes.values()
            for factor in self._factors
        )
        widths = [high - low for low, high in self._blocks]
        heads = sum(math.prod(shape) for shape in self.heads.values())
        return tuple(
            width * side + (heads if number == 0 else 0) for number, width in enumerate(widths)
        )

    @property
    def _factors(self) -> tuple[str, ...]:
        return ("a", "b") if self.trained == "both" else (self.trained,)

    @property
    def _blocks(self) -> list[tuple[int, int]]:
        return list(zip((0, *self.ranks[:-1]), self.ranks, strict=True))

    def vector(self, update: Update, blocks: int) -> NDArray[np.float32]:
        """Return the values of an update, the first blocks. Raises ProtectionError if it has other
        entries than a round trains."""
        expected = {
            f"{name}:{factor}" for name in self.shapes for factor in self._factors
        } | self.heads.keys()
        if update.entries.keys() != expected:
            raise refusal(ProtectionError, "secure-sum-layout")
        pieces = [plain(update.entries[name]).reshape(-1) for name in sorted(self.heads)]
        for low, high in self._blocks[:blocks]:
            pieces += [self._cut(update, key, low, high).reshape(-1) for key in self._keys()]
        values: NDArray[np.float32] = torch.cat(pieces).numpy()
        return values

    def update(self, values: NDArray[np.float64], spec: str) -> Update:
        """Return the update that has these values, of the largest rank."""
        taken, parts = 0, dict[str, list[torch.Tensor]]()
        whole = torch.from_numpy(values).to(torch.float32)
        entries: dict[str, Entry] = {}
        for name in sorted(self.heads):
            size = math.prod(self.heads[name])
            entries[name] = Dense(whole[taken : taken + size].reshape(self.heads[name]).clone())
            taken += size
        for low, high in self._blocks:
            for key in self._keys():
                m, n = self.shapes[key[:-2]]
                shape = (high - low, n) if key.endswith(":a") else (m, high - low)
                parts.setdefault(key, []).append(
                    whole[taken : taken + math.prod(shape)].reshape(shape)
                )
                taken += math.prod(shape)
        entries |= {
            key: Dense(torch.cat(part, dim=0 if key.endswith(":a") else 1))
            for key, part in parts.items()
        }
        return Update(entries, spec)

    def _keys(self) -> list[str]:
        return [f"{name}:{factor}" for name in sorted(self.shapes) for factor in self._factors]

    def _cut(self, update: Update, key: str, low: int, high: int) -> torch.Tensor:
        value = plain(update.entries[key])
        return value[low:high] if key.endswith(":a") else value[:, low:high]


def asked_model(request: TrainRequest, scale: float) -> str:
    """Return the digest of the shared model that a training request starts from: the same whatever
    the rank of who is asked.

    Raises ProtectionError if the request does not hold it whole.
    """
    start = request.start
    if start is None or request.layout != "factors":
        raise refusal(ProtectionError, "secure-sum-layout")
    entries: dict[str, Entry] = {}
    for key, entry in start.entries.items():
        if key.endswith(":a"):
            name = key[:-2]
            b, a, rest = (
                plain(start.entries[f"{name}:b"]) * scale,
                plain(entry),
                request.held.entries.get(name),
            )
            if isinstance(rest, Factored):
                b, a = torch.cat([b, rest.b], dim=1), torch.cat([a, rest.a])
            entries[name] = Factored(b=b, a=a)
        elif not key.endswith(":b"):
            held = request.held.entries.get(key)
            if held is None or not torch.equal(plain(held), plain(entry)):
                raise refusal(ProtectionError, "secure-sum-layout")
            entries[key] = entry
    return digest_update(Update(entries, request.held.spec))
