"""Countries by the names that people there give them; near names only where one is near; a sentence
for what is no country.
"""

from __future__ import annotations

import pytest

from builders import refused
from tequio.core.errors import ConfigError
from tequio.measure.countries import countries, country_intensity


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("España", "ESP"), ("espana", "ESP"), ("Deutschland", "DEU"), ("Österreich", "AUT"), ("Schweiz", "CHE"),
        ("Svizzera", "CHE"), ("Allemagne", "DEU"), ("Reino Unido", "GBR"), ("Inglaterra", "GBR"), ("México", "MEX"),
        ("Polska", "POL"), ("Ελλάδα", "GRC"), ("日本", "JPN"), ("中国", "CHN"), ("Éire", "IRL"), ("Brasil", "BRA"),
        ("Republic of Ireland", "IRL"), ("EE. UU.", "USA"), ("Hrvatska", "HRV"), ("Macedonia del "
            "Norte", "MKD"),
        ("Niger", "NER"), ("Nigeria", "NGA"), ("Guinea", "GIN"), ("Dominican Republic", "DOM"),
    ],
)  # fmt: skip
def test_a_country_by_its_own_name(name: str, zone: str) -> None:
    assert country_intensity(name).zone == zone


def test_every_country_answers_to_its_codes_and_the_table_s_name() -> None:
    for country in countries():
        for name in (country.alpha_2, country.alpha_3.lower(), country.name):
            assert country_intensity(name).zone == country.alpha_3


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Deutchland", ["Germany (DE, DEU)"]),
        ("Espania", ["Spain (ES, ESP)"]),
        ("Republic of Irland", ["Ireland (IE, IRL)"]),
        ("Kingdom of Norway", ["Norway (NO, NOR)"]),
        ("Korea", ["South Korea (KR, KOR)", "North Korea (KP, PRK)"]),
    ],
)
def test_a_near_name_is_offered(name: str, near: list[str]) -> None:
    with refused(ConfigError, "country-nearly", country=name, near=near):
        country_intensity(name)


@pytest.mark.parametrize("name", ["South Georgia", "Narnia", "Republic of Xyz", "", "zz"])
def test_nothing_is_offered_where_nothing_is_near(name: str) -> None:
    with refused(ConfigError, "country-unknown", country=name):
        country_intensity(name)


@pytest.mark.parametrize("name", ["EU", "European Union", "Unión Europea", "Europe", "world"])
def test_a_union_is_no_country(name: str) -> None:
    with refused(ConfigError, "country-is-several", country=name):
        country_intensity(name)


@pytest.mark.parametrize("name", ["Kosovo", "Kosova", "XK"])
def test_kosovo_has_no_row_and_a_way_out(name: str) -> None:
    with refused(ConfigError, "country-without-average", country=name) as caught:
        country_intensity(name)
    assert "[energy] intensity" in str(caught.value)
