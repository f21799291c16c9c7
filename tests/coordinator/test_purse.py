"""What a federation's budget counts of records, and what it allows: sums by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tequio.coordinator.purse import Purse
from tequio.measure.money import Price

KWH = 3.6e6


def row(name: str, kwh: float, **more: Any) -> dict[str, Any]:
    energy = {"joules": kwh * KWH, "seconds": 3600.0, "intensity": 100.0, "pue": 1.0}
    return {"name": name, "energy": energy, "steps": 10} | more


def spent(*bodies: dict[str, Any], one_process: bool = False) -> dict[str, float]:
    purse = Purse({"kwh": 100.0}, one_process)
    for body in bodies:
        purse.add(body)
    return purse.spent


ROUND = row("", 1.0) | {"train": [row("a", 2.0, bytes_up=3e6, bytes_down=1e6)], "evaluation": [row("a", 0.5)]}


def test_a_round_across_a_network_is_the_coordinators_part_and_everybodys() -> None:
    took = spent(ROUND)
    assert (took["kwh"], took["kg_co2e"], took["megabytes"]) == (3.5, 0.35, 4.0)
    assert took["hours"] == 3.0


def test_what_is_in_flight_counts_when_it_was_trained() -> None:
    window = ROUND | {"in_flight": [row("b", 4.0), {"name": "c", "sent": 1}]}
    landed = row("", 1.0) | {"train": [{"name": "b", "steps": 10, "bytes_up": 2e6, "bytes_down": 0}]}
    assert spent(window)["kwh"] == 7.5
    took = spent(window, landed)
    assert (took["kwh"], took["megabytes"]) == (8.5, 6.0)


def test_the_coordinators_money_is_counted() -> None:
    """At 2 a kWh and 5 an hour: its hour, and the kWh that participants in its process did not draw."""
    money = {"amount": 0.5, "currency": "EUR"}
    centre = row("", 4.0) | {"train": [row("a", 2.0, money=money), row("centre", 0.5)]}
    for one_process, kwh in ((True, 2.0), (False, 4.0)):
        purse = Purse({"money": 100.0}, one_process, "EUR", price=Price("EUR", 2.0, 5.0))
        purse.add(centre)
        assert purse.spent["money"] == pytest.approx(0.5 + 2.0 * kwh + 5.0)
        assert purse.beside["money"] == pytest.approx(2.0 * kwh + 5.0)


def test_waits_and_personal_models_are_counted_and_the_centres_bytes_are_not() -> None:
    centre = ROUND | {"train": [*ROUND["train"], row("centre", 0.5, bytes_up=9e6, bytes_down=9e6)]}
    for one_process in (False, True):
        assert spent(centre, one_process=one_process)["megabytes"] == 4.0
    assert spent(ROUND, row("", 0.25))["kwh"] == 3.75
    purse = Purse({"kwh": 10.0, "megabytes": 5.0}, one_process=False)
    purse.add(ROUND)
    purse.add_personal(row("a", 1.5))
    assert purse.allow_personal({"a": 10, "b": 30}) == {
        "a": {"kwh": pytest.approx(1.25)},
        "b": {"kwh": pytest.approx(3.75)},
    }
