"""Say whether one model is better than another on the same test examples, and how sure that is.

Two measures: texts answered right (a difference of two paired proportions) and loss (a ratio of two
paired means). Both give an interval of 95 %, and `judge` turns an interval into a code.
`benchmarks/verdicts.py` measures how often each code is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from tequio.measure.statistics import Interval

Code = Literal["gains", "loses", "no_difference", "too_few"]
Z95 = 1.959964
ERROR = 0.025  # of each side
# With fewer test examples nobody says that there is no difference: in a simulation 8 % of the few
# who did were wrong.
LEAST = 50
SMALLEST = 0.01  # the smallest effect that matters: 1 point of accuracy, or 1 % of the loss
# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom
T975 = (
    *(
        12.706,
        4.303,
        3.182,
        2.776,
        2.571,
        2.447,
        2.365,
        2.306,
        2.262,
        2.228,
        2.201,
        2.179,
        2.160,
        2.145,
        2.131,
    ),
    *(
        2.120,
        2.110,
        2.101,
        2.093,
        2.086,
        2.080,
        2.074,
        2.069,
        2.064,
        2.060,
        2.056,
        2.052,
        2.048,
        2.045,
        2.042,
    ),
)


@dataclass(frozen=True)
class Pairs:
    """Counts of test texts by which of two models answers them right."""

    both: int
    better: int  # only the model that is judged
    worse: int  # only the other one
    neither: int

    @property
    def examples(self) -> int:
        """Count all test texts."""
        return self.both + self.better + self.worse + self.neither

    @classmethod
    def of(cls, judged: ArrayLike, other: ArrayLike) -> Pairs:
        """Count from two vectors of right (1) and wrong (0) on the same texts in the same order."""
        first, second = np.asarray(judged) > 0.5, np.asarray(other) > 0.5
        if first.ndim != 1 or first.shape != second.shape:
            raise ValueError(
                f"The vectors have shapes {first.shape} and {second.shape}; expected pairs."
            )
        counts = (first & second, first & ~second, ~first & second, ~first & ~second)
        return cls(*(int(np.count_nonzero(part)) for part in counts))

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Pairs | None:
        """Read a record; None unless it holds four counts and one text or more."""
        values = [given.get(key) for key in ("both", "better", "worse", "neither")]
        counts = [
            v for v in values if isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 10**12
        ]
        found = cls(*counts) if len(counts) == 4 else None
        return found if found is not None and found.examples else None


@dataclass(frozen=True)
class Judgement:
    """A verdict: its code, and for `too_few` how many test examples would show an effect of
    `wanted`.
    """

    code: Code
    needed: int | None = None
    wanted: float | None = None


def paired_proportions(pairs: Pairs) -> Interval:
    """Interval of the difference of two paired shares of right answers, judged − other.

    Newcombe's square-and-add method with a continuity-corrected correlation. It stays wide where
    few texts or none are answered differently, where a bootstrap would have no width.

    References: Newcombe 1998, Statistics in Medicine 17, 2635-2650, method 10.
    """
    n = pairs.examples
    a, b, c, d = pairs.both, pairs.better, pairs.worse, pairs.neither
    first, second = (a + b) / n, (a + c) / n
    (low1, high1), (low2, high2) = _wilson(first, n), _wilson(second, n)
    product = a * d - b * c
    corrected = product - n / 2 if product > n / 2 else min(product, 0)
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    phi = corrected / math.sqrt(margins) if margins else 0.0
    mean = first - second
    return Interval(
        mean,
        mean - _added(first - low1, high2 - second, phi),
        mean + _added(high1 - first, second - low2, phi),
    )


def _wilson(share: float, n: int) -> tuple[float, float]:
    extra = Z95**2 / n
    half = Z95 * math.sqrt(share * (1 - share) / n + extra / (4 * n))
    return (share + extra / 2 - half) / (1 + extra), (share + extra / 2 + half) / (1 + extra)


def _added(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(0.0, first**2 - 2 * phi * first * second + second**2))


def sign_test(more: int, less: int) -> float:
    """Probability that `more` or more of more + less discordant texts favour one of two equal
    models (exact, one-sided).

    References: McNemar 1947; the exact conditional form never exceeds its level.
    """
    n = more + less
    if more == 0:
        return 1.0
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(more, n + 1)
    ]
    return min(1.0, math.fsum(math.exp(value - n * math.log(2)) for value in logs))


def loss_ratio(judged: ArrayLike, other: ArrayLike) -> Interval | None:
    """Interval of log(mean of `other` / mean of `judged`) over paired losses: above 0 where the
    judged model is better.

    Fieller's interval: all ratios r for which a paired t-test of judged − r · other against zero
    keeps the null. So it excludes 0 exactly where the paired t-test tells the models apart, and
    `fall` of it never passes 100 %. None where fewer than two examples, a mean that is not above
    zero, or losses without a bounded ratio allow none.

    Args:
        judged: losses of the judged model, shape (n,).
        other: losses of the other model on the same examples.

    Raises:
        ValueError: where the shapes differ.

    References: Fieller 1954, Journal of the Royal Statistical Society B 16, 175-185.
    """
    first, second = np.asarray(judged, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(
            f"The losses have shapes {first.shape} and {second.shape}; expected pairs."
        )
    n = first.size
    if n < 2 or not (np.isfinite(first).all() and np.isfinite(second).all()):
        return None
    one, two = float(first.mean()), float(second.mean())
    if min(one, two) <= 0.0:
        return None
    spread = np.cov(first / two, second / two) * (
        (T975[n - 2] if n - 1 <= len(T975) else Z95 + 2.5 / (n - 1)) ** 2 / n
    )
    ratio = one / two
    square, middle, rest = 1.0 - spread[1, 1], ratio - spread[0, 1], ratio**2 - spread[0, 0]
    inside = max(0.0, middle**2 - square * rest)
    if square <= 0.0 or middle - math.sqrt(inside) <= 0.0:
        return None
    low, high = ((middle + sign * math.sqrt(inside)) / square for sign in (-1.0, 1.0))
    seen = -math.log(ratio)
    return Interval(seen, min(-math.log(high), seen), max(-math.log(low), seen))


def fall(log_ratio: float) -> float:
    """The share by which a loss fell, from the log ratio of the losses: at most 1, negative where
    it rose.
    """
    return -math.expm1(-log_ratio)


def judge(
    effect: Interval, n: int, smallest: float = SMALLEST, pairs: Pairs | None = None
) -> Judgement:
    """Turn an interval of an effect (positive: better) into a verdict.

    `no_difference` where the whole interval lies within ± smallest, on LEAST examples or more;
    `gains` or `loses` where it lies on one side of zero (and, where `pairs` are given, the exact
    sign test agrees); else `too_few`, with the number of examples at which an interval of this kind
    would show the effect that was seen, or the smallest that matters.
    """
    within = -smallest <= effect.low and effect.high <= smallest
    if within and n >= LEAST:
        return Judgement("no_difference")
    if effect.low > 0.0 and (pairs is None or sign_test(pairs.better, pairs.worse) <= ERROR):
        return Judgement("gains")
    if effect.high < 0.0 and (pairs is None or sign_test(pairs.worse, pairs.better) <= ERROR):
        return Judgement("loses")
    if within:
        return Judgement("too_few", LEAST, smallest)
    wanted = max(abs(effect.mean), smallest)
    half = (effect.high - effect.low) / 2
    return Judgement("too_few", _rounded(max(n * (half / wanted) ** 2, n + 1)), wanted)


def _rounded(count: float) -> int:
    """Round up to two figures: the estimate holds no more."""
    power: int = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(count / power - 1e-9) * power
