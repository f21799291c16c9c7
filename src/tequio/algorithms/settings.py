"""Ranges of the pieces' settings, checked when a run is built."""

from __future__ import annotations

from tequio.core.errors import ConfigError


def require(fits: bool, piece: str, setting: str, value: float, expected: str, section: str = "algorithm") -> None:
    """Raise ConfigError naming the piece and its setting unless it fits."""
    if not fits:
        raise ConfigError(f"[{section}] {piece}: {setting} = {value:g} is out of range;", f"expected {expected}.")
