"""Commands as users type them, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TEQUIO = (sys.executable, "-m", "tequio.cli.main")


def tequio(*arguments: str | Path) -> str:
    """Run a command and return what it printed; where it fails, end with its error."""
    command = [*TEQUIO, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stderr}")
    return done.stdout
