"""Numbers worked by hand, and laws that hold for any input."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequio.measure import statistics
from tequio.measure.statistics import (
    Interval,
    average_ranks,
    gini,
    jain,
    paired_bootstrap,
    relative_benefit,
    spearman,
    worst_decile,
)

amounts = st.lists(st.floats(0, 1e300), min_size=1, max_size=30)
whole = st.integers(-1000, 1000)
pairs = st.lists(st.tuples(whole, whole), min_size=2, max_size=30)


def test_bootstrap_of_two_pairs_by_hand() -> None:
    # differences 0 and 1: a resample's mean is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4
    assert paired_bootstrap([3, 5], [3, 4], seed=0) == Interval(0.5, 0.0, 1.0)
    # at level 0.4 the quantiles are 0.3 and 0.7, both inside the half that lies at 1/2
    assert paired_bootstrap([3, 5], [3, 4], seed=0, level=0.4) == Interval(0.5, 0.5, 0.5)


def test_bootstrap_of_a_constant_shift_is_a_point() -> None:
    b = np.arange(50.0)
    assert paired_bootstrap(b + 2, b, seed=1) == Interval(2.0, 2.0, 2.0)


def test_bootstrap_is_as_wide_as_theory_says() -> None:
    # n = 400 with standard deviation 1 (n in the denominator): 1.96 / sqrt(400) = 0.098 each side
    values = np.random.default_rng(5).normal(size=400)
    values = (values - values.mean()) / values.std()
    found = paired_bootstrap(values, np.zeros(400), seed=2, resamples=20_000)
    assert found.high == pytest.approx(0.098, abs=0.004)
    assert found.low == pytest.approx(-0.098, abs=0.004)


def test_bootstrap_covers_a_known_mean_about_95_times_in_100() -> None:
    # 1000 samples of n = 50 around mean 0.3. The percentile interval is narrow by sqrt(49/50) and
    # normal
    # instead of Student: P(|t49| < 1.96 * 0.99) = 0.942; the standard error over 1000 samples is
    # 0.007
    random = np.random.default_rng(11)
    covered = 0
    for seed in range(1000):
        sample = random.normal(0.3, 1.0, 50)
        found = paired_bootstrap(sample, np.zeros(50), seed=seed, resamples=400)
        covered += found.low <= 0.3 <= found.high
    assert 0.92 <= covered / 1000 <= 0.965


def test_bootstrap_does_not_depend_on_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = np.random.default_rng(3).normal(size=(2, 37))
    whole_block = paired_bootstrap(a, b, seed=4, resamples=101)
    monkeypatch.setattr(statistics, "_CHUNK", 37 * 3)
    assert paired_bootstrap(a, b, seed=4, resamples=101) == whole_block
    assert paired_bootstrap(a, b, seed=5, resamples=101) != whole_block


def test_bootstrap_memory_is_bounded() -> None:
    a = np.zeros(20_000)
    tracemalloc.start()
    paired_bootstrap(a, a, seed=0, resamples=500)  # in one block: 500 * 20,000 * 16 bytes = 160 MB
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20  # two blocks of 8 MiB


@given(pairs, st.integers(0, 2**32))
def test_bootstrap_interval_lies_within_the_differences(
    values: list[tuple[int, int]], seed: int
) -> None:
    a, b = np.array(values, dtype=float).T
    found = paired_bootstrap(a, b, seed, resamples=50)
    assert (a - b).min() - 1e-9 <= found.low <= found.high <= (a - b).max() + 1e-9
    assert found.mean == pytest.approx(float((a - b).mean()))


@pytest.mark.parametrize(
    ("a", "b", "options"),
    [
        ([1.0], [1.0], {}),
        ([1.0, 2.0], [1.0, 2.0, 3.0], {}),
        ([1.0, float("nan")], [1.0, 2.0], {}),
        ([[1.0, 2.0]], [[1.0, 2.0]], {}),
        ([1.0, 2.0], [1.0, 2.0], {"resamples": 0}),
        ([1.0, 2.0], [1.0, 2.0], {"level": 1.0}),
    ],
)
def test_bootstrap_refuses(a: list[float], b: list[float], options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected"):
        paired_bootstrap(a, b, seed=0, **options)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 4], 0.25),  # (-3*1 - 1*2 + 1*3 + 3*4) / (4 * 10)
        ([0, 0, 0, 7], 0.75),  # (n - 1) / n
        ([3, 1], 0.25),  # |3 - 1| * 2 / (2 * 4 * 2)
        ([5, 5, 5], 0.0),
        ([0, 0], 0.0),
        ([9], 0.0),
    ],
)
def test_gini_by_hand(values: list[float], expected: float) -> None:
    assert gini(values) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 4], 100 / 120),  # 10^2 / (4 * 30)
        ([0, 0, 0, 7], 0.25),
        ([5, 5, 5], 1.0),
        ([0, 0], 1.0),
        ([1e-200, 3e-200], 0.8),  # 4^2 / (2 * 10), though the squares are below the smallest float
    ],
)
def test_jain_by_hand(values: list[float], expected: float) -> None:
    assert jain(values) == pytest.approx(expected, rel=1e-12)


def test_inequality_of_negative_numbers_is_refused() -> None:
    for measure in (gini, jain):
        with pytest.raises(ValueError, match="ratios loss_federated / loss_local"):
            measure([1.0, -0.1])


@given(amounts)
def test_jain_and_gini_keep_their_bounds(values: list[float]) -> None:
    size = len(values)
    assert 1 / size <= jain(values) <= 1
    assert 0 <= gini(values) <= (size - 1) / size


@given(st.floats(0, 1e300), st.integers(1, 40))
def test_equal_amounts_are_perfectly_fair(value: float, size: int) -> None:
    assert gini([value] * size) == 0
    assert jain([value] * size) == pytest.approx(1, rel=1e-12)


@given(
    st.lists(st.integers(0, 1000), min_size=1, max_size=20),
    st.integers(0, 19),
    st.sampled_from([0.5, 4.0]),
)
def test_inequality_ignores_order_and_scale(values: list[int], turn: int, factor: float) -> None:
    moved = [v * factor for v in values[turn:] + values[:turn]]
    assert gini(moved) == pytest.approx(gini(values), abs=1e-12)
    assert jain(moved) == pytest.approx(jain(values), rel=1e-12)


def test_average_ranks_by_hand() -> None:
    assert average_ranks([10, 30, 20, 20]).tolist() == [1, 4, 2.5, 2.5]


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        ([1, 2, 3], [10, 20, 30], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),  # 1 - 6 * (1+1+1+1) / (5 * 24)
        (
            [1, 2, 2, 3],
            [1, 2, 3, 4],
            3 / 10**0.5,
        ),  # ranks 1 2.5 2.5 4: cov 4.5, variances 4.5 and 5; 4.5/sqrt(22.5)
        ([1, 2, 3], [7, 7, 7], None),
        ([1], [2], None),
    ],
)
def test_spearman_by_hand(x: list[float], y: list[float], expected: float | None) -> None:
    assert spearman(x, y) == (None if expected is None else pytest.approx(expected, rel=1e-12))


def test_spearman_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="expected pairs"):
        spearman([1, 2], [1, 2, 3])


@given(pairs)
def test_spearman_laws(values: list[tuple[int, int]]) -> None:
    x, y = np.array(values, dtype=float).T
    rho = spearman(x, y)
    assert rho == spearman(x**3 + x, np.exp(y / 500))  # rising maps change no rank
    assert rho == spearman(y, x)
    if rho is None:
        assert len(set(x)) == 1 or len(set(y)) == 1
    else:
        assert -1 <= rho <= 1
        assert spearman(-x, y) == pytest.approx(-rho, abs=1e-12)


def test_worst_decile_by_hand() -> None:
    assert worst_decile([5, -3, 9]) == -3  # one of three
    assert worst_decile(range(10)) == 0
    assert worst_decile(range(25, 0, -1)) == 2.0  # mean of 1, 2, 3


def test_relative_benefit_by_hand() -> None:
    assert relative_benefit(2.0, 1.5) == 0.25
    assert relative_benefit(2.0, 2.5) == -0.25


@pytest.mark.parametrize("losses", [(0.0, 0.0), (-1.0, 0.5), (1.0, -0.5), (float("inf"), 1.0)])
def test_relative_benefit_refuses(losses: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        relative_benefit(*losses)
