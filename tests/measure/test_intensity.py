"""Carbon intensities: the strict CSV, means over time, countries, and the publishers' files."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from builders import refused
from tequio.core.errors import ConfigError
from tequio.measure import intensity_import
from tequio.measure.countries import countries, country_intensity
from tequio.measure.intensity import COLUMNS, Window, read_intensity, read_windows, write_windows
from tequio.measure.intensity_import import Imported

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
GOOD = "DE,2026-03-01T{h:02d}:00:00Z,3600,{g},actual,,average,somebody,CC BY 4.0"


def import_windows(*arguments: Any, **options: Any) -> list[Window]:
    return intensity_import.import_windows(*arguments, **options).windows


def file(tmp_path: Path, *rows: str, head: str = ",".join(COLUMNS)) -> Path:
    path = tmp_path / "intensity.csv"
    path.write_text("\n".join((head, *rows)) + "\n")
    return path


def test_a_mean_is_weighted_by_time(tmp_path: Path) -> None:
    found = read_intensity(
        file(tmp_path, *(GOOD.format(h=h, g=g) for h, g in ((12, 100), (13, 300), (14, 500))))
    )
    assert found.mean(NOON, 3600) == 100
    assert found.mean(NOON + timedelta(minutes=45), 3600) == pytest.approx(0.25 * 100 + 0.75 * 300)
    assert found.mean(NOON, 3 * 3600) == pytest.approx(300)
    assert found.mean(NOON + timedelta(minutes=59), 1) == 100
    assert found.mean(NOON - timedelta(seconds=1), 10) is None  # before it begins
    assert found.mean(NOON + timedelta(hours=2), 3601) is None  # beyond its end: nothing is made up


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = file(tmp_path, *(GOOD.format(h=h, g=100 + h) for h in range(24)))
    windows = read_windows(path)
    again = tmp_path / "again.csv"
    again.write_text(write_windows(windows))
    assert read_windows(again) == windows


@pytest.mark.parametrize(
    ("rows", "line", "code", "facts"),
    [
        ([GOOD.format(h=1, g=1), GOOD.format(h=3, g=1)], 3, "intensity-gap", {"seconds": 3600.0}),
        (
            [GOOD.format(h=1, g=1), GOOD.format(h=1, g=2)],
            3,
            "intensity-overlap",
            {"begin": "2026-03-01T01:00:00Z"},
        ),
        ([GOOD.format(h=1, g=1).replace("Z,", ",")], 2, "time-without-zone", {}),
        (
            [GOOD.format(h=1, g=1).replace("2026-03-01T01", "yesterday")],
            2,
            "not-a-time",
            {"text": "yesterday:00:00Z"},
        ),
        (
            [GOOD.format(h=1, g=350_000)],
            2,
            "intensity-number",
            {"key": "g_per_kwh", "value": "350000"},
        ),
        ([GOOD.format(h=1, g=-1)], 2, "intensity-number", {"key": "g_per_kwh", "value": "-1"}),
        ([GOOD.format(h=1, g="nan")], 2, "intensity-number", {"key": "g_per_kwh", "value": "nan"}),
        (
            [GOOD.format(h=1, g=1).replace("actual", "guess")],
            2,
            "intensity-word-unknown",
            {"key": "kind", "value": "guess"},
        ),
        (
            [GOOD.format(h=1, g=1).replace("actual", "forecast")],
            2,
            "intensity-cell-empty",
            {"key": "issued_utc"},
        ),
        ([GOOD.format(h=1, g=1).replace("DE,", ",")], 2, "intensity-cell-empty", {"key": "zone"}),
        ([GOOD.format(h=1, g=1) + ",more"], 2, "intensity-row-width", {"found": 10, "expected": 9}),
    ],
)
def test_a_bad_row_is_named_by_its_line(
    tmp_path: Path, rows: list[str], line: int, code: str, facts: dict[str, Any]
) -> None:
    with refused(ConfigError, code, **facts) as found:
        read_windows(file(tmp_path, *rows))
    assert f"line {line}" in str(found.value)


def test_another_time_zone_is_converted(tmp_path: Path) -> None:
    rows = [
        GOOD.format(h=12, g=100),
        GOOD.format(h=14, g=200).replace("14:00:00Z", "14:00:00+01:00"),
    ]
    found = read_intensity(file(tmp_path, *rows))  # 14:00 at +01:00 is 13:00 UTC: no gap
    assert found.mean(NOON + timedelta(hours=1), 60) == 200


def test_a_head_in_another_unit_is_refused(tmp_path: Path) -> None:
    head = ",".join(COLUMNS).replace("g_per_kwh", "kg_per_mwh")
    with refused(ConfigError, "intensity-of-other-unit", unit="kg_per_mwh"):
        read_windows(file(tmp_path, GOOD.format(h=1, g=1), head=head))


def test_a_head_without_a_column_or_in_another_order_is_refused(tmp_path: Path) -> None:
    for head, code, facts in (
        (",".join(COLUMNS[1:]), "intensity-columns-missing", {"missing": ["zone"]}),
        (",".join(reversed(COLUMNS)), "intensity-columns-order", {"columns": ",".join(COLUMNS)}),
    ):
        with refused(ConfigError, code, **facts):
            read_windows(file(tmp_path, GOOD.format(h=1, g=1), head=head))


def test_a_zone_that_is_not_there_is_answered_with_the_nearest(tmp_path: Path) -> None:
    path = file(tmp_path, GOOD.format(h=1, g=100), GOOD.format(h=1, g=50).replace("DE", "FR"))
    with refused(ConfigError, "intensity-zones", zones=["DE", "FR"]):
        read_intensity(path)
    with refused(ConfigError, "intensity-zone-unknown", zone="DEX", nearest="DE"):
        read_intensity(path, "DEX")
    assert read_intensity(path, "FR").zone == "FR"


def test_countries_by_code_and_name_and_the_nearest_of_an_unknown_one() -> None:
    assert len(countries()) == 211
    assert len({c.alpha_3 for c in countries()}) == len({c.alpha_2 for c in countries()}) == 211
    assert all(0 < c.grams < 1400 and 2021 <= c.year <= 2023 for c in countries())
    # as in the package's file: Germany 2023, 380.95
    by_code = country_intensity("de")
    assert by_code.annual == 380.95
    assert by_code == country_intensity("DEU") == country_intensity(" Germany ")
    assert by_code.mean(NOON, 10) == 380.95
    with refused(ConfigError, "country-nearly", near=["Germany (DE, DEU)"]):
        country_intensity("Germny")


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("UK", "GBR"),
        ("Scotland", "GBR"),
        ("britain", "GBR"),
        ("USA", "USA"),
        ("Republic of Korea", "KOR"),
        ("turkiye", "TUR"),
    ],
)
def test_what_people_call_a_country_is_known(name: str, zone: str) -> None:
    assert country_intensity(name).zone == zone


def test_a_country_is_offered_only_where_it_is_near() -> None:
    with refused(
        ConfigError, "country-nearly", near=["South Korea (KR, KOR)", "North Korea (KP, PRK)"]
    ):
        country_intensity("Korea")
    for name in ("Atlantis", "QQ", "XYZ", ""):
        with refused(ConfigError, "country-unknown", country=name):
            country_intensity(name)


def test_kilograms_taken_for_grams_are_refused_and_a_clean_hour_is_not(tmp_path: Path) -> None:
    with refused(ConfigError, "intensity-in-kilograms", high=0.4, low=0.3125):
        read_windows(file(tmp_path, GOOD.format(h=1, g=0.3125), GOOD.format(h=2, g=0.4)))
    assert len(read_windows(file(tmp_path, GOOD.format(h=1, g=0.5), GOOD.format(h=2, g=30)))) == 2
    assert len(read_windows(file(tmp_path, GOOD.format(h=1, g=0)))) == 1


def write(tmp_path: Path, value: Any) -> Path:
    path = tmp_path / "file.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def half_hours(count: int) -> list[datetime]:
    return [NOON + timedelta(minutes=30 * i) for i in range(count)]


def test_great_britain(tmp_path: Path) -> None:
    data = [
        {
            "from": f"{at:%Y-%m-%dT%H:%MZ}",
            "to": f"{at + timedelta(minutes=30):%Y-%m-%dT%H:%MZ}",
            "intensity": {
                "forecast": 200 + i,
                "actual": 190 + i if i < 2 else None,
                "index": "moderate",
            },
        }
        for i, at in enumerate(half_hours(4))
    ]
    path = write(tmp_path, {"data": data})
    with refused(ConfigError, "forecasts-undated"):  # nothing is guessed
        import_windows(path, "uk", None, "")
    made = intensity_import.import_windows(path, "uk", None, "", forecasts=False)
    assert ([w.grams for w in made.windows], made.left_out) == ([190, 191], {"forecast": 2})
    issued = NOON - timedelta(minutes=7)
    windows = import_windows(path, "uk", None, "CC BY 4.0", issued)
    assert [w.issued for w in windows] == [None, None, issued, issued]
    assert [(w.zone, w.kind, w.grams, w.seconds) for w in windows] == [
        ("GB", "actual", 190, 1800),
        ("GB", "actual", 191, 1800),
        ("GB", "forecast", 202, 1800),
        ("GB", "forecast", 203, 1800),
    ]
    rows = "\n".join(f"{at:%Y-%m-%dT%H:%M},{150 + i},160,low" for i, at in enumerate(half_hours(3)))
    table = (
        "Datetime (UTC),Actual Carbon Intensity (gCO2/kWh),Forecast Carbon Intensity "
        f"(gCO2/kWh),Index\n{rows}\n"
    )
    assert [w.grams for w in import_windows(write(tmp_path, table), "uk", None, "")] == [
        150,
        151,
        152,
    ]
    data.append(data[0])
    with refused(ConfigError, "intensity-overlap"):
        import_windows(write(tmp_path, {"data": data}), "uk", None, "", issued)


@pytest.mark.parametrize("capitals", [False, True])
def test_carbon_aware_sdk(tmp_path: Path, capitals: bool) -> None:
    def named(row: dict[str, Any]) -> dict[str, Any]:
        return {(k[:1].upper() + k[1:] if capitals else k): v for k, v in row.items()}

    points = [
        named(
            {
                "location": "eastus",
                "timestamp": f"{at:%Y-%m-%dT%H:%M:%S}+00:00",
                "duration": 30,
                "value": 400.5 + i,
            }
        )
        for i, at in enumerate(half_hours(3))
    ]
    head = {
        "generatedAt": "2026-03-01T11:55:00+00:00",
        "location": "eastus",
        "windowSize": 30,
        "forecastData": points,
    }
    windows = import_windows(write(tmp_path, [named(head)]), "carbon-aware", None, "")
    assert [(w.zone, w.kind, w.grams, w.seconds) for w in windows] == [
        ("eastus", "forecast", 400.5 + i, 1800.0) for i in range(3)
    ]
    assert windows[0].issued == NOON - timedelta(minutes=5)
    with refused(ConfigError, "forecasts-dated"):
        import_windows(write(tmp_path, [named(head)]), "carbon-aware", None, "", NOON)
    asked = {k: v for k, v in head.items() if k != "generatedAt"} | {
        "requestedAt": "2026-03-01T11:58:00+00:00"
    }
    (first, *_) = import_windows(write(tmp_path, [named(asked)]), "carbon-aware", None, "")
    assert first.issued == NOON - timedelta(minutes=2)
    del asked["requestedAt"]
    with refused(ConfigError, "forecasts-undated"):
        import_windows(write(tmp_path, [named(asked)]), "carbon-aware", None, "")
    rows = [
        named(
            {
                "location": "a",
                "time": "2026-03-01T12:00:00Z",
                "rating": 65.0,
                "duration": "08:00:00",
            }
        )
    ]
    (one,) = import_windows(write(tmp_path, rows), "carbon-aware", None, "")
    assert (one.kind, one.grams, one.seconds) == ("actual", 65.0, 28_800.0)


def test_electricity_maps(tmp_path: Path) -> None:
    hours = [NOON + timedelta(hours=i) for i in range(3)]
    history = [
        {"zone": "DE", "carbonIntensity": 302 + i, "datetime": f"{at:%FT%T}.000Z"}
        for i, at in enumerate(hours)
    ]
    windows = import_windows(
        write(tmp_path, {"zone": "DE", "history": history}), "electricity-maps", None, ""
    )
    assert [(w.zone, w.kind, w.grams, w.seconds) for w in windows] == [
        ("DE", "actual", 302.0 + i, 3600.0) for i in range(3)
    ]
    name = "Carbon intensity gCO₂eq/kWh"
    rows = "\n".join(
        f"{at:%F %T},Germany,Germany,DE,{200 + i},{300 + i}" for i, at in enumerate(hours)
    )
    table = (
        f"Datetime (UTC),Country,Zone name,Zone id,{name} (direct),{name} (Life cycle)\n{rows}\n"
    )
    windows = import_windows(write(tmp_path, table), "electricity-maps", None, "")
    assert [(w.zone, w.grams) for w in windows] == [("DE", 300.0), ("DE", 301.0), ("DE", 302.0)]
    with refused(ConfigError, "intensity-gap"):
        import_windows(
            write(
                tmp_path,
                {
                    "zone": "DE",
                    "history": [*history, {**history[0], "datetime": "2026-03-01T16:00:00Z"}],
                },
            ),
            "electricity-maps",
            None,
            "",
        )


def test_what_electricity_maps_estimated_is_left_out_or_marked(tmp_path: Path) -> None:
    hours = [NOON + timedelta(hours=i) for i in range(4)]

    def made(guessed: set[int], **options: Any) -> Imported:
        history = [
            {
                "carbonIntensity": 302 + i,
                "datetime": f"{at:%FT%T}.000Z",
                "isEstimated": i in guessed,
            }
            for i, at in enumerate(hours)
        ]
        path = write(tmp_path, {"zone": "DE", "history": history})
        return intensity_import.import_windows(path, "electricity-maps", None, "", **options)

    newest = made({2, 3})
    assert ([w.grams for w in newest.windows], newest.left_out, newest.marked) == (
        [302, 303],
        {"estimated": 2},
        0,
    )
    marked = made({2, 3}, estimated=True)
    assert [w.source for w in marked.windows] == ["Electricity Maps"] * 2 + [
        "Electricity Maps (estimated)"
    ] * 2
    assert (marked.left_out, marked.marked) == ({}, 2)
    with refused(ConfigError, "intensity-estimates-left-out", count=1) as caught:
        made({1})
    assert caught.value.as_reason().facts["why"]["code"] == "intensity-gap"
    with refused(ConfigError, "intensity-all-left-out", estimated=4, forecasts=0):
        made({0, 1, 2, 3})
    rows = "\n".join(f"{at:%F %T},DE,{300 + i},{str(i == 3).lower()}" for i, at in enumerate(hours))
    table = (
        f"Datetime (UTC),Zone id,Carbon intensity gCO₂eq/kWh (Life cycle),Data estimated\n{rows}\n"
    )
    found = intensity_import.import_windows(write(tmp_path, table), "electricity-maps", None, "")
    assert ([w.grams for w in found.windows], found.left_out) == ([300, 301, 302], {"estimated": 1})


def test_electricity_maps_forecast_has_its_time(tmp_path: Path) -> None:
    points = [
        {"carbonIntensity": 300 + i, "datetime": f"{NOON + timedelta(hours=i):%FT%T}Z"}
        for i in range(3)
    ]
    given = {"zone": "DE", "forecast": points, "updatedAt": "2026-03-01T11:40:00.000Z"}
    windows = import_windows(write(tmp_path, given), "electricity-maps", None, "")
    assert {(w.kind, w.issued) for w in windows} == {("forecast", NOON - timedelta(minutes=20))}
    del given["updatedAt"]
    with refused(ConfigError, "forecasts-undated"):
        import_windows(write(tmp_path, given), "electricity-maps", None, "")


def test_watttime_forecasts_have_their_own_time(tmp_path: Path) -> None:
    points = [
        {"point_time": f"{NOON + timedelta(minutes=5 * i):%FT%T}+00:00", "value": 1000.0}
        for i in range(3)
    ]
    meta = {"region": "CAISO_NORTH", "units": "lbs_co2_per_mwh", "data_point_period_seconds": 300}
    now = {"data": points, "meta": meta | {"generated_at": "2026-03-01T11:58:00+00:00"}}
    windows = import_windows(write(tmp_path, now), "watttime", None, "")
    assert {(w.kind, w.issued) for w in windows} == {("forecast", NOON - timedelta(minutes=2))}
    past = [{"generated_at": f"2026-03-01T11:{m}:00+00:00", "forecast": points} for m in (50, 55)]
    windows = import_windows(write(tmp_path, {"data": past, "meta": meta}), "watttime", None, "")
    assert [(w.kind, w.issued) for w in windows[::3]] == [
        ("forecast", NOON - timedelta(minutes=m)) for m in (10, 5)
    ]


def test_watttime_pounds_become_grams(tmp_path: Path) -> None:
    points = [
        {"point_time": f"{NOON + timedelta(minutes=5 * i):%FT%T}+00:00", "value": 1000.0}
        for i in range(3)
    ]
    meta = {
        "region": "CAISO_NORTH",
        "signal_type": "co2_moer",
        "units": "lbs_co2_per_mwh",
        "data_point_period_seconds": 300,
    }
    windows = import_windows(write(tmp_path, {"data": points, "meta": meta}), "watttime", None, "")
    assert [(w.signal, w.kind, w.seconds) for w in windows] == [("marginal", "actual", 300.0)] * 3
    assert windows[0].grams == pytest.approx(453.592, abs=0.001)  # a pound is 453.592 g
    with refused(ConfigError, "intensity-units", unit="kg_per_mwh"):
        import_windows(
            write(tmp_path, {"data": points, "meta": {**meta, "units": "kg_per_mwh"}}),
            "watttime",
            None,
            "",
        )


@pytest.mark.parametrize("source", ["uk", "carbon-aware", "electricity-maps", "watttime"])
def test_another_file_is_refused(tmp_path: Path, source: str) -> None:
    for text in ("{", "{}", "[{}]", "[]", "a,b\n1,2\n", ""):
        with pytest.raises(ConfigError, match=r"file\.json"):
            import_windows(write(tmp_path, text), source, None, "")
