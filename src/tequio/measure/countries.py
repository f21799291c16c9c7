"""Annual averages of countries: grams of CO₂e a kilowatt-hour, from the shipped table, found by code or by name.

What people call a country is known beside the table's own name. Where no name is near, none is offered.
"""

from __future__ import annotations

import csv
import difflib
import io
import unicodedata
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from tequio.core.errors import ConfigError
from tequio.measure.intensity import Intensity

COUNTRIES_SOURCE = "country averages as tabled in codecarbon 3.3.2 (MIT), global_energy_mix.json"
NEAR = 0.75  # ratio of difflib from which on a name is offered
COMMON = {
    "GB": ("UK", "Great Britain", "Britain", "England", "Scotland", "Wales", "Northern Ireland"),
    "US": ("U.S.", "U.S.A.", "United States of America", "America"),
    "KR": ("Republic of Korea", "Korea, South", "Korea (South)", "S. Korea"),
    "KP": ("DPRK", "Korea, North", "Korea (North)", "N. Korea"),
    "AE": ("UAE", "Emirates"),
    "CD": ("DRC", "DR Congo", "Democratic Republic of the Congo", "Congo-Kinshasa"),
    "CG": ("Republic of the Congo", "Congo-Brazzaville"),
    "CI": ("Ivory Coast",),
    "CV": ("Cabo Verde",),
    "CZ": ("Czech Republic",),
    "GR": ("EL",),
    "IR": ("Islamic Republic of Iran",),
    "LA": ("Lao PDR",),
    "MK": ("Macedonia",),
    "MM": ("Burma",),
    "NL": ("Holland", "The Netherlands"),
    "RU": ("Russian Federation",),
    "SY": ("Syrian Arab Republic",),
    "SZ": ("Swaziland",),
    "TR": ("Türkiye",),
    "VN": ("Viet Nam",),
}


class Country(NamedTuple):
    """One row of the shipped table."""

    alpha_2: str
    alpha_3: str
    name: str
    grams: float
    year: int


@cache
def countries() -> tuple[Country, ...]:
    """The shipped annual averages (211 countries, of 2021 to 2023; see COUNTRIES_SOURCE)."""
    text = files("tequio.measure").joinpath("countries.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(text)))[1:]
    return tuple(Country(two, three, name, float(grams), int(year)) for two, three, name, grams, year in rows)


def country_intensity(name: str) -> Intensity:
    """The annual average of a country by code (DE, DEU) or English name (common ones too). Raises ConfigError offering what is near."""
    known = _known()
    found = known.get(_plain(name))
    if found is None:
        what, fix = f"There is no country {name!r} in the table.", "All of them: tequio carbon countries"
        raise ConfigError(what, _near(_plain(name)), fix)
    return Intensity(found.alpha_3, "average", f"{found.name}, {found.year}: {COUNTRIES_SOURCE}", (), found.grams)


@cache
def _known() -> dict[str, Country]:
    table = countries()
    out = {_plain(key): c for c in table for key in (c.alpha_2, c.alpha_3, c.name)}
    return out | {_plain(other): c for c in table for other in COMMON.get(c.alpha_2, ())}


def _near(name: str) -> str:
    """Which countries may be meant: those of which the name is a word, or of nearly that name."""
    names = {key: c for key, c in _known().items() if len(key) > 3}
    if len(name) <= 3:
        return ""
    inside = [c for key, c in names.items() if name in key.split() and key == _plain(c.name)]
    found = inside or [names[key] for key in difflib.get_close_matches(name, list(names), n=1, cutoff=NEAR)]
    said = " or ".join(f"{c.name} ({c.alpha_2}, {c.alpha_3})" for c in found[:3])
    return f"The nearest is {said}." if said else ""


def _plain(name: str) -> str:
    """Without accents, capitals and outer blanks."""
    parts = unicodedata.normalize("NFKD", name.strip())
    return "".join(c for c in parts if not unicodedata.combining(c)).casefold()
