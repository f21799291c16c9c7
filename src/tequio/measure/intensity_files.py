"""Files of carbon intensities as commands see them: import, check, and the table of countries."""

from pathlib import Path
from typing import Any

from tequio.core.errors import ResourceError
from tequio.core.grouping import grouped
from tequio.core.texts.words import refusal
from tequio.measure.countries import COUNTRIES_SOURCE, countries, country_intensity
from tequio.measure.intensity import Window, moment, read_windows, stamp, window_end, write_windows
from tequio.measure.intensity_import import import_windows


def import_file(
    path: Path,
    source: str,
    out: Path,
    zone: str | None,
    licence: str,
    issued: str | None = None,
    estimated: bool = False,
    forecasts: bool = True,
) -> dict[str, Any]:
    """Write the canonical CSV; what is in it, and how many values are marked or left out (see
    `import_windows`).

    Raises ConfigError for the file, ResourceError where `out` cannot be written.
    """
    at = None if issued is None else moment(issued, "--issued")
    made = import_windows(path, source, zone, licence, at, estimated, forecasts)
    try:
        out.write_text(write_windows(made.windows), encoding="utf-8")
    except OSError as error:
        raise refusal(
            ResourceError, "path-unwritable", path=str(out), error=error.strerror
        ) from None
    counts = {"estimated": made.marked, "left_out": dict(made.left_out)}
    return {"file": str(out), "series": _series(made.windows), **counts}


def check_file(path: Path) -> dict[str, Any]:
    """What is in a canonical CSV. Raises ConfigError naming the line."""
    return {"file": str(path), "series": _series(read_windows(path))}


def table_of(name: str | None) -> dict[str, Any]:
    """The shipped averages, or one. Raises ConfigError offering the nearest."""
    wanted = None if name is None else country_intensity(name).zone
    rows = [
        {
            "alpha_2": c.alpha_2,
            "alpha_3": c.alpha_3,
            "country": c.name,
            "g_per_kwh": c.grams,
            "year": c.year,
        }
        for c in countries()
        if wanted in (None, c.alpha_3)
    ]
    return {"source": COUNTRIES_SOURCE, "countries": rows}


def _series(windows: list[Window]) -> list[dict[str, Any]]:
    groups = grouped(((window.zone, window.kind, window.signal), window) for window in windows)
    return [
        {
            "zone": zone,
            "kind": kind,
            "signal": signal,
            "windows": len(mine),
            "from": stamp(min(w.start for w in mine)),
            "to": stamp(max(window_end(w) for w in mine)),
            "lowest": min(w.grams for w in mine),
            "highest": max(w.grams for w in mine),
            "mean": sum(w.grams * w.seconds for w in mine) / sum(w.seconds for w in mine),
        }
        for (zone, kind, signal), mine in groups.items()
    ]
