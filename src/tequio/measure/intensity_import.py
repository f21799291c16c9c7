"""Publishers' files of carbon intensities turned into windows:

`publishers.py` reads them, here is decided what is kept.

When a forecast was made is the file's own word, or has to be said; values that a publisher only
estimated are left out, or marked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal
from tequio.measure.intensity import Window, checked
from tequio.measure.intensity_formats import ESTIMATED, NAMES, Row, Rows, read_publisher


@dataclass(frozen=True)
class Imported:
    """The windows, how many of them are marked as estimated, and how many values were left out, by
    reason.
    """

    windows: list[Window]
    marked: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


def import_windows(
    path: Path,
    source: str,
    zone: str | None,
    licence: str,
    issued: datetime | None = None,
    estimated: bool = False,
    forecasts: bool = True,
) -> Imported:
    """The windows of a publisher's file.

    Raises ConfigError naming the file and what is wrong in it.

    issued: when its forecasts were made, where the file does not say. estimated: keep such values,
        marked. forecasts: keep those.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise refusal(
            ConfigError, "path-unreadable", path=str(path), error=error.strerror
        ) from None
    except UnicodeDecodeError:
        raise refusal(ConfigError, "intensity-not-utf-8", path=str(path)) from None
    known, signal, rows = read_publisher(source, text, str(path))
    if not rows:
        raise refusal(ConfigError, "intensity-empty", path=str(path))
    named = zone or known
    if not named:
        raise refusal(ConfigError, "intensity-zone-missing", path=str(path))
    wanted = [row for row in rows if forecasts or row.kind == "actual"]
    usable = _with_issue(
        [row for row in wanted if estimated or not row.estimated], issued, str(path)
    )
    left_out = {ESTIMATED: len(wanted) - len(usable), "forecast": len(rows) - len(wanted)}
    if not usable:
        counts = {"estimated": left_out[ESTIMATED], "forecasts": left_out["forecast"]}
        raise refusal(ConfigError, "intensity-all-left-out", path=str(path), **counts)
    windows = [
        Window(
            named,
            r.at,
            r.seconds,
            r.grams,
            r.kind,
            r.issued,
            signal,
            _source(NAMES[source], r),
            licence,
        )
        for r in usable
    ]
    try:
        made = checked(windows, str(path))
    except ConfigError as error:
        if not left_out[ESTIMATED]:
            raise
        why, count = error.as_reason().as_record(), left_out[ESTIMATED]
        raise refusal(ConfigError, "intensity-estimates-left-out", why=why, count=count) from None
    return Imported(
        made, sum(row.estimated for row in usable), {k: n for k, n in left_out.items() if n}
    )


def _source(name: str, row: Row) -> str:
    return f"{name} ({ESTIMATED})" if row.estimated else name


def _with_issue(rows: Rows, issued: datetime | None, where: str) -> Rows:
    """The rows, every forecast with the time at which it was made.

    Raises ConfigError where nobody says it, or two do.
    """
    forecasts = [row for row in rows if row.kind == "forecast"]
    if issued is not None and any(row.issued is not None for row in forecasts):
        raise refusal(ConfigError, "forecasts-dated", place=where)
    if issued is None and any(row.issued is None for row in forecasts):
        raise refusal(ConfigError, "forecasts-undated", place=where)
    return [
        row._replace(issued=row.issued or issued) if row.kind == "forecast" else row for row in rows
    ]
