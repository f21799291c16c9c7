"""The catalogue of devices (`devices.toml`, and a user's own rows over it): peaks, memory,
bandwidth, power, prices, each with its date.
"""

import difflib
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Any

from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal


@dataclass(frozen=True)
class Device:
    """bf16: dense TFLOP/s; int8: dense TOPS; memory: GB; bandwidth: GB/s; rent:

    USD an hour; buy: thousand USD; embodied: kg CO2e.

    Ranges are (lowest, highest). unsure: fields that nobody has checked. source, as_of: where the
    row is from.
    """

    name: str
    bf16: float
    bandwidth: float
    watts: float
    memory: float | None = None
    int8: float | None = None
    rent: tuple[float, float] | None = None
    rent_as_of: str = ""
    buy: tuple[float, float] | None = None
    embodied: float | None = None
    unsure: tuple[str, ...] = ()
    source: str = ""
    as_of: str = ""


def middle(range_: tuple[float, float] | None) -> float | None:
    """The geometric middle of a range of prices; offers differ by factors, not by sums."""
    return None if range_ is None else math.sqrt(range_[0] * range_[1])


def catalogue(own: Path | None = None) -> dict[str, Device]:
    """Devices by name; rows of the file `own` replace and extend them.

    Raises ConfigError naming file and row.
    """
    shipped = files("tequio.planning").joinpath("devices.toml").read_text(encoding="utf-8")
    found = _devices(tomllib.loads(shipped), "devices.toml")
    if own is not None:
        try:
            raw = tomllib.loads(own.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise refusal(
                ConfigError, "catalogue-unreadable", path=str(own), error=str(error)
            ) from None
        found |= _devices(raw, str(own))
    return found


def find_device(name: str, known: Mapping[str, Device]) -> Device:
    """By name, whatever its case. Raises ConfigError offering the nearest."""
    by_name = {key.casefold(): device for key, device in known.items()}
    found = by_name.get(name.strip().casefold())
    if found is None:
        inside = [key for key in by_name if name.strip() and name.strip().casefold() in key]
        near = by_name[
            (inside or difflib.get_close_matches(name.casefold(), list(by_name), n=1, cutoff=0.0))[
                0
            ]
        ].name
        raise refusal(ConfigError, "device-unknown", device=name, nearest=near, known=[*known])
    return found


def _devices(raw: Mapping[str, Any], where: str) -> dict[str, Device]:
    rows = raw.get("devices")
    if not isinstance(rows, Mapping):
        raise refusal(ConfigError, "catalogue-unreadable", path=where, error="[devices]")
    common = {key: str(raw.get(key, "")) for key in ("source", "as_of")}
    return {
        name: _device(name, {**common, **row}, f'{where}, [devices."{name}"]')
        for name, row in rows.items()
    }


def _device(name: str, row: Mapping[str, Any], where: str) -> Device:
    known = {f.name for f in fields(Device)} - {"name"}
    for key in row:
        if key not in known:
            near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.0)[0]
            raise refusal(ConfigError, "device-key-unknown", place=where, key=key, nearest=near)
    for key in ("bf16", "bandwidth", "watts"):
        if key not in row:
            raise refusal(ConfigError, "device-key-missing", place=where, key=key)
    values: dict[str, Any] = {}
    for key, value in row.items():
        if key in ("source", "as_of", "rent_as_of"):
            values[key] = str(value)
        elif key == "unsure":
            values[key] = tuple(str(v) for v in value)
        elif key in ("rent", "buy"):
            both = value if isinstance(value, list) else [value, value]
            if len(both) != 2 or not all(_price(v) for v in both) or both[0] > both[1]:
                limits = "0 ≤ [lowest, highest]"
                raise refusal(
                    ConfigError,
                    "out-of-range",
                    key=f"{where}: {key}",
                    value=str(value),
                    limits=limits,
                )
            values[key] = (float(both[0]), float(both[1]))
        elif not _price(value) or value == 0:
            raise refusal(ConfigError, "not-above-zero", key=f"{where}: {key}", value=str(value))
        else:
            values[key] = float(value)
    return Device(name, **values)


def _price(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
