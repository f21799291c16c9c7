"""Ranges of the pieces' settings, checked when a run is built."""

from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal


def require(
    fits: bool, piece: str, setting: str, value: float, limits: str, section: str = "algorithm"
) -> None:
    """Raise ConfigError naming the piece and its setting unless it fits."""
    if not fits:
        key = f"[{section}] {piece}: {setting}"
        raise refusal(ConfigError, "out-of-range", key=key, value=f"{value:g}", limits=limits)
