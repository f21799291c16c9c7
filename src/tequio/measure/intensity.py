"""How many grams of CO₂e a kilowatt-hour costs, where and when: series read from one canonical CSV.

    zone,start_utc,duration_s,g_per_kwh,kind,issued_utc,signal,source,licence

kind: actual or forecast (issued_utc says when). signal: average (what accounts use) or marginal.
    Reading is strict: a gap, an overlap,
a time without zone or another unit is an error that names the line. Location-based only:
certificates and offsets change nothing here.
"""

import csv
import difflib
import io
import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from tequio.core.errors import ConfigError
from tequio.core.grouping import grouped
from tequio.core.texts.words import refusal, refuse_first

COLUMNS = (
    "zone",
    "start_utc",
    "duration_s",
    "g_per_kwh",
    "kind",
    "issued_utc",
    "signal",
    "source",
    "licence",
)
Kind = Literal["actual", "forecast"]
Signal = Literal["average", "marginal"]
# g/kWh; no power station is above, a kg or lb per MWh taken for g per kWh often is below 1
LARGEST = 3000.0
# g/kWh; where no value of a zone is above, it is kg for g: the cleanest grids of the table are
# above 20
LEAST = 3.0


class Window(NamedTuple):
    """One row: from `start`, so many seconds, at `grams` per kWh."""

    zone: str
    start: datetime
    seconds: float
    grams: float
    kind: Kind
    issued: datetime | None
    signal: Signal
    source: str
    licence: str


@dataclass(frozen=True)
class Intensity:
    """A series of one zone, kind and signal, in order and without gaps; or, without windows, one
    `annual` figure for any time.
    """

    zone: str
    signal: Signal
    source: str
    windows: tuple[Window, ...] = ()
    annual: float | None = None

    def mean(self, start: datetime, seconds: float) -> float | None:
        """Time-weighted mean g/kWh over [start, start + seconds];

        `annual` where that is not inside; None where neither is known.
        """
        end = start + timedelta(seconds=seconds)
        if not self.windows or start < self.windows[0].start or end > window_end(self.windows[-1]):
            return self.annual
        first = bisect_right(self.windows, start, key=lambda w: w.start) - 1
        if end <= window_end(self.windows[first]):
            return self.windows[first].grams
        weighted = 0.0
        for window in self.windows[first:]:
            inside = (min(end, window_end(window)) - max(start, window.start)).total_seconds()
            if inside <= 0:
                break
            weighted += window.grams * inside
        return weighted / seconds

    def greenest(self, seconds: float) -> float | None:
        """Mean g/kWh over the cheapest `seconds` of the series' last day, in whole or part
        windows;

        None without a series of a day.
        """
        if not self.windows or window_end(self.windows[-1]) - self.windows[0].start < timedelta(
            days=1
        ):
            return None
        from_ = window_end(self.windows[-1]) - timedelta(days=1)
        day = sorted((w for w in self.windows if w.start >= from_), key=lambda w: w.grams)
        left, weighted = min(seconds, sum(w.seconds for w in day)), 0.0
        whole = left
        for window in day:
            used = min(left, window.seconds)
            weighted, left = weighted + used * window.grams, left - used
            if left <= 0:
                break
        return weighted / whole if whole > 0 else day[0].grams


def window_end(window: Window) -> datetime:
    """When a window ends."""
    return window.start + timedelta(seconds=window.seconds)


def read_intensity(path: Path, zone: str | None = None, kind: Kind = "actual") -> Intensity:
    """The series of one zone: average rather than marginal where a file has both.

    Raises ConfigError naming file and line for anything but a gapless series, and for a zone that
    is not there (the nearest is offered).
    """
    windows = read_windows(path)
    zones = sorted({w.zone for w in windows})
    if zone is None and len(zones) > 1:
        raise refusal(ConfigError, "intensity-zones", path=str(path), zones=zones)
    wanted = zone or zones[0]
    if wanted not in zones:
        near = difflib.get_close_matches(wanted, zones, n=1, cutoff=0.0)[0]
        raise refusal(
            ConfigError,
            "intensity-zone-unknown",
            path=str(path),
            zone=wanted,
            zones=zones,
            nearest=near,
        )
    mine = [w for w in windows if w.zone == wanted and w.kind == kind]
    if not mine:
        kinds = sorted({w.kind for w in windows if w.zone == wanted})
        raise refusal(
            ConfigError,
            "intensity-kind-missing",
            path=str(path),
            series=kind,
            zone=wanted,
            kinds=kinds,
        )
    signal: Signal = "average" if any(w.signal == "average" for w in mine) else "marginal"
    series = tuple(w for w in mine if w.signal == signal)
    latest = max((w.issued for w in series if w.issued), default=None)
    series = tuple(w for w in series if w.issued == latest)  # of forecasts the one made last
    return Intensity(wanted, signal, series[0].source, series)


def read_windows(path: Path) -> list[Window]:
    """All rows of a canonical CSV, sorted and checked. Raises ConfigError naming file and line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise refusal(
            ConfigError, "path-unreadable", path=str(path), error=error.strerror
        ) from None
    except UnicodeDecodeError:
        raise refusal(ConfigError, "intensity-not-utf-8", path=str(path)) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, Window]] = []
    try:
        head = tuple(next(reader, ()))
        missing = [name for name in COLUMNS if name not in head]
        unit = next((n for n in head if n not in COLUMNS and re.search("[km]wh", n.lower())), None)
        found = {
            "intensity-of-other-unit": unit is not None and "g_per_kwh" in missing,
            "intensity-columns-missing": bool(missing),
            "intensity-columns-order": head != COLUMNS,
        }
        refuse_first(
            ConfigError,
            found,
            path=str(path),
            missing=missing,
            unit=unit,
            columns=",".join(COLUMNS),
        )
        rows.extend(
            (reader.line_num, _window(row, f"{path}, line {reader.line_num}"))
            for row in reader
            if row
        )
    except csv.Error as error:
        place = f"{path}, line {reader.line_num}"
        raise refusal(
            ConfigError, "intensity-invalid", place=place, format="CSV", error=str(error)
        ) from None
    if not rows:
        raise refusal(ConfigError, "intensity-empty", path=str(path))
    return _checked(rows, f"{path}, line")


def write_windows(windows: Iterable[Window]) -> str:
    """The canonical CSV of these rows."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for w in windows:
        issued = "" if w.issued is None else stamp(w.issued)
        row = (
            w.zone,
            stamp(w.start),
            f"{w.seconds:g}",
            f"{w.grams:.6g}",
            w.kind,
            issued,
            w.signal,
            w.source,
        )
        writer.writerow((*row, w.licence))
    return out.getvalue()


def checked(windows: Sequence[Window], source: str) -> list[Window]:
    """The windows in order. Raises ConfigError where two of a series overlap, or leave a gap."""
    return _checked(list(enumerate(windows, 1)), f"{source}, value")


def stamp(at: datetime) -> str:
    """A time as it is written: UTC, with Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str, where: str) -> datetime:
    """A time with its zone, as UTC. Raises ConfigError where it has none, or is no time."""
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        raise refusal(ConfigError, "not-a-time", place=where, text=text) from None
    if at.tzinfo is None:
        raise refusal(ConfigError, "time-without-zone", place=where, text=text)
    return at.astimezone(UTC)


def _window(row: Sequence[str], where: str) -> Window:
    if len(row) != len(COLUMNS):
        raise refusal(
            ConfigError, "intensity-row-width", place=where, found=len(row), expected=len(COLUMNS)
        )
    cell = dict(zip(COLUMNS, (value.strip() for value in row), strict=True))
    kind, signal = cell["kind"], cell["signal"]
    for key, value, known in (("kind", kind, get_args(Kind)), ("signal", signal, get_args(Signal))):
        if value not in known:
            raise refusal(
                ConfigError,
                "intensity-word-unknown",
                place=where,
                key=key,
                value=value,
                known=[*known],
            )
    needed = ("zone", "source", "issued_utc") if kind == "forecast" else ("zone", "source")
    if empty := [key for key in needed if not cell[key]]:
        raise refusal(ConfigError, "intensity-cell-empty", place=where, key=empty[0])
    issued = moment(cell["issued_utc"], where) if cell["issued_utc"] else None
    return Window(
        cell["zone"],
        moment(cell["start_utc"], where),
        _number(cell["duration_s"], "duration_s", where, 1.0, 366 * 86_400.0),
        _number(cell["g_per_kwh"], "g_per_kwh", where, 0.0, LARGEST),
        cast(Kind, kind),
        issued,
        cast(Signal, signal),
        cell["source"],
        cell["licence"],
    )


def _number(text: str, key: str, where: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise refusal(
            ConfigError, "intensity-number", place=where, key=key, value=text, low=low, high=high
        )
    return value


def _checked(rows: Sequence[tuple[int, Window]], place: str) -> list[Window]:
    """place: what a row's number is put behind, after the file's name."""
    series = grouped(
        ((row[1].zone, row[1].kind, row[1].signal, row[1].issued), row) for row in rows
    )
    out: list[Window] = []
    for (zone, kind, _, _), mine in series.items():
        mine.sort(key=lambda pair: pair[1].start)
        for (_, before), (line, after) in pairwise(mine):
            what = f"{place} {line}: zone {zone}, {kind}, from {stamp(after.start)}:"
            if after.start < window_end(before):
                raise refusal(
                    ConfigError, "intensity-overlap", place=what, begin=stamp(before.start)
                )
            if after.start > window_end(before):
                gap = (after.start - window_end(before)).total_seconds()
                raise refusal(
                    ConfigError,
                    "intensity-gap",
                    place=what,
                    seconds=gap,
                    begin=stamp(window_end(before)),
                )
        out += [window for _, window in mine]
    for zone in sorted({w.zone for w in out}):
        _in_grams(
            [w.grams for w in out if w.zone == zone], f"{place.rpartition(', ')[0]}: zone {zone}"
        )
    return sorted(out, key=lambda w: (w.zone, w.signal, w.kind, w.issued or w.start, w.start))


def _in_grams(values: Sequence[float], where: str) -> None:
    low, high = min(values), max(values)
    if low > 0 and high < LEAST:
        raise refusal(
            ConfigError, "intensity-in-kilograms", place=where, least=LEAST, low=low, high=high
        )
