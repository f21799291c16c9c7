"""Currencies by their codes of ISO 4217: those in use, without funds, metals and codes for
testing.
"""

import csv
import difflib
import io
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal

SOURCE = "ISO 4217, list one, as in the package pycountry 26.2.16 (February 2026)"
NEAR = 0.6  # ratio of difflib from which on a code or name is offered


@cache
def currencies() -> Mapping[str, str]:
    """Code -> name, of the shipped table (see SOURCE)."""
    text = files("tequio.measure").joinpath("currencies.csv").read_text(encoding="utf-8")
    return {row["code"]: row["name"] for row in csv.DictReader(io.StringIO(text))}


def checked_currency(code: str) -> str:
    """The code.

    Raises ConfigError for one that is not in use, offering the nearest by code or name.
    """
    known = currencies()
    if code in known:
        return code
    near = [f"{near} ({known[near]})" for near in _near(code)]
    raise refusal(
        ConfigError,
        "currency-nearly" if near else "currency-unknown",
        currency=code,
        near=near,
        source=SOURCE,
    )


def _near(word: str) -> list[str]:
    known = currencies()
    codes = difflib.get_close_matches(word.upper(), known, 3, NEAR)
    if word.upper() in codes:
        return [word.upper()]
    names = {name.lower(): code for code, name in known.items()}
    by_name = [names[name] for name in difflib.get_close_matches(word.lower(), names, 2, NEAR)]
    return by_name if len(word) != 3 and by_name else codes
