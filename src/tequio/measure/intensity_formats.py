"""Files of those who publish carbon intensities, read as they are:

Great Britain's API, carbon-aware-sdk, Electricity Maps, WattTime.

Nothing is fetched. Each reader says which fields it needs; what is missing, or in a unit that it
does not know, is an error.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal
from tequio.measure.intensity import Kind, Signal, moment

POUNDS_PER_MWH = 0.45359237  # in grams per kWh
SEPARATORS = (",", ";", "\t", "|")
DECIMAL_COMMA = re.compile(r"-?(\d+|\d{1,3}(\.\d{3})+),\d+")
ESTIMATED = "estimated"  # stands in the source of a value that its publisher did not measure


class Row(NamedTuple):
    """One value, in g/kWh. issued: when a forecast was made, where the file says it. estimated: by
    its publisher, not measured.
    """

    at: datetime
    seconds: float
    grams: float
    kind: Kind
    issued: datetime | None = None
    estimated: bool = False


Rows = list[Row]


def _uk(text: str, where: str) -> tuple[str, Signal, Rows]:
    """api.carbonintensity.org.uk: {"data":

    [{"from", "to", "intensity": {"forecast", "actual"}}]}; or its CSV.
    """
    if not text.lstrip().startswith("{"):
        table = _table(text, where)
        when, actual = _column(table, where, "datetime"), _column(table, where, "actual")
        spans = zip(
            table, _spans([moment(_utc(row[when]), where) for row in table], where), strict=True
        )
        known = [(row[actual], at, seconds) for row, (at, seconds) in spans if row[actual]]
        return (
            "GB",
            "average",
            [Row(at, seconds, _value(grams, where), "actual") for grams, at, seconds in known],
        )
    rows: Rows = []
    for number, item in enumerate(_list(_json(text, where), "data", where), 1):
        place, given = f"{where}, value {number}", _field(item, "intensity", where)
        start, end = (
            moment(_field(item, "from", place), place),
            moment(_field(item, "to", place), place),
        )
        kind: Kind = "actual" if given.get("actual") is not None else "forecast"
        if given.get(kind) is not None:
            rows.append(Row(start, (end - start).total_seconds(), _value(given[kind], place), kind))
    return "GB", "average", rows


def _carbon_aware(text: str, where: str) -> tuple[str, Signal, Rows]:
    """carbon-aware-sdk: forecasts [{"generatedAt", "location", "forecastData":

    [{"timestamp", "duration" (min), "value"}]}], or
    emissions [{"location", "time", "rating", "duration" (h:m:s)}]; its command line writes the
    names with capitals. Without generatedAt a forecast was known at requestedAt.
    """
    given = _lowered(_json(text, where))
    rows: Rows = []
    zone = ""
    for item in given if isinstance(given, list) else [given]:
        zone = str(_field(item, "location", where))
        if "forecastdata" not in item:
            hours, minutes, seconds = (
                float(part) for part in str(_field(item, "duration", where)).split(":")
            )
            at, span = (
                moment(_field(item, "time", where), where),
                3600 * hours + 60 * minutes + seconds,
            )
            rows.append(Row(at, span, _value(item.get("rating"), where), "actual"))
            continue
        said = item.get("generatedat") or item.get("requestedat")
        issued = moment(str(said), where) if said else None
        for number, row in enumerate(item["forecastdata"], 1):
            place = f"{where}, value {number}"
            zone, span = str(row.get("location", zone)), 60 * float(_field(row, "duration", place))
            at = moment(_field(row, "timestamp", place), place)
            rows.append(Row(at, span, _value(row.get("value"), place), "forecast", issued))
    return zone, "average", rows


def _electricity_maps(text: str, where: str) -> tuple[str, Signal, Rows]:
    """Electricity Maps: JSON {"zone", "history" | "forecast" | "data":

    [{"datetime", "carbonIntensity", "isEstimated"}], "updatedAt"
    (when a forecast was made)}, or the portal's CSV (the columns of the life cycle and "Data
    estimated").
    """
    if not text.lstrip().startswith("{"):
        table = _table(text, where)
        when, zone = _column(table, where, "datetime"), _column(table, where, "zone id")
        grams = _column(table, where, "life cycle", "lca")
        spans = _spans([moment(_utc(row[when]), where) for row in table], where)
        guessed = next((name for name in table[0] if ESTIMATED in str(name).lower()), "")
        rows = [
            Row(at, seconds, _value(row[grams], where), "actual", None, _true(row.get(guessed)))
            for row, (at, seconds) in zip(table, spans, strict=True)
        ]
        return table[0][zone], "average", rows
    given = _json(text, where)
    key = next((k for k in ("history", "forecast", "data") if k in given), "history")
    kind: Kind = "forecast" if key == "forecast" else "actual"
    items = _list(given, key, where)
    said = given.get("updatedAt") if kind == "forecast" else None
    issued = moment(str(said), where) if said else None
    spans = _spans([moment(_field(item, "datetime", where), where) for item in items], where)
    guesses = [kind == "actual" and _true(item.get("isEstimated")) for item in items]
    rows = [
        Row(at, seconds, _value(item.get("carbonIntensity"), where), kind, issued, guess)
        for item, (at, seconds), guess in zip(items, spans, guesses, strict=True)
    ]
    return str(given.get("zone", "")), "average", rows


def _watttime(text: str, where: str) -> tuple[str, Signal, Rows]:
    """WattTime v3: {"data": [{"point_time", "value"}], "meta": {"region", "units":

    "lbs_co2_per_mwh", "signal_type", "generated_at"}};
    a forecast where it goes on after `generated_at`. Past forecasts: {"data": [{"generated_at",
    "forecast": [{…}]}], "meta"}.
    """
    given = _json(text, where)
    meta = _field(given, "meta", where)
    units, signal = str(_field(meta, "units", where)), str(meta.get("signal_type", "co2_moer"))
    if units != "lbs_co2_per_mwh":
        raise refusal(ConfigError, "intensity-units", place=where, unit=units)
    items, seconds = _list(given, "data", where), meta.get("data_point_period_seconds")
    parts = [(items, meta.get("generated_at"), False)]
    if items and isinstance(items[0], Mapping) and "forecast" in items[0]:
        parts = [
            (_list(item, "forecast", where), _field(item, "generated_at", where), True)
            for item in items
        ]
    rows: Rows = []
    for points, said, past in parts:
        starts = [moment(_field(item, "point_time", where), where) for item in points]
        issued = moment(str(said), where) if said else None
        forecast = past or (issued is not None and bool(starts) and starts[-1] > issued)
        spans = [(at, float(seconds)) for at in starts] if seconds else _spans(starts, where)
        kind: Kind = "forecast" if forecast else "actual"
        rows += [
            Row(
                at,
                span,
                POUNDS_PER_MWH * _value(item.get("value"), where),
                kind,
                issued if forecast else None,
            )
            for item, (at, span) in zip(points, spans, strict=True)
        ]
    return str(meta.get("region", "")), "average" if signal == "co2_aoer" else "marginal", rows


Reader = Callable[[str, str], tuple[str, Signal, Rows]]
READERS: Mapping[str, Reader] = {
    "uk": _uk,
    "carbon-aware": _carbon_aware,
    "electricity-maps": _electricity_maps,
    "watttime": _watttime,
}
NAMES = {
    "uk": "api.carbonintensity.org.uk",
    "carbon-aware": "carbon-aware-sdk",
    "electricity-maps": "Electricity Maps",
    "watttime": "WattTime",
}


def _spans(starts: Sequence[datetime], where: str) -> list[tuple[datetime, float]]:
    """Each start with the seconds to the next one, the last with those of the one before."""
    steps = [(after - before).total_seconds() for before, after in pairwise(starts)]
    usual = sorted(steps)[len(steps) // 2] if steps else 0.0
    if usual <= 0:
        raise refusal(ConfigError, "intensity-spans", place=where)
    return [
        (at, usual) for at in starts
    ]  # another step is a gap or an overlap, and is found as one


def read_publisher(source: str, text: str, where: str) -> tuple[str, Signal, Rows]:
    """Return (zone, signal, rows) of a publisher's file.

    Raises ConfigError for whatever is wrong with it, a damaged file too.
    """
    if not text.strip():
        raise refusal(ConfigError, "intensity-empty", path=where)
    try:
        return READERS[source](text, where)
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        facts = {"place": where, "publisher": NAMES[source], "error": type(error).__name__}
        raise refusal(ConfigError, "publisher-format", **facts) from None


def _table(text: str, where: str) -> list[dict[str, str]]:
    """The rows of a CSV with any of the usual separators, with decimal points: a spreadsheet writes
    semicolons and decimal commas.

    Raises ConfigError naming the line with more or fewer fields than the first.
    """
    lines = text.splitlines(keepends=True)
    while lines and (not lines[0].strip() or lines[0].lower().startswith("sep=")):
        del lines[0]
    separator = max(SEPARATORS, key=(lines[0] if lines else "").count)
    reader = csv.reader(io.StringIO("".join(lines), newline=""), delimiter=separator)
    try:
        names, *rows = [fields for fields in reader if any(field.strip() for field in fields)]
    except csv.Error as error:
        raise refusal(
            ConfigError, "intensity-invalid", place=where, format="CSV", error=str(error)
        ) from None
    names = [name.strip() for name in names]
    if not rows:
        raise refusal(ConfigError, "intensity-empty", path=where)
    odd = next((row for row in rows if len(row) != len(names)), None)
    if odd is not None:
        line = len(text.splitlines()) - len(lines) + rows.index(odd) + 2
        counts = {"line": line, "found": len(odd), "expected": len(names), "separator": separator}
        raise refusal(ConfigError, "publisher-columns", place=where, **counts)
    comma = separator != ","
    return [
        {name: _point(field) if comma else field for name, field in zip(names, row, strict=True)}
        for row in rows
    ]


def _point(field: str) -> str:
    """A number with a decimal comma, written with a point; anything else as it is."""
    return (
        field.replace(".", "").replace(",", ".")
        if DECIMAL_COMMA.fullmatch(field.strip())
        else field
    )


def _column(table: Sequence[Mapping[str, str]], where: str, *words: str) -> str:
    names = [str(name) for name in table[0]] if table else []
    found = next((name for word in words for name in names if word in name.lower()), None)
    if found is None:
        raise refusal(ConfigError, "intensity-column", place=where, column=words[0], found=names)
    return found


def _utc(text: str) -> str:
    """A time of a column that is headed UTC."""
    return text if text.endswith("Z") or "+" in text else f"{text}Z"


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise refusal(
            ConfigError, "intensity-invalid", place=where, format="JSON", error=str(error)
        ) from None


def _lowered(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key).lower(): _lowered(item) for key, item in value.items()}
    return [_lowered(item) for item in value] if isinstance(value, list) else value


def _field(value: Any, key: str, where: str) -> Any:
    if not isinstance(value, Mapping) or value.get(key) is None:
        raise refusal(ConfigError, "publisher-field", place=where, key=key)
    return value[key]


def _list(value: Any, key: str, where: str) -> list[Any]:
    found = _field(value, key, where)
    if not isinstance(found, list):
        raise refusal(ConfigError, "publisher-field", place=where, key=key)
    return found


def _true(given: Any) -> bool:
    return given is True or str(given).strip().lower() == "true"


def _value(given: Any, where: str) -> float:
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = -1.0
    if not 0.0 <= value < 1e5:
        raise refusal(ConfigError, "not-an-intensity", place=where, value=str(given))
    return value
