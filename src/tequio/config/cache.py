"""Where Tequio keeps what can be fetched or computed again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$TEQUIO_CACHE, else $XDG_CACHE_HOME/tequio, else ~/.cache/tequio."""
    if own := os.environ.get("TEQUIO_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tequio"
