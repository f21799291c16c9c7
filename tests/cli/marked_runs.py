"""Runs in which every private text bears a marker: how they are refused, and that it comes out
nowhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.core.errors import TequioError
from tequio.ledger.record import Ledger
from tequio.report.write import write_report

MARKER = "zarzamora"  # stands in every text of every participant and may come out nowhere
MARK = MARKER.encode()
Rows = list[dict[str, Any]]


def rows_of(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()]


def put(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def site(federation: Path, number: int = 0) -> Path:
    return federation.parent / "data" / f"site{number}.jsonl"


def said(error: TequioError) -> str:
    """The message as people and as programs get it, after checking that it says what to do and
    leaks nothing.
    """
    text = str(error) + json.dumps(error.as_dict())
    assert MARKER not in text
    return text


def refused(path: Path, kind: type[TequioError], *expected: str) -> TequioError:
    """A run of `path` is refused with all of `expected` in the message, and nothing is written."""
    out = path.parent / "run"
    with pytest.raises(kind) as caught:
        start(load_federation(path), out, False)
    text = said(caught.value)
    for words in expected:
        assert words in text
    assert not out.exists()
    return caught.value


def nothing_leaks(folder: Path) -> None:
    """No file of the run, no record in it, no report and no summary holds the marker."""
    page, summary = write_report(folder, "en", None)
    assert "site0" in page.read_text()
    assert MARKER not in json.dumps(summary, default=str)
    with Ledger.open(folder / "ledger.sqlite", read_only=True) as ledger:
        assert MARKER not in json.dumps([dict(e.body) for e in ledger.entries()], default=dict)
    for file in folder.rglob("*"):
        assert file.is_dir() or MARK not in file.read_bytes(), file
