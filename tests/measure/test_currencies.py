"""Currencies: codes in use, and what is offered for others."""

from __future__ import annotations

import pytest

from tequio.core.errors import ConfigError
from tequio.measure.currencies import checked_currency, currencies


@pytest.mark.parametrize("code", ["EUR", "MXN", "VND", "XOF", "XCG", "ZWG"])
def test_codes_in_use(code: str) -> None:
    assert checked_currency(code) == code


@pytest.mark.parametrize(
    ("given", "offered"),
    [
        ("EUX", "EUR"),
        ("eur", "EUR .Euro."),
        ("Euro", "EUR"),
        ("Mexican peso", "MXN"),
        ("DEM", "no currency in use"),  # gone
        ("HRK", "no currency in use"),
        ("XXX", "no currency in use"),
        ("XAU", "no currency in use"),
        ("CLF", "no currency in use"),  # a fund
        ("", "no currency in use"),
    ],
)
def test_others_are_refused_and_the_nearest_is_offered(given: str, offered: str) -> None:
    with pytest.raises(ConfigError, match=offered):
        checked_currency(given)


def test_the_table_has_codes_of_three_letters_once() -> None:
    table = currencies()
    assert len(table) > 140
    assert all(len(code) == 3 and code.isupper() and name for code, name in table.items())
