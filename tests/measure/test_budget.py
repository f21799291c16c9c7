"""Budgets: sums, and the steps that fit."""

from __future__ import annotations

import pytest

from tequio.core.types import Energy
from tequio.measure.budget import add, cost, exhausted, left, smaller, within


def test_costs_by_hand() -> None:
    energy = Energy(3.6e6, 1800.0, "model", "cpu package", 0.4, intensity=500.0, pue=2.0)
    assert cost(energy, 1.5, 2e6) == {
        "kwh": 2.0,
        "kg_co2e": 1.0,
        "money": 1.5,
        "hours": 0.5,
        "megabytes": 2.0,
    }
    assert cost(Energy(0.0, 0.0, "", "", 0.0), None)["kg_co2e"] is None  # not known
    spent = add(add({}, cost(energy, 1.5)), cost(energy, None))
    assert (spent["kwh"], spent["money"], spent["hours"]) == (4.0, 1.5, 1.0)
    assert left({"kwh": 5.0, "money": 1.0}, spent) == {"kwh": 1.0, "money": -0.5}
    assert exhausted(left({"kwh": 5.0, "money": 1.0}, spent)) == ["money"]
    assert smaller({"kwh": 1.0, "hours": 2.0}, {"kwh": 0.5}) == {"kwh": 0.5, "hours": 2.0}


@pytest.mark.parametrize(("limit", "made"), [(10.0, 4), (4.0, 4), (3.9, 3), (2.0, 2), (0.5, 1)])
def test_steps_are_made_while_the_next_one_fits(limit: float, made: int) -> None:
    """Each step costs 1: the first is always made, and no step more than fits."""
    spent = {"kwh": 0.0}
    done = []
    for rate in within([0.1, 0.2, 0.3, 0.4], {"kwh": limit}, lambda: spent):
        done.append(rate)
        spent["kwh"] += 1.0
    assert done == [0.1, 0.2, 0.3, 0.4][:made]
    assert spent["kwh"] <= max(limit, 1.0)


def test_a_dearer_step_overruns_by_itself_at_most() -> None:
    spent, costs = {"kwh": 0.0}, iter([1.0, 1.0, 5.0, 1.0])
    for _ in within([1.0] * 4, {"kwh": 3.5}, lambda: spent):
        spent["kwh"] += next(costs)
    assert spent["kwh"] == 7.0  # two, then one that was dearer than any before; then none
