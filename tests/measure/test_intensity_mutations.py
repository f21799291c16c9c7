"""Publishers' files as people save them again: other separators, decimal commas, a mark, cut,
emptied.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tequio.core.errors import ConfigError
from tequio.measure.intensity_import import import_windows

MAPS = (
    "Datetime (UTC),Country,Zone name,Zone id,Carbon intensity gCO₂eq/kWh (direct),"
    "Carbon intensity gCO₂eq/kWh (Life cycle),Data source,Data estimated\n"
    "2024-03-01 00:00:00,Spain,Spain,ES,80.1,120.25,entsoe.eu,false\n"
    "2024-03-01 01:00:00,Spain,Spain,ES,80.1,1121.5,entsoe.eu,false\n"
    "2024-03-01 02:00:00,Spain,Spain,ES,80.1,122.0,entsoe.eu,false\n"
)
UK = "datetime,actual,forecast\n2024-03-01T00:00Z,120,125\n2024-03-01T00:30Z,121,125\n2024-03-01T01:00Z,119,125\n"
STARTS = ("2024-03-01T00:00:00Z", "2024-03-01T01:00:00Z")
FILES = {
    "electricity-maps.csv": MAPS,
    "uk.csv": UK,
    "uk.json": json.dumps(
        {
            "data": [
                {"from": s, "to": s[:11] + e, "intensity": {"actual": 9}}
                for s, e in zip(STARTS, ("01:00:00Z", "02:00:00Z"), strict=True)
            ]
        }
    ),
    "electricity-maps.json": json.dumps(
        {
            "zone": "ES",
            "history": [
                {"datetime": s, "carbonIntensity": 120, "isEstimated": False} for s in STARTS
            ],
        }
    ),
    "carbon-aware.json": json.dumps(
        [{"location": "eastus", "time": s, "rating": 65.5, "duration": "01:00:00"} for s in STARTS]
    ),
    "watttime.json": json.dumps(
        {
            "data": [{"point_time": s, "value": 870} for s in STARTS],
            "meta": {"region": "X", "units": "lbs_co2_per_mwh", "data_point_period_seconds": 3600},
        }
    ),
}


def read(folder: Path, name: str, raw: bytes) -> list[float]:
    path = folder / name
    path.write_bytes(raw)
    return [w.grams for w in import_windows(path, name.partition(".")[0], None, "x").windows]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("mark", ["", "\ufeff", "\ufeffsep={}\r\n"])
def test_a_spreadsheet_s_csv_is_read(tmp_path: Path, separator: str, mark: str) -> None:
    lines = MAPS.replace(",", separator).splitlines()
    saved = [
        line.replace("120.25", "120,25").replace("1121.5", "1.121,5").replace("122.0", "122,0")
        for line in lines
    ]
    raw = (mark.format(separator) + "\r\n".join(saved) + "\r\n").encode()
    assert read(tmp_path, "electricity-maps.csv", raw) == [120.25, 1121.5, 122.0]


def test_decimal_commas_between_commas_name_the_row(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "electricity-maps.csv", MAPS.replace("120.25", "120,25").encode())
    assert "row 2: 9 fields, and the first line has 8." in str(caught.value)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "raw",
    [b"", b"\n\n", b"{}", b"[]", b"null", b"[1]", b'{"data": [1]}', b"a,b\n", b"\xff\xfe\x00"],
)
def test_what_is_none_of_its_files_is_refused(tmp_path: Path, name: str, raw: bytes) -> None:
    with pytest.raises(ConfigError):
        read(tmp_path, name, raw)


@pytest.mark.parametrize("name", FILES)
def test_whatever_is_done_to_a_file_it_is_read_or_refused(tmp_path: Path, name: str) -> None:
    chance, original = random.Random(name), FILES[name]
    assert read(tmp_path, name, original.encode())
    refused = 0
    for _ in range(150):
        text = list(original)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(text))
            text[at : at + chance.randrange(0, 30)] = chance.choice(
                ["", ";", ",", '"', "null", "[]", "{}", "\n", "9", "é"]
            )
        try:
            read(
                tmp_path,
                name,
                "".join(text).encode(chance.choice(["utf-8", "utf-8-sig", "cp1252"]), "replace"),
            )
        except ConfigError:
            refused += 1
    assert refused > 20
