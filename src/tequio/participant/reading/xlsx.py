"""Rows of the first sheet of an Excel workbook (.xlsx), by openpyxl, which is an extra."""

import datetime
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from tequio.core.errors import DataError
from tequio.core.texts.words import refusal
from tequio.participant.reading.streams import Source


@dataclass(frozen=True)
class Workbook:
    """Say what a workbook has: how many sheets. Only the first is read."""

    source: Source
    sheets: int

    def rows(self) -> Iterator[tuple[int, list[Any]]]:
        """Yield (row number of the sheet, values) of each row that is not blank.

        Raises DataError where the workbook is damaged.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            book = _load(self.source)
            try:
                sheet = book.worksheets[0]
                sheet.reset_dimensions()
                for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
                    values = [_plain(cell) for cell in cells]
                    if any(value is not None and str(value).strip() for value in values):
                        yield number, values
            except Exception:  # a damaged archive or its XML can raise anything inside openpyxl
                raise refusal(
                    DataError, "file-cut-off", file=self.source.at(), format="Excel"
                ) from None
            finally:
                book.close()


def open_workbook(source: Source) -> Workbook:
    """Open a workbook and count its sheets.

    Raises DataError where it is damaged or openpyxl is missing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with closing(_load(source)) as book:
            sheets = len(book.worksheets)
    if not sheets:
        raise refusal(DataError, "workbook-empty", file=source.at())
    return Workbook(source, sheets)


def _load(source: Source) -> Any:
    try:
        import openpyxl
    except ImportError:
        raise refusal(DataError, "excel-package", file=source.at()) from None
    try:
        return openpyxl.load_workbook(source.path, read_only=True, data_only=True)
    except Exception:  # a damaged archive or its XML can raise anything inside openpyxl
        raise refusal(DataError, "file-cut-off", file=source.at(), format="Excel") from None


def _plain(cell: Any) -> Any:
    """Return a cell's value; moments as text, since no text or label is one."""
    return cell.isoformat() if isinstance(cell, datetime.date | datetime.time) else cell
