"""Currencies: codes in use, and what is offered for others."""

from __future__ import annotations

import pytest

from builders import refused
from tequio.core.errors import ConfigError
from tequio.measure.currencies import checked_currency, currencies


@pytest.mark.parametrize("code", ["EUR", "MXN", "VND", "XOF", "XCG", "ZWG"])
def test_codes_in_use(code: str) -> None:
    assert checked_currency(code) == code


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("EUX", ["UGX (Uganda Shilling)", "EUR (Euro)"]),
        ("eur", ["EUR (Euro)"]),
        ("Euro", ["EUR (Euro)"]),
        ("Mexican peso", ["MXN (Mexican Peso)", "DOP (Dominican Peso)"]),
        ("HRK", ["KHR (Riel)", "HKD (Hong Kong Dollar)"]),  # gone
        ("XAU", ["XAF (CFA Franc BEAC)", "AUD (Australian Dollar)"]),
        ("CLF", ["CLP (Chilean Peso)", "CHF (Swiss Franc)", "CDF (Congolese Franc)"]),  # a fund
    ],
)
def test_the_nearest_is_offered_for_others(given: str, near: list[str]) -> None:
    with refused(ConfigError, "currency-nearly", currency=given, near=near):
        checked_currency(given)


@pytest.mark.parametrize("given", ["DEM", "XXX", ""])
def test_nothing_is_offered_where_nothing_is_near(given: str) -> None:
    with refused(ConfigError, "currency-unknown", currency=given):
        checked_currency(given)


def test_the_table_has_codes_of_three_letters_once() -> None:
    table = currencies()
    assert len(table) > 140
    assert all(len(code) == 3 and code.isupper() and name for code, name in table.items())
