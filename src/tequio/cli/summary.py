"""The end of a run in the terminal: who gained, what it cost, where the report is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tequio.cli import show


def print_summary(folder: Path, report: Path, summary: Mapping[str, Any]) -> None:
    """A table of participants and three lines."""
    show.out.print(str(summary))
    show.out.print(f"Report: {report}")
