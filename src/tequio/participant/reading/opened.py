"""Opening one file: its format by content and ending, and one way to read the rows of each."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tequio.core.errors import DataError
from tequio.core.texts.words import refusal
from tequio.participant.reading.dialect import SEPARATORS, Table, find_table, named_table
from tequio.participant.reading.examples import Form, Options
from tequio.participant.reading.json_rows import json_array, json_lines
from tequio.participant.reading.parquet import open_parquet
from tequio.participant.reading.sources import PACKED, PLAIN, SUFFIXES, ending
from tequio.participant.reading.streams import Source, Text, readable, text_of
from tequio.participant.reading.tables import BadRecord, Dialect, records
from tequio.participant.reading.wanted import Wanted
from tequio.participant.reading.xlsx import Workbook, open_workbook

Row = tuple[int, Mapping[str, Any]]
OLD_EXCEL = b"\xd0\xcf\x11\xe0"
SAMPLE = 100
JSON = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True)
class Opened:
    """Hold a file whose format is known.

    names: its columns in order, without unnamed ones; empty for JSON. unnamed: how many columns
    have no name. genuine: the format itself names columns, so that a name is no data. shown: its
    names may be in a message, if one of them is a usual or wanted one. unit: what a place in it is
    called. read: gives the rows, with at least these columns.
    """

    source: Source
    form: Form
    names: tuple[str, ...]
    genuine: bool
    unit: str
    read: Callable[[Collection[str] | None], Iterator[Row]]
    unnamed: int = 0
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    shown: bool = True

    def sample(self) -> list[Mapping[str, Any]]:
        """Return the first rows."""
        return [row for _, row in islice(self.read(None), SAMPLE)]

    @property
    def fixed(self) -> bool:
        """Return whether every row has the same columns."""
        return not self.form.format.startswith("JSON")


def open_file(source: Source, wanted: Wanted, options: Options) -> Opened:
    """Find out what a file is.

    Raises DataError where it cannot be read or is of no known format.
    """
    with readable(source) as stream:
        head = stream.read(4096)
    suffix = ending(source.path)
    if head.startswith(b"PAR1"):
        return _parquet(source, suffix)
    if head.startswith(b"PK\x03\x04"):
        return _xlsx(source, suffix, wanted, options)
    if suffix in (".parquet", ".xlsx"):
        name = "Parquet" if suffix == ".parquet" else "Excel"
        raise refusal(DataError, "file-cut-off", file=source.at(), format=name)
    if head.startswith(OLD_EXCEL):
        raise refusal(DataError, "old-excel", file=source.at())
    if suffix not in (*SUFFIXES, *PLAIN, ""):
        raise _unknown(source, suffix)
    text = text_of(source, options.encoding)
    first = _first_sign(text)
    if first in ("{", "[") and (suffix in JSON or _parses(text, first)):
        return _json(text, first)
    if suffix in JSON and not first:
        return _json(text, first)
    return _table(text, suffix, wanted, options)


def _unknown(source: Source, suffix: str) -> Exception:
    return refusal(
        DataError,
        "ending-unknown",
        file=source.at(),
        ending=suffix or "–",
        names=[*SUFFIXES, *PACKED],
    )


def _first_sign(text: Text) -> str:
    """Return the first character that is no white space; empty for a blank file."""
    for piece in text.chunks():
        if rest := piece.lstrip():
            return rest[0]
    return ""


def _parses(text: Text, first: str) -> bool:
    """Return whether a file that begins like JSON gives at least one object."""
    try:
        return next(json_array(text) if first == "[" else json_lines(text), None) is not None
    except DataError:
        return False


def _json(text: Text, first: str) -> Opened:
    form = Form(
        "JSON array" if first == "[" else "JSON lines",
        text.compression,
        text.encoding,
        notes=text.notes,
    )

    read, unit = (json_array, "row") if first == "[" else (json_lines, "line")
    return Opened(text.source, form, (), False, unit, lambda columns: read(text))


def _parquet(source: Source, suffix: str) -> Opened:
    file = open_parquet(source)
    return Opened(source, Form("Parquet"), file.names, True, "row", file.rows, classes=file.classes)


def _table(text: Text, suffix: str, wanted: Wanted, options: Options) -> Opened:
    source = text.source
    prefer = "\t" if suffix in (".tsv", ".tab") else ","
    table = find_table(text.lines, wanted, prefer, options.delimiter, options.header)
    if table is None:
        raise refusal(DataError, "table-empty", file=source.at())
    plain = suffix not in (".csv", ".tsv", ".tab")
    if plain and not wanted.is_header(table.names) and table.header and options.header is None:
        if suffix in JSON:
            raise refusal(DataError, "not-json-at-all", file=source.at("line 1"))
        raise _unknown(source, suffix)
    name = {"\t": "TSV"}.get(table.dialect.separator, "CSV")
    form = Form(
        name,
        text.compression,
        text.encoding,
        SEPARATORS.get(table.dialect.separator, table.dialect.separator),
        table.dialect.quoting,
        table.header,
        text.notes,
    )

    def fields() -> Iterator[tuple[int, Sequence[Any]]]:
        try:
            for start, _, row in records(text.lines(), table.dialect):
                yield start, row
        except BadRecord as error:
            raise refusal(
                DataError, "csv-invalid", file=source.at(f"line {error.line}"), why=error.why
            ) from None

    return _tabular(source, form, table, fields, "line")


def _tabular(
    source: Source,
    form: Form,
    table: Table,
    fields: Callable[[], Iterator[tuple[int, Sequence[Any]]]],
    unit: str,
) -> Opened:
    """Return rows of fields as rows with names; columns without a name are left out."""
    width = len(table.names)
    where = [(i, name) for i, name in enumerate(table.names) if name]

    def read(columns: Collection[str] | None) -> Iterator[Row]:
        rows = fields()
        if table.header:
            next(rows, None)
        for line, row in rows:
            if len(row) != width:
                row = _evened(source, row, width, f"{unit} {line}")
            yield line, {name: row[i] for i, name in where}

    names = tuple(name for _, name in where)
    return Opened(
        source,
        form,
        names,
        False,
        unit,
        read,
        width - len(names),
        shown=table.even and table.header,
    )


def _evened(source: Source, row: Sequence[Any], width: int, where: str) -> Sequence[Any]:
    """Return a row of the header's width, if only empty fields are beyond it. Raises DataError."""
    if len(row) > width and not any(v is not None and str(v).strip() for v in row[width:]):
        return row[:width]
    raise refusal(
        DataError, "csv-other-width", file=source.at(where), found=len(row), expected=width
    )


def _xlsx(source: Source, suffix: str, wanted: Wanted, options: Options) -> Opened:
    if suffix != ".xlsx":
        if suffix in ("", ".zip") or suffix in SUFFIXES:
            raise refusal(DataError, "file-is-an-archive", file=source.at())
        raise _unknown(source, suffix)
    book = open_workbook(source)
    table, width = _sheet_table(book, wanted, options)

    def fields() -> Iterator[tuple[int, Sequence[Any]]]:
        for number, row in book.rows():
            yield number, [*row, *[None] * (width - len(row))]

    others = book.sheets - 1
    note = (f"The workbook has {book.sheets} sheets; only the first was read.",) if others else ()
    return _tabular(source, Form("Excel", header=table.header, notes=note), table, fields, "row")


def _sheet_table(book: Workbook, wanted: Wanted, options: Options) -> tuple[Table, int]:
    rows = [
        (number, ["" if value is None else str(value) for value in row])
        for number, row in islice(book.rows(), SAMPLE)
    ]
    if not rows:
        raise refusal(DataError, "table-empty", file=book.source.at())
    table = named_table(Dialect(","), rows, wanted, options.header)
    return table, len(table.names)
