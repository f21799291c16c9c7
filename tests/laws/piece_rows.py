"""Each reduce, weighting and server of the registry with its known answers, and the updates on
which they are tried.
"""

from __future__ import annotations

import math

import torch

from tequio.algorithms.registry import reduce_by_name
from tequio.core.protocols import Facts
from tequio.core.update import Dense, Factored, Update

REDUCE_ROWS = {  # the form of its result, and the starts with which it goes
    "stack": ("factored", {"fresh", "fedex", "flexlora"}),
    "fedit": ("dense", {"fresh"}),
    "ffa": ("dense", {"fresh"}),
    "rolora": ("dense", {"fresh"}),
    "trimmed_mean": ("dense", {"fresh"}),
    "centred_clipping": ("factored", {"fresh", "fedex"}),
    "geometric_median": ("factored", {"fresh", "fedex"}),
}


LINEAR = [
    "fedit",
    "ffa",
    "rolora",
    "stack",
]  # the accumulator is the sum itself; the others keep the updates


ROBUST = sorted(set(REDUCE_ROWS) - set(LINEAR))


# of participants with (examples, steps, norm, excess) = (10, 5, 2, .5), (40, 10, 4, 1.5); worked by
# hand
WEIGHT_ROWS = {
    "examples": (10.0, 40.0),
    "uniform": (1.0, 1.0),
    "fednova": (10.0, 40.0),
    "norm_equalised": (10.0**0.5, 40.0**0.5),
    "q_ffl": (0.5, 1.5),
    "term": (math.exp(-0.5), math.exp(0.5)),
}


FIXED = {
    "learning_rate": 1.0,
    "beta1": 0.0,
    "beta2": 1.0,
    "tau": 0.5,
}  # v stays τ²: the step is Δ/(√τ² + τ) = Δ


SERVER_ROWS = {
    "sgd": {},
    "nesterov": {"learning_rate": 1.0, "momentum": 0.0},
    "adam": FIXED,
    "yogi": FIXED,
    "reptile": {"learning_rate": 1.0},
}


FACTS = [Facts(10, 5, 2.0, 0.5), Facts(40, 10, 4.0, 1.5)]


def entry(kind: str, rank: int, seed: int) -> Update:
    g = torch.Generator().manual_seed(seed)
    b, a = torch.randn(6, rank, generator=g), torch.randn(rank, 5, generator=g)
    x = {"m": Factored(b, a)} if kind == "factored" else {"m:a": Dense(a), "m:b": Dense(b)}
    return Update(x, "s")


def reduced(
    name: str, updates: list[Update], weights: tuple[float, ...] = (), **settings: float
) -> Update:
    """Weights 1 if not given; the divisor is their sum."""
    piece, weights = reduce_by_name(name, **settings), weights or (1.0,) * len(updates)
    total = piece.init(updates[0].spec)
    for update, weight in zip(updates, weights, strict=True):
        total = piece.add(total, update, weight)
    return piece.result(total, sum(weights))


def number(u: Update) -> float:
    e = u.entries["x"]
    assert isinstance(e, Dense)
    return float(e.value)
