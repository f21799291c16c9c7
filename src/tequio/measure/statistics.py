"""Did it help, whom, and how sure are we: the paired bootstrap, inequality (Gini, Jain), rank
correlation,
relative benefit.

Plain numpy on one-dimensional arrays. Empty, unequal or non-finite input raises ValueError; seeds
are always given.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CHUNK = 1 << 20  # elements of one block of resamples: 8 MiB of indices and 8 MiB of values at most


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided confidence interval, in the units of the values."""

    mean: float
    low: float
    high: float


def _vector(values: ArrayLike, name: str, least: int = 1) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size < least:
        raise ValueError(
            f"{name} has shape {array.shape}; expected one dimension and {least} or more values."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity; expected finite numbers.")
    return array


def paired_bootstrap(
    a: ArrayLike, b: ArrayLike, seed: int, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of mean(a − b), pairs resampled together.

    a and b, shape (n,), n ≥ 2, hold two models' values on the same examples in the same order. Of
    `resamples` draws of n pairs with replacement, low and high are the (1 ∓ level)/2 quantiles of
    their means (Efron & Tibshirani 1993, ch. 13). The result depends on the seed alone; memory does
    not grow with `resamples`.
    """
    first, second = _vector(a, "a", 2), _vector(b, "b", 2)
    if first.size != second.size:
        raise ValueError(f"a has {first.size} values and b has {second.size}; expected pairs.")
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(
            f"resamples = {resamples}, level = {level}; expected 1 or more, and 0 < level < 1."
        )
    difference = first - second
    size, random = difference.size, np.random.default_rng(seed)
    rows = max(1, _CHUNK // size)
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        picks = random.integers(0, size, size=(stop - start, size))
        means[start:stop] = difference[picks].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(difference.mean()), float(low), float(high))


def _shares(values: ArrayLike) -> NDArray[np.float64]:
    """Non-negative values divided by their largest, so that neither sums nor squares overflow or
    vanish.
    """
    array = _vector(values, "values")
    if array.min() < 0:
        raise ValueError(
            "values holds a negative number, for which inequality is not defined: "
            "use the ratios loss_federated / loss_local, which are 1 − benefit and never negative."
        )
    largest = array.max()
    return array / largest if largest > 0 else array


def gini(values: ArrayLike) -> float:
    """Gini coefficient G = Σᵢ Σⱼ |xᵢ − xⱼ| / (2 n² x̄): 0 when all are equal, (n − 1)/n when one
    has all.

    Computed as Σᵢ (2i − n − 1) x₍ᵢ₎ / (n Σ x) over the sorted values. All zeros count as equal.
    Negative values are refused (ValueError): their mean can be 0 and G has then no meaning.
    """
    array = np.sort(_shares(values))
    size, total = array.size, array.sum()
    if total == 0 or array[0] == array[-1]:
        return 0.0
    weights = 2 * np.arange(1, size + 1) - size - 1
    return min(max(float(weights @ array / (size * total)), 0.0), (size - 1) / size)


def jain(values: ArrayLike) -> float:
    """Jain's fairness index (Σx)² / (n Σx²): 1 when all are equal, 1/n when one has all (Jain, Chiu
    & Hawe
    1984).

    All zeros count as equal. Negative values are refused (ValueError).
    """
    array = _shares(values)
    squares = float(array @ array)
    if squares == 0:
        return 1.0
    return min(max(float(array.sum() ** 2 / (array.size * squares)), 1 / array.size), 1.0)


def average_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks from 1, shape (n,); equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(
        _vector(values, "values"), return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def spearman(x: ArrayLike, y: ArrayLike) -> float | None:
    """Spearman's ρ: Pearson's correlation of the average ranks, in [−1, 1] (Spearman 1904).

    x and y have shape (n,). None, never NaN, where it is not defined: fewer than two pairs, or x or
    y constant.
    """
    ranks = average_ranks(x), average_ranks(y)
    if ranks[0].size != ranks[1].size:
        raise ValueError(f"x has {ranks[0].size} values and y has {ranks[1].size}; expected pairs.")
    centred = [r - r.mean() for r in ranks]
    norm = float(np.sqrt((centred[0] @ centred[0]) * (centred[1] @ centred[1])))
    return min(max(float(centred[0] @ centred[1] / norm), -1.0), 1.0) if norm else None


def worst_decile(values: ArrayLike) -> float:
    """Mean of the ⌈n/10⌉ smallest values.

    Give what is better when larger: benefit, accuracy, minus loss.
    """
    array = np.sort(_vector(values, "values"))
    return float(array[: -(-array.size // 10)].mean())


def relative_benefit(loss_local: float, loss_federated: float) -> float:
    """b = (ℓ_local − ℓ_fed)/ℓ_local: the part of the local model's loss that federation removed;
    negative
    when it hurt.

    Raises ValueError unless ℓ_local is above 0 (b has no meaning there) and ℓ_fed is at least 0,
    both finite.
    """
    local, federated = _vector([loss_local, loss_federated], "losses")
    if local <= 0 or federated < 0:
        raise ValueError(
            f"losses {local:g} (local), {federated:g} (federated); expected local > 0, federated ≥ "
            "0."
        )
    return float((local - federated) / local)
