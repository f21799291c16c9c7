"""`tequio query`: the record of a run by SQL, as a table, as JSON or as CSV."""

import csv as csv_module
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from tequio.cli import output
from tequio.cli.options import Json


def query(
    folder: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")],
    sql: Annotated[
        str, typer.Argument(help="One SELECT or WITH … SELECT; docs/record.md has the schema.")
    ],
    csv: Annotated[
        bool,
        typer.Option("--csv", help="Print comma-separated values, the names of columns first."),
    ] = False,
    json: Json = False,
) -> None:
    """Read a run's record with SQL. Nothing is changed, and the run may go on meanwhile."""
    if csv and json:
        raise typer.BadParameter("give --csv or --json, one of the two")
    from tequio.ledger.folder import RunFolder
    from tequio.ledger.query import read_query

    answer = read_query(RunFolder.open(folder).ledger_path, sql)
    columns = [_printable(column) for column in answer.columns]
    if csv:
        writer = csv_module.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(value, none="") for value in row] for row in answer.rows)
        return

    def words() -> None:
        rows = Table(*columns)
        for row in answer.rows:
            rows.add_row(*(_cell(value, none="–") for value in row))
        output.table(rows)

    output.emit(
        {"columns": columns, "rows": [[_plain(value) for value in row] for row in answer.rows]},
        json,
        words,
    )


def _plain(value: Any) -> Any:
    """A value as JSON can hold it: bytes as hexadecimal digits, an infinite number as a word."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    return _whole(value) if isinstance(value, str) else value


def _cell(value: Any, none: str) -> str:
    return none if value is None else _printable(str(_plain(value)))


def _whole(text: str) -> str:
    """A text of which UTF-8 can write every character."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _printable(text: str) -> str:
    """A text with nothing that a terminal obeys."""
    return "".join(char if char.isprintable() else "?" for char in _whole(text))
