"""What a federation's budget counts of records, and what it allows: sums by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tequio.coordinator.budget import CENTRE, BudgetTracker
from tequio.coordinator.run_spec import Member
from tequio.measure.budget import within
from tequio.measure.money import Price

KWH = 3.6e6


def row(name: str, kwh: float, **more: Any) -> dict[str, Any]:
    energy = {"joules": kwh * KWH, "seconds": 3600.0, "intensity": 100.0, "pue": 1.0}
    return {"name": name, "energy": energy, "steps": 10} | more


def spent(*bodies: dict[str, Any], one_process: bool = False) -> dict[str, float]:
    tracker = BudgetTracker({"kwh": 100.0}, one_process)
    for body in bodies:
        tracker.add(body)
    return tracker.spent


ROUND = row("", 1.0) | {
    "train": [row("a", 2.0, bytes_up=3e6, bytes_down=1e6)],
    "evaluation": [row("a", 0.5)],
}


def test_a_round_across_a_network_is_the_coordinators_part_and_everybodys() -> None:
    took = spent(ROUND)
    assert (took["kwh"], took["kg_co2e"], took["megabytes"]) == (3.5, 0.35, 4.0)
    assert took["hours"] == 3.0


def test_what_is_in_flight_counts_when_it_was_trained() -> None:
    window = ROUND | {"in_flight": [row("b", 4.0), {"name": "c", "sent": 1}]}
    landed = row("", 1.0) | {
        "train": [{"name": "b", "steps": 10, "bytes_up": 2e6, "bytes_down": 0}]
    }
    assert spent(window)["kwh"] == 7.5
    took = spent(window, landed)
    assert (took["kwh"], took["megabytes"]) == (8.5, 6.0)


def test_the_coordinators_money_is_counted() -> None:
    """At 2 a kWh and 5 an hour: its 3 hours, and the kWh that participants in its process did not
    draw.

    Beside training is what is left without the centre's hour and .5 kWh, and, where participants
    take turns in one process, without theirs.
    """
    money = {"amount": 0.5, "currency": "EUR"}
    centre = row("", 4.0) | {"train": [row("a", 2.0, money=money), row("centre", 0.5)]}
    centre["energy"]["seconds"] = 3 * 3600.0
    for one_process, kwh, hours in ((True, 2.0, 1.0), (False, 4.0, 2.0)):
        tracker = BudgetTracker({"money": 100.0}, one_process, "EUR", price=Price("EUR", 2.0, 5.0))
        tracker.add(centre)
        assert tracker.spent["money"] == pytest.approx(0.5 + 2.0 * kwh + 15.0)
        assert tracker.beside["money"] == pytest.approx(2.0 * (kwh - 0.5) + 5.0 * hours)
        allowed = tracker.allow([Member("centre", 0, 8, 10), Member("a", 1, 8, 10)], 2, 0)
        assert allowed is not None
        each = ((100.0 - tracker.spent["money"]) / 2 - tracker.beside["money"]) / 2
        own = (
            0.5 / 5.5 if one_process else 1.0
        )  # the rest of what it costs is the coordinator's hour
        assert {i: m["money"] for i, m in allowed.items()} == {
            0: pytest.approx(each),
            1: pytest.approx(own * each),
        }


def test_waits_and_personal_models_are_counted_and_the_centres_bytes_are_not() -> None:
    centre = ROUND | {"train": [*ROUND["train"], row("centre", 0.5, bytes_up=9e6, bytes_down=9e6)]}
    for one_process in (False, True):
        assert spent(centre, one_process=one_process)["megabytes"] == 4.0
    assert spent(ROUND, row("", 0.25))["kwh"] == 3.75
    tracker = BudgetTracker({"kwh": 10.0, "megabytes": 5.0}, one_process=False)
    tracker.add(ROUND)
    tracker.add_personal(row("a", 1.5))
    assert tracker.allow_personal({"a": 10, "b": 30}) == {
        "a": {"kwh": pytest.approx(1.25)},
        "b": {"kwh": pytest.approx(3.75)},
    }


PRICE = Price("EUR", per_kwh=0.3, per_hour=2.0)
SECONDS = {CENTRE: 4.0, "a": 3.0, "b": 2.0}  # of a step, at 100 W
BESIDE = 5.0  # seconds of the coordinator beside training, in a round
STEPS = 400


def took(seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "energy": {"joules": 100.0 * seconds, "seconds": seconds, "intensity": 400.0, "pue": 1.0}
    } | more


def of(key: str, seconds: float) -> float:
    """What so many seconds of any machine take."""
    hours = seconds / 3600.0
    kwh = 0.1 * hours
    return {"kwh": kwh, "kg_co2e": 0.4 * kwh, "hours": hours, "money": PRICE.of(kwh, hours)}[key]


def made_of(allowed: Mapping[str, float], key: str, seconds: float) -> int:
    """Steps of so many seconds that fit."""
    made: list[float] = []
    made.extend(within([1.0] * STEPS, allowed, lambda: {key: of(key, len(made) * seconds)}))
    return len(made)


def a_round(
    allowed: Mapping[int, Mapping[str, float]], key: str, one_process: bool
) -> dict[str, Any]:
    """Each makes the steps that fit, as a participant does; in one process one after the other,
    else side by side.
    """
    rows = []
    for index, (name, each) in enumerate(SECONDS.items()):
        made = made_of(allowed[index], key, each)
        money = None if name == CENTRE else {"currency": "EUR", "amount": of("money", made * each)}
        rows.append(took(made * each, name=name, steps=made, money=money))
    spans = [row["energy"]["seconds"] for row in rows]
    body = took(BESIDE + (sum(spans) if one_process else max(spans)), train=rows)
    if not one_process:
        body["energy"]["joules"] = 100.0 * (BESIDE + spans[0])
    return body


def start(one_process: bool) -> dict[str, Any]:
    """Each looks at the base for 2 s."""
    paid = {"currency": "EUR", "amount": of("money", 2.0)}
    return took(
        4.0 if one_process else 0.0,
        evaluation=[took(2.0, name=name, money=paid) for name in ("a", "b")],
    )


@pytest.mark.parametrize("one_process", [True, False])
@pytest.mark.parametrize("key", ["kwh", "kg_co2e", "hours", "money"])
@pytest.mark.parametrize("rounds", [1, 5])
def test_a_budget_is_spent_and_overrun_by_one_step_at_most(
    key: str, one_process: bool, rounds: int
) -> None:
    """A limit that pays for a quarter of rounds of 400 steps each: 9 s a step of all three, and 5 s
    beside them.
    """
    limit = of(key, rounds * (0.25 * STEPS * sum(SECONDS.values()) + BESIDE))
    tracker = BudgetTracker({key: limit}, one_process, "EUR", price=PRICE)
    tracker.add(start(one_process))
    members = [Member(name, index, 8, STEPS) for index, name in enumerate(SECONDS)]
    for remaining in range(rounds, 0, -1):
        allowed = tracker.allow(members, remaining, 0)
        assert allowed is not None
        tracker.add(a_round(allowed, key, one_process))
    step = sum(of(key, seconds) for seconds in SECONDS.values())
    assert limit - 2 * step < tracker.spent[key] <= limit + step
