"""The simulated clock: hours chosen by what was known, rounds that end with the last, shares of a
budget and their minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequio.coordinator.carbon_clock import Clock, Terms, Worker, advance, opening
from tequio.measure.carbon_forecast import CarbonForecast
from tequio.measure.intensity import Intensity, Kind, Window
from tequio.measure.site import Site

DAY = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = 3600.0


def series(
    grams: Sequence[float], begin: datetime = DAY, issued: datetime | None = None
) -> Intensity:
    kind: Kind = "actual" if issued is None else "forecast"
    rows = (
        Window("X", begin + timedelta(hours=i), HOUR, g, kind, issued, "average", "made up", "")
        for i, g in enumerate(grams)
    )
    return Intensity("X", "average", "made up", tuple(rows))


def worker(
    grams: Sequence[float], hours: float, watts: float = 1000.0, *forecasts: Intensity
) -> Worker:
    return Worker(hours * HOUR, watts, CarbonForecast(Site((series(grams),)), forecasts))


def terms(deadline: float, rounds: int = 1, **more: float) -> Terms:
    return Terms(DAY, HOUR, deadline * HOUR, True, rounds, **more)  # type: ignore[arg-type]


def at(hour: float) -> str:
    return (DAY + timedelta(hours=hour)).isoformat()


def test_by_a_forecast_made_in_time_it_waits_and_the_round_ends_with_the_last() -> None:
    grams = [400.0, 300.0, 100.0, 200.0, 500.0, 600.0, 600.0, 600.0]
    known = series(grams[1:], DAY + timedelta(hours=1), issued=DAY)
    workers = {
        "a": worker(grams, 1.5, 1.0, known),
        "b": worker(grams, 1.0),
    }  # b has no forecast, and no past
    found = advance(opening(terms(4.0), ["a", "b"]), 1, workers, ["a", "b"], terms(4.0))
    assert found is not None
    clock, work = found
    assert [(s.begin, s.seconds) for s in work["a"].hours] == [
        (at(2), 1.5 * HOUR)
    ]  # 100 and 200, of which one half
    assert work["a"].intensity == pytest.approx((100 + 0.5 * 200) / 1.5)
    assert work["a"].at_once == pytest.approx((400 + 0.5 * 300) / 1.5)
    assert [(s.begin, s.seconds) for s in work["b"].hours] == [
        (at(0), HOUR)
    ]  # nothing better is known to come
    assert clock.now.isoformat() == at(3.5)
    assert clock.plain.isoformat() == at(1.5)
    assert Clock.of(clock.facts()) == clock


def test_a_forecast_that_is_not_made_yet_is_not_known() -> None:
    grams = [400.0, 300.0, 100.0, 200.0]
    late = series(grams[2:], DAY + timedelta(hours=2), issued=DAY + timedelta(hours=1))
    _, work = advance(
        opening(terms(4.0), ["a"]), 1, {"a": worker(grams, 1.0, 1.0, late)}, ["a"], terms(4.0)
    ) or pytest.fail("no round")
    assert work["a"].hours[0].begin == at(0)


def test_without_a_forecast_the_same_time_of_yesterday_is_expected() -> None:
    day = [500.0] * 12 + [100.0] * 2 + [500.0] * 10
    one = Worker(2 * HOUR, 1.0, CarbonForecast(Site((series(day * 3),))))
    clock = Clock(DAY + timedelta(days=1), DAY + timedelta(days=1))
    _, work = advance(clock, 1, {"a": one}, ["a"], terms(24.0)) or pytest.fail("no round")
    assert [(s.begin, s.seconds) for s in work["a"].hours] == [(at(36), 2 * HOUR)]


def flat(costs: Sequence[float]) -> dict[str, Worker]:
    """Participants whose hour of work emits so many grams, whenever it is."""
    return {f"p{i}": worker([g] * 40, 1.0) for i, g in enumerate(costs)}


def run(workers: dict[str, Worker], given_: Terms) -> list[list[str]]:
    """Who took part in each round, until the budget is spent."""
    clock, out = opening(given_, list(workers)), []
    for round_ in range(1, given_.rounds + 1):
        found = advance(clock, round_, workers, list(workers), given_)
        if found is None:
            break
        clock, work = found
        out.append(list(work))
    return out


def test_shares_by_hand() -> None:
    # 10 rounds, 100 and 400 g a round, 2.5 kg, α = 1: 1.25 kg each, which is all ten rounds of the
    # first (1 kg), so 1.5 kg of the other
    rounds = run(flat([100.0, 400.0]), terms(1.0, 10, grams=2500.0))
    assert len(rounds) == 10
    assert sum("p0" in r for r in rounds) == 10
    assert sum("p1" in r for r in rounds) == 3
    # and the large minimum wins over fairness: .5 of ten rounds are 5 · 400 g, so 500 g are left
    # for the first
    rounds = run(flat([100.0, 400.0]), terms(1.0, 10, grams=2500.0, minimum=0.5))
    assert [sum(name in r for r in rounds) for name in ("p0", "p1")] == [5, 5]


def test_forecasts_that_flatter_are_seen_through() -> None:
    """The air is always as dear for a, and always said to be half as dear in an hour: it still
    works late in the run.
    """
    lies = [
        series([100.0], DAY + timedelta(hours=h + 1), issued=DAY + timedelta(hours=h))
        for h in range(40)
    ]
    workers = {"a": worker([200.0] * 40, 1.0, 1000.0, *lies), "b": worker([10.0] * 40, 1.0)}
    given_ = terms(2.0, 10, grams=1100.0)
    clock, late = opening(given_, ["a", "b"]), 0
    for round_ in range(1, 11):
        clock, work = advance(clock, round_, workers, ["a", "b"], given_) or pytest.fail("no round")
        late = round_ if "a" in work else late
    assert clock.made["b"] == 10
    assert late >= 8
    assert clock.spent <= 1100.0


def test_a_budget_that_is_spent_ends_the_rounds() -> None:
    rounds = run(flat([100.0]), terms(1.0, 10, grams=350.0))
    assert len(rounds) == 3


@given(
    st.lists(st.floats(10, 900), min_size=1, max_size=6),
    st.integers(1, 12),
    st.floats(0.05, 1.2),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.5, 1.0, 5.0]),
)
def test_budget_and_minimum_are_retained(
    costs: list[float], many: int, part: float, minimum: float, alpha: float
) -> None:
    whole = sum(costs) * many
    given_ = terms(1.0, many, grams=part * whole, minimum=minimum, alpha=alpha)
    if given_.least * sum(costs) > part * whole:
        return  # refused before the run
    rounds = run(flat(costs), given_)
    made = [sum(f"p{i}" in r for r in rounds) for i in range(len(costs))]
    assert min(made) >= given_.least
    assert sum(c * n for c, n in zip(costs, made, strict=True)) <= part * whole * (1 + 2e-9)
    assert all(rounds)
    assert part < 1 or made == [many] * len(costs)
