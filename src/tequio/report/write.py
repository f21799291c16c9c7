"""The report of a run as one file beside its ledger."""

from pathlib import Path
from typing import Any, Literal

from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.report.html.report import render, summary


def write_report(
    run: Path, lang: Literal["en", "es"], out: Path | None
) -> tuple[Path, dict[str, Any]]:
    """Write the HTML report (default:

    RUN/report.LANG.html); return its path and the numbers behind it.
    """
    folder = RunFolder.open(run)
    with Ledger.open(folder.ledger_path, read_only=True) as ledger:
        entries = list(ledger.entries())
    page = render(entries, lang).encode("utf-8")
    if out is None:
        path = folder.write_atomic(f"report.{lang}.html", page)
    else:
        path = RunFolder(out.resolve().parent).write_atomic(out.name, page)
    return path, summary(entries)
