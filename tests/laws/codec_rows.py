"""Each codec of the registry with its bounds, the updates on which it is tried, and its relative
error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from tequio.algorithms.compress.codec import Codec
from tequio.algorithms.registry import COMPRESS
from tequio.core.canonical import to_tensors
from tequio.core.update import Dense, Entry, Factored, Update


@dataclass(frozen=True)
class Row:
    """A codec; bounds of its relative error on normal numbers (measured, + 5 %) and of float32
    bytes ÷ its bytes.
    """

    codec: str
    error: float
    ratio: float
    settings: dict[str, Any] = field(default_factory=dict)

    def make(self) -> Codec:
        return COMPRESS[self.codec](**self.settings)


ROWS = {  # measured: error, ratio
    "plain": Row("plain", 0.0, 0.99),  # 0, 0.995
    "half": Row("half", 0.00023, 2.1),  # .00021, 2.19
    "half bf16": Row("half", 0.0018, 2.7, {"form": "bf16"}),  # .0017, 2.83
    "int8": Row("quantise", 0.0101, 4.1, {"bits": 8}),  # .0096, 4.21
    "int8 rotated": Row("quantise", 0.0101, 4.1, {"bits": 8, "rotate": True}),
    "int4": Row("quantise", 0.172, 8.9, {"bits": 4}),  # .163, 9.07
    "int4 rotated": Row("quantise", 0.172, 8.9, {"bits": 4, "rotate": True}),
    "int2": Row("quantise", 0.86, 20.0, {"bits": 2}),  # .818, 20.3
    "int2 rotated": Row("quantise", 0.86, 20.0, {"bits": 2, "rotate": True}),
    "eden 4": Row("eden", 0.103, 8.2, {"bits": 4}),  # .0975, 8.37
    "eden 2": Row("eden", 0.382, 15.8, {"bits": 2}),  # .364, 16.2
    "eden 1": Row("eden", 0.79, 30.0, {"bits": 1}),  # .754, 30.6
    "top 1 %": Row("topk", 0.97, 260.0, {"density": 0.01}),  # .957, 278
    "top 10 %": Row("topk", 0.79, 44.0, {"density": 0.1}),  # .752, 46.3
    "top 10 %, 4 bits": Row("topk", 0.79, 35.0, {"density": 0.1, "bits": 4}),
    "top 10 %, 8 bits": Row("topk", 0.79, 24.0, {"density": 0.1, "bits": 8}),
    "top 10 %, 16 bits": Row("topk", 0.79, 15.0, {"density": 0.1, "bits": 16}),
}


EVERY = pytest.mark.parametrize("row", sorted(ROWS))


SOURCE = "the reply of Ana"


def realistic() -> Update:
    """12 layers × query and value of a 384-wide model at rank 16, as participants name them:
    294,912 numbers.
    """
    g = torch.Generator().manual_seed(0)
    names = [
        f"bert.encoder.layer.{layer}.attention.self.{part}"
        for layer in range(12)
        for part in ("query", "value")
    ]
    entries: dict[str, Entry] = {
        name: Factored(
            torch.randn(384, 16, generator=g) * 1e-3, torch.randn(16, 384, generator=g) * 0.05
        )
        for name in names
    }
    return Update(entries, "ab" * 32)


def small() -> Update:
    """Every kind of entry, awkward sizes; 1,213 coded numbers, 31 exact ones."""
    g = torch.Generator().manual_seed(1)
    entries: dict[str, Entry] = {
        "m": Factored(torch.randn(37, 3, generator=g), torch.randn(3, 24, generator=g)),
        "n:a": Dense(torch.randn(4, 65, generator=g) * 1e-4),
        "n:b": Dense(torch.randn(90, 4, generator=g) * 100.0),
        "k": Dense(torch.randn(2, 5, 41, generator=g)),
        "empty": Factored(torch.zeros(5, 0), torch.zeros(0, 7)),
        "zeros": Dense(torch.zeros(300, 1)),
        "head.weight": Dense(torch.randn(4, 7, generator=g)),
        "bias": Dense(torch.randn(2, generator=g)),
        "one": Dense(torch.tensor(3.0)),
    }
    return Update(entries, "s")


def flat(update: Update) -> Tensor:
    """All numbers, end to end."""
    return torch.cat([t.reshape(-1) for _, t in sorted(to_tensors(update).items())])


def error(update: Update, arrived: Update) -> float:
    """Root of the mean over tensors of ‖x̂ − x‖² / ‖x‖²."""
    theirs = to_tensors(arrived)
    squares = [
        float((theirs[name] - x).double().square().sum() / x.double().square().sum())
        for name, x in to_tensors(update).items()
        if bool(x.any())
    ]
    return math.sqrt(math.fsum(squares) / len(squares))
