from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.verdicts import Rates, comparisons
from tequio.measure.statistics import Interval
from tequio.measure.verdicts import (
    Judgement,
    Pairs,
    fall,
    judge,
    loss_ratio,
    paired_proportions,
    sign_test,
)

COUNTS = st.integers(0, 60)


def test_of_1000_synthetic_comparisons_gains_is_wrong_in_at_most_one_in_forty() -> None:
    """1,008 comparisons of known effect, half of them null, by accuracy and by loss, on 10 to 5,000
    test texts.
    """
    found = list(comparisons(seed=13, each=84))
    rates = Rates.of(found)
    assert (len(found), rates.null) == (1008, 504)
    assert rates.false_gains <= 0.025 * rates.null
    assert rates.false_losses <= 0.025 * rates.null
    assert rates.wrong_side <= 0.025 * (len(found) - rates.null)
    assert rates.no_difference_right >= 0.95 * rates.no_difference
    for measure in ("accuracy", "loss"):  # what always says "too few" is never wrong, and of no use
        codes = Rates.of([c for c in found if c.measure == measure]).codes
        assert min(codes["gains"], codes["loses"], codes["no_difference"]) >= 20


@pytest.mark.parametrize("n", [10, 30, 60])
@pytest.mark.parametrize("discordant", [0.05, 0.2, 0.5, 0.9])
def test_the_exact_error_of_gains_is_at_most_one_in_forty(n: int, discordant: float) -> None:
    """The sum over all counts that equal models can give, not a sample of them."""
    wrong = 0.0
    for better in range(n + 1):
        for worse in range(better + 1 if better < n else 0):
            if better + worse > n:
                continue
            rest = n - better - worse
            pairs = Pairs(rest - rest // 4, better, worse, rest // 4)
            if judge(paired_proportions(pairs), n, 0.01, pairs).code == "gains":
                ways = math.lgamma(n + 1) - sum(math.lgamma(k + 1) for k in (better, worse, rest))
                chance = (better + worse) * math.log(discordant / 2) + rest * math.log(
                    1 - discordant
                )
                wrong += math.exp(ways + chance)
    assert wrong <= 0.025


def test_newcombes_interval_of_a_published_table() -> None:
    """Newcombe 1998, method 10: of 50 pairs 36 are right in both and 12 and 2 in one alone: 0.0569
    to 0.3404.
    """
    found = paired_proportions(Pairs(36, 12, 2, 0))
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, 0.0569, 0.3404), abs=1e-4)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_the_interval_of_proportions_is_inside_and_mirrors(
    both: int, better: int, worse: int, neither: int
) -> None:
    pairs = Pairs(both, better, worse, neither)
    if not pairs.examples:
        return
    found, other = (
        paired_proportions(pairs),
        paired_proportions(Pairs(both, worse, better, neither)),
    )
    assert -1 - 1e-9 <= found.low <= found.mean <= found.high <= 1 + 1e-9
    assert (found.low, found.high) == pytest.approx((-other.high, -other.low))
    assert found.high - found.low > 0  # wide even where all texts are answered alike


def test_the_sign_test_by_hand() -> None:
    """5 of 5: 1/32. 8 of 9: (9 + 1)/512."""
    assert sign_test(5, 0) == pytest.approx(1 / 32)
    assert sign_test(8, 1) == pytest.approx(10 / 512)
    assert sign_test(0, 7) == 1.0
    assert sign_test(0, 0) == 1.0
    assert sign_test(30_000, 29_000) < 0.025


def test_fiellers_interval_is_that_of_the_paired_t_test() -> None:
    """At each end of the interval, t of judged − r · other is the 97.5 % quantile (2.262 at 9
    degrees of freedom).
    """
    random = np.random.default_rng(1)
    other = np.exp(random.normal(0, 0.4, 10))
    judged = other * np.exp(random.normal(-0.3, 0.1, 10))
    found = loss_ratio(judged, other)
    assert found is not None
    assert found.mean == pytest.approx(math.log(other.mean() / judged.mean()))
    for end, sign in ((found.low, 1.0), (found.high, -1.0)):
        left = judged - math.exp(-end) * other
        assert sign * left.mean() / (left.std(ddof=1) / math.sqrt(10)) == pytest.approx(
            -2.262, abs=1e-3
        )


@given(st.lists(st.tuples(st.floats(0.01, 50), st.floats(0.01, 50)), min_size=2, max_size=30))
def test_no_loss_falls_by_more_than_all_of_it(losses: list[tuple[float, float]]) -> None:
    judged, other = zip(*losses, strict=True)
    found = loss_ratio(judged, other)
    if found is not None:
        assert found.low <= found.mean <= found.high
        assert fall(found.high) <= 1.0


def test_losses_that_allow_no_interval() -> None:
    assert loss_ratio([1.0], [2.0]) is None
    assert loss_ratio([0.0, 0.0], [1.0, 1.0]) is None
    assert loss_ratio([1.0, math.inf], [1.0, 1.0]) is None
    assert loss_ratio([1e-6, 1e-6, 100.0], [1e-6, 100.0, 1e-6]) is None  # no bounded ratio
    with pytest.raises(ValueError, match="pairs"):
        loss_ratio([1.0, 2.0], [1.0])


def test_each_verdict_from_an_interval_by_hand() -> None:
    assert judge(Interval(0.05, 0.02, 0.08), 60).code == "gains"
    assert judge(Interval(-0.05, -0.08, -0.02), 60).code == "loses"
    assert judge(Interval(0.005, 0.001, 0.009), 9000).code == "no_difference"
    # of 60 texts, a half width of 10.8 points and 4.2 seen: 60 · (10.8/4.2)² = 397
    assert judge(Interval(0.042, -0.066, 0.15), 60) == Judgement("too_few", 400, 0.042)
    assert judge(Interval(0.0, -0.1, 0.1), 60) == Judgement("too_few", 6000, 0.01)


def test_the_sign_test_can_only_withhold_a_verdict() -> None:
    """5 of 5 discordant texts: one in 32, so more than 2.5 %."""
    pairs = Pairs(40, 5, 0, 15)
    assert judge(Interval(0.08, 0.01, 0.15), 60, 0.01, pairs).code == "too_few"


def test_pairs_are_counted_and_read_back() -> None:
    pairs = Pairs.of([1, 1, 0, 0, 1], [1, 0, 1, 0, 1])
    assert pairs == Pairs(2, 1, 1, 1)
    assert Pairs.read({"both": 2, "better": 1, "worse": 1, "neither": 1}) == pairs
    for broken in (
        {},
        {"both": -1, "better": 1, "worse": 1, "neither": 1},
        dict.fromkeys(("both", "better"), 1),
    ):
        assert Pairs.read(broken) is None
    assert Pairs.read(dict.fromkeys(("both", "better", "worse", "neither"), 0)) is None
