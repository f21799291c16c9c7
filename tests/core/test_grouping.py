"""Values by key."""

from __future__ import annotations

from tequio.core.grouping import grouped


def test_values_stay_in_order_under_the_key_that_came_first() -> None:
    found = grouped([("b", 2), ("a", 1), ("b", 0)])
    assert list(found.items()) == [("b", [2, 0]), ("a", [1])]


def test_of_nothing_there_are_no_groups() -> None:
    assert grouped([]) == {}
