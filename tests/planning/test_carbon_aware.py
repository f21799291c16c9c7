"""Work shifted to greener hours: greedy slots, guesses beyond a forecast, fair shares of a carbon
budget.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequio.planning.carbon_aware import (
    courses,
    emitted,
    fair_shares,
    greedy,
    greenest_of_day,
    hindsight,
)

Values = st.lists(st.floats(0, 1000), min_size=1, max_size=40)


def test_with_a_perfect_forecast_greedy_is_hindsight() -> None:
    actual = np.array([5.0, 3.0, 9.0, 1.0, 2.0, 8.0])
    assert greedy(6, 3, lambda t: actual[t:]) == hindsight(actual, 3) == [1, 3, 4]
    assert emitted(actual, [1, 3, 4]) == pytest.approx(2.0)


@given(Values, st.integers(1, 40), st.integers(0, 2**32))
def test_the_need_is_met_in_time_whatever_the_forecast(
    values: list[float], need: int, seed: int
) -> None:
    actual, rng = np.array(values), np.random.default_rng(seed)
    need = min(need, len(actual))
    slots = greedy(
        len(actual),
        need,
        lambda t: np.concatenate(([actual[t]], rng.uniform(0, 1000, len(actual) - t - 1))),
    )
    assert len(slots) == need == len(set(slots))
    assert emitted(actual, hindsight(actual, need)) <= emitted(actual, slots) + 1e-9


def test_beyond_the_forecast_each_of_the_last_days_is_a_course() -> None:
    past = np.array(
        [1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 5.0, 6.0]
    )  # two days of four slots; now is at the time of the first slot
    found = courses(past, 9.0, np.array([8.0]), 6, 4)
    assert found.tolist() == [
        [9.0, 8.0, 5.0, 6.0, 3.0, 4.0],  # yesterday, and then yesterday again
        [9.0, 8.0, 3.0, 4.0, 3.0, 4.0],  # the day before, and then yesterday
    ]
    assert courses(np.array([]), 9.0, np.array([8.0]), 4, 4).tolist() == [[9.0, 8.0, 8.0, 8.0]]
    assert courses(past, 9.0, np.array([8.0, 7.0, 6.0]), 2, 4).tolist() == [[9.0, 8.0]]


def test_it_is_worked_where_half_of_the_courses_say_so() -> None:
    """Now is 5: one day it fell to 1 later, one day it did not; a third day like the first makes it
    wait.
    """
    low, high = [5.0, 1.0, 9.0], [5.0, 9.0, 9.0]
    actual = np.array(high)

    def ahead(rows: list[list[float]]) -> Callable[[int], np.ndarray]:
        return lambda t: np.array(rows) if t == 0 else actual[t:]

    assert greedy(3, 1, ahead([low, high])) == [0]
    assert greedy(3, 1, ahead([low, high, low])) == [1]


def test_too_little_time_is_said() -> None:
    for need in (0, 4):
        with pytest.raises(ValueError, match="3 are there"):
            greedy(3, need, lambda t: np.zeros(3 - t))


def test_shares_by_hand() -> None:
    # α = 1: x ∝ 1/c, so each takes half of the budget: 10·x = 5, 20·y = 5
    assert fair_shares([10.0, 20.0], 10.0, 1.0) == pytest.approx([0.5, 0.25])
    # α = 0: the cheapest first
    assert fair_shares([10.0, 20.0], 20.0, 0.0) == pytest.approx([1.0, 0.5])
    # a large α: equal shares
    assert fair_shares([10.0, 20.0], 15.0, 100.0) == pytest.approx([0.5, 0.5], rel=0.02)
    assert list(fair_shares([10.0, 20.0], 30.0)) == [1.0, 1.0]
    assert fair_shares([10.0, 30.0], 13.0, 1.0, minimum=0.25) == pytest.approx([0.55, 0.25])
    with pytest.raises(ValueError, match="takes 20, more than the budget of 10"):
        fair_shares([20.0, 20.0], 10.0, 1.0, minimum=0.5)


@given(
    st.lists(st.floats(0.1, 100), min_size=1, max_size=10),
    st.floats(0.3, 1),
    st.one_of(st.just(0.0), st.floats(0.1, 5)),
    st.floats(0, 0.3),
)
def test_shares_keep_the_budget_and_the_minimum(
    costs: list[float], part: float, alpha: float, minimum: float
) -> None:
    budget = part * sum(costs)
    x = fair_shares(costs, budget, alpha, minimum)
    assert (x >= minimum - 1e-12).all()
    assert (x <= 1 + 1e-12).all()
    spent = float((np.array(costs) * x).sum())
    assert spent <= budget * (1 + 1e-9)
    assert spent >= budget * (1 - 1e-6) or (x >= 1 - 1e-9).all()  # nothing is left lying


def test_the_greenest_hours_of_a_day() -> None:
    day = datetime(2026, 3, 1, tzinfo=UTC)
    # the sun shines from 10 to 14; the next day from 11 to 15
    grams = [100.0 if 10 <= h < 14 or 35 <= h < 39 else 400.0 for h in range(48)]
    slots = [(day + timedelta(hours=h), 3600.0, g) for h, g in enumerate(grams)]
    assert greenest_of_day(slots, day + timedelta(hours=11, minutes=30), 4) == (True, None)
    assert greenest_of_day(slots, day + timedelta(hours=8), 4) == (False, day + timedelta(hours=10))
    assert greenest_of_day(slots, day + timedelta(hours=20), 4) == (
        False,
        day + timedelta(hours=35),
    )
    assert greenest_of_day(slots, day + timedelta(hours=44), 4) == (
        False,
        None,
    )  # nothing is known of the day after
    assert greenest_of_day(slots[:3], day + timedelta(hours=20), 4) == (
        True,
        None,
    )  # too little is known of the day
    open_ = sum(
        greenest_of_day(slots, day + timedelta(minutes=10 * m), 4)[0] for m in range(6 * 24)
    )
    assert open_ == 6 * 4
