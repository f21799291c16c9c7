"""Files of those who publish carbon intensities, read into windows: Great Britain's API, carbon-aware-sdk, Electricity Maps, WattTime.

Nothing is fetched. Each reader says which fields it needs; what is missing, or in a unit that it does not know, is an error.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from tequio.core.errors import ConfigError
from tequio.measure.intensity import Kind, Signal, Window, checked, moment

POUNDS_PER_MWH = 0.45359237  # in grams per kWh
Rows = list[tuple[datetime, float, float, Kind, datetime | None]]  # start, seconds, g/kWh


def import_windows(path: Path, source: str, zone: str | None, licence: str) -> list[Window]:
    """The windows of a publisher's file. Raises ConfigError naming the file and what is wrong in it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}).") from None
    known, signal, rows = READERS[source](text, str(path))
    if not rows:
        raise ConfigError(f"{path} has no values.")
    named = zone or known
    if not named:
        raise ConfigError(f"{path} does not say of which zone it is.", "", "Say it: --zone NAME")
    made = [Window(named, at, s, g, kind, issued, signal, NAMES[source], licence) for at, s, g, kind, issued in rows]
    return checked(made, str(path))


def _uk(text: str, where: str) -> tuple[str, Signal, Rows]:
    """api.carbonintensity.org.uk: {"data": [{"from", "to", "intensity": {"forecast", "actual"}}]}; or its CSV."""
    rows: Rows = []
    if not text.lstrip().startswith("{"):
        table = _table(text)
        when, actual = _column(table, where, "datetime"), _column(table, where, "actual")
        starts = [moment(_utc(row[when]), where) for row in table]
        for row, (at, seconds) in zip(table, _spans(starts, where), strict=True):
            if row[actual]:
                rows.append((at, seconds, _value(row[actual], where), "actual", None))
        return "GB", "average", rows
    for number, item in enumerate(_list(_json(text, where), "data", where), 1):
        place, given = f"{where}, value {number}", _field(item, "intensity", where)
        start, end = moment(_field(item, "from", place), place), moment(_field(item, "to", place), place)
        seconds = (end - start).total_seconds()
        if given.get("actual") is not None:
            rows.append((start, seconds, _value(given["actual"], place), "actual", None))
        elif given.get("forecast") is not None:
            rows.append((start, seconds, _value(given["forecast"], place), "forecast", start))
    return "GB", "average", _one_issue(rows)


def _carbon_aware(text: str, where: str) -> tuple[str, Signal, Rows]:
    """carbon-aware-sdk: forecasts [{"generatedAt", "location", "forecastData": [{"timestamp", "duration" (min), "value"}]}], or
    emissions [{"location", "time", "rating", "duration" (h:m:s)}]; its command line writes the names with capitals."""
    given = _lowered(_json(text, where))
    items = given if isinstance(given, list) else [given]
    rows: Rows = []
    zone = ""
    for item in items:
        zone = str(_field(item, "location", where))
        if "forecastdata" not in item:
            hours, minutes, seconds = (float(part) for part in str(_field(item, "duration", where)).split(":"))
            span = 3600 * hours + 60 * minutes + seconds
            rows.append(
                (moment(_field(item, "time", where), where), span, _value(item.get("rating"), where), "actual", None)
            )
            continue
        issued = moment(_field(item, "generatedat", where), where)
        for number, row in enumerate(item["forecastdata"], 1):
            at = f"{where}, value {number}"
            zone, span = str(row.get("location", zone)), 60 * float(_field(row, "duration", at))
            rows.append(
                (moment(_field(row, "timestamp", at), at), span, _value(row.get("value"), at), "forecast", issued)
            )
    return zone, "average", rows


def _electricity_maps(text: str, where: str) -> tuple[str, Signal, Rows]:
    """Electricity Maps: JSON {"zone", "history" | "forecast" | "data": [{"datetime", "carbonIntensity"}]}, or the portal's CSV
    (the life-cycle column)."""
    rows: Rows = []
    if not text.lstrip().startswith("{"):
        table = _table(text)
        when, zone = _column(table, where, "datetime"), _column(table, where, "zone id")
        grams = next(
            (_column(table, where, word) for word in ("life cycle", "lca") if word in " ".join(table[0]).lower()), None
        )
        if grams is None:
            raise ConfigError(f"{where} has no life-cycle column.", f"It has: {', '.join(table[0])}.")
        spans = _spans([moment(_utc(row[when]), where) for row in table], where)
        for row, (at, seconds) in zip(table, spans, strict=True):
            rows.append((at, seconds, _value(row[grams], where), "actual", None))
        return table[0][zone], "average", rows
    given = _json(text, where)
    key = next((k for k in ("history", "forecast", "data") if k in given), "history")
    kind: Kind = "forecast" if key == "forecast" else "actual"
    items = _list(given, key, where)
    issued = moment(_field(given, "updatedAt", where), where) if kind == "forecast" else None
    spans = _spans([moment(_field(item, "datetime", where), where) for item in items], where)
    for item, (at, seconds) in zip(items, spans, strict=True):
        rows.append((at, seconds, _value(item.get("carbonIntensity"), where), kind, issued))
    return str(given.get("zone", "")), "average", rows


def _watttime(text: str, where: str) -> tuple[str, Signal, Rows]:
    """WattTime v3: {"data": [{"point_time", "value"}], "meta": {"region", "units": "lbs_co2_per_mwh", "signal_type"}}."""
    given = _json(text, where)
    meta = _field(given, "meta", where)
    units, signal = str(_field(meta, "units", where)), str(meta.get("signal_type", "co2_moer"))
    if units != "lbs_co2_per_mwh":
        raise ConfigError(f"{where}: units = {units!r}.", "Only lbs_co2_per_mwh is understood.")
    items = _list(given, "data", where)
    issued = moment(meta["generated_at"], where) if meta.get("generated_at") and len(items) > 1 else None
    starts = [moment(_field(item, "point_time", where), where) for item in items]
    forecast = issued is not None and bool(starts) and starts[-1] > issued
    seconds = meta.get("data_point_period_seconds")
    spans = [(at, float(seconds)) for at in starts] if seconds else _spans(starts, where)
    rows: Rows = [
        (
            at,
            span,
            POUNDS_PER_MWH * _value(item.get("value"), where),
            "forecast" if forecast else "actual",
            issued if forecast else None,
        )
        for item, (at, span) in zip(items, spans, strict=True)
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


def _one_issue(rows: Rows) -> Rows:
    """Forecasts of one file were made at one time, at the latest when the first of them began."""
    issued = min((start for start, _, _, kind, _ in rows if kind == "forecast"), default=None)
    return [(at, s, g, kind, issued if kind == "forecast" else None) for at, s, g, kind, _ in rows]


def _spans(starts: Sequence[datetime], where: str) -> list[tuple[datetime, float]]:
    """Each start with the seconds to the next one, the last with those of the one before."""
    if len(starts) < 2:
        raise ConfigError(f"{where} has fewer than two values,", "so how long each holds is not known.")
    steps = [(after - before).total_seconds() for before, after in pairwise(starts)]
    usual = sorted(steps)[len(steps) // 2]
    if usual <= 0:
        raise ConfigError(f"{where}: its times do not rise.")
    return [(at, usual) for at in starts]  # another step is a gap or an overlap, and is found as one


def _table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def _column(table: Sequence[Mapping[str, str]], where: str, word: str) -> str:
    names = [str(name) for name in table[0]] if table else []
    found = next((name for name in names if word in name.lower()), None)
    if found is None:
        raise ConfigError(f"{where} has no column with {word!r} in its name.", f"It has: {', '.join(names)}.")
    return found


def _utc(text: str) -> str:
    """A time of a column that is headed UTC."""
    return text if text.endswith("Z") or "+" in text else f"{text}Z"


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{where} is not JSON ({error}).") from None


def _lowered(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key).lower(): _lowered(item) for key, item in value.items()}
    return [_lowered(item) for item in value] if isinstance(value, list) else value


def _field(value: Any, key: str, where: str) -> Any:
    if not isinstance(value, Mapping) or value.get(key) is None:
        raise ConfigError(f"{where} has no {key!r}.", "It is not a file of this publisher, or of another version.")
    return value[key]


def _list(value: Any, key: str, where: str) -> list[Any]:
    found = _field(value, key, where)
    if not isinstance(found, list):
        raise ConfigError(f"{where}: {key!r} is not a list.")
    return found


def _value(given: Any, where: str) -> float:
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = -1.0
    if not 0.0 <= value < 1e5:
        raise ConfigError(f"{where}: {given!r} is not an intensity.", "Expected a number that is not negative.")
    return value
