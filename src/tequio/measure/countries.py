"""Annual averages of countries: grams of CO₂e a kilowatt-hour, from the shipped table, found by
code or by name.

What people call a country is known beside the table's own name: in its own languages and in some
others (country_names.csv, from Unicode's CLDR by way of babel 2.19.0; its licence lies beside it).
Where no name is near, none is offered.
"""

import csv
import difflib
import io
import re
import unicodedata
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from tequio.core.errors import ConfigError
from tequio.core.grouping import grouped
from tequio.core.texts.words import refusal
from tequio.measure.intensity import Intensity

COUNTRIES_SOURCE = "country averages as tabled in codecarbon 3.3.2 (MIT), global_energy_mix.json"
NEAR = 0.8  # ratio of difflib from which on a name is offered
COMMON = {
    "GB": (
        "UK",
        "Great Britain",
        "Britain",
        "England",
        "Scotland",
        "Wales",
        "Northern Ireland",
        "Inglaterra",
        "Escocia",
        "Gales",
    ),
    "US": ("U.S.", "U.S.A.", "United States of America", "America", "EE. UU.", "EE.UU.", "EEUU"),
    "IE": ("Republic of Ireland", "Eire"),
    "CN": ("People's Republic of China", "PRC", "Mainland China"),
    "TW": ("Republic of China", "Chinese Taipei"),
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
    "VE": ("Bolivarian Republic of Venezuela",),
    "BO": ("Plurinational State of Bolivia",),
    "TZ": ("United Republic of Tanzania",),
    "MD": ("Republic of Moldova",),
    "BN": ("Brunei Darussalam",),
    "TL": ("East Timor",),
    "DE": ("BRD", "Federal Republic of Germany"),
    "VN": ("Viet Nam",),
}

UNION = "country-is-several"
CODES = {
    **dict.fromkeys(
        ("eu", "eu27", "eu-27", "european union", "europe", "union europea", "europa"), UNION
    ),
    **dict.fromkeys(
        ("world", "global", "africa", "asia", "latin america", "latam", "north america"), UNION
    ),
    **dict.fromkeys(
        ("america latina", "south america", "scandinavia", "benelux", "balkans"), UNION
    ),
    **dict.fromkeys(("xk", "xkx", "kosovo", "kosova"), "country-without-average"),
}
"""What is no country of the table, in plain letters -> the code of its refusal."""
SIDES = (
    "north",
    "south",
    "east",
    "west",
    "new",
    "saint",
    "st.",
    "islands",
    "island",
    "norte",
    "sur",
    "nord",
    "sud",
)
FORMAL = re.compile(
    r"\b(the|of|and|republic|kingdom|state|states|union|commonwealth|federal|federation|federative|democratic|people's|peoples|"
    r"islamic|bolivarian|plurinational|socialist|united|principality|sultanate|grand "
    r"duchy|republica|reino|de|la|el)\b"
)


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
    return tuple(
        Country(two, three, name, float(grams), int(year)) for two, three, name, grams, year in rows
    )


def country_intensity(name: str) -> Intensity:
    """The annual average of a country by code (DE, DEU) or English name (common ones too).

    Raises ConfigError offering what is near.
    """
    found = _known().get(_plain(name))
    if found is None:
        near = _near(_plain(name))
        code = CODES.get(_plain(name)) or ("country-nearly" if near else "country-unknown")
        raise refusal(ConfigError, code, country=name, near=near)
    return Intensity(
        found.alpha_3, "average", f"{found.name}, {found.year}: {COUNTRIES_SOURCE}", (), found.grams
    )


@cache
def _known() -> dict[str, Country]:
    """Plain name -> country.

    A name of several countries in different languages is that of the table, or of none.
    """
    table = countries()
    out = {_plain(key): c for c in table for key in (c.alpha_2, c.alpha_3, c.name)}
    out |= {_plain(other): c for c in table for other in COMMON.get(c.alpha_2, ())}
    by_code = {c.alpha_2: c for c in table}
    theirs = grouped(
        (_plain(name), by_code[code]) for code, names in _own_names() for name in names
    )
    return {name: of[0] for name, of in theirs.items() if len(set(of)) == 1} | out


def _own_names() -> list[tuple[str, list[str]]]:
    text = files("tequio.measure").joinpath("country_names.csv").read_text(encoding="utf-8")
    return [
        (code, names.split("|")) for code, names in list(csv.reader(io.StringIO(text)))[1:] if names
    ]


def _near(name: str) -> list[str]:
    """Which countries may be meant: those of which the name is a word, or of nearly that name once
    formal words are taken away.
    """
    names = {key: c for key, c in _known().items() if len(key) > 3}
    if len(name) <= 3:
        return []
    short = grouped((bare, country) for key, country in names.items() if (bare := _bare(key)))
    inside = [c for key, c in names.items() if name in key.split() and key == _plain(c.name)]
    same = inside or short.get(_bare(name), [])
    alike = difflib.get_close_matches(_bare(name), list(short), n=1, cutoff=NEAR)
    near = same or [c for key in alike if _share_a_word(_bare(name), key) for c in short[key]]
    return [f"{c.name} ({c.alpha_2}, {c.alpha_3})" for c in list(dict.fromkeys(near))[:3]]


def _share_a_word(one: str, other: str) -> bool:
    """Whether a word that tells countries apart is nearly the same in two names:

    South Georgia is not near South Korea.
    """
    words = [word for word in other.split() if word not in SIDES]
    return any(
        difflib.get_close_matches(word, words, n=1, cutoff=NEAR)
        for word in one.split()
        if word not in SIDES
    )


def _bare(name: str) -> str:
    return " ".join(FORMAL.sub(" ", name).split())


def _plain(name: str) -> str:
    """Without accents, capitals and outer blanks."""
    parts = unicodedata.normalize("NFKD", name.strip())
    return "".join(c for c in parts if not unicodedata.combining(c)).casefold()
