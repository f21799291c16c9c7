"""Rows of text tables (CSV, TSV and their kin) in a known dialect."""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Literal

Quoting = Literal["double", "backslash", "none"]
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Dialect:
    """Say how a table is written.

    quoting: `double` (a quote inside a quoted field is doubled), `backslash` (it has a backslash
    before it) or `none` (a quote is an ordinary character). skip: physical lines before the table.
    spaces: a space stands between a separator and an opening quote.
    """

    separator: str
    quoting: Quoting = "double"
    skip: int = 0
    spaces: bool = False


class BadRecord(Exception):
    """A record cannot be parsed: the line on which it begins, and why without quoting it."""

    def __init__(self, line: int, why: str) -> None:
        self.line, self.why = line, why
        super().__init__(why)


def records(lines: Iterable[str], dialect: Dialect) -> Iterator[tuple[int, int, list[str]]]:
    """Yield (first line, number of lines, fields) of each record that is not blank.

    Raises BadRecord.
    """
    for start, count, fields in _records(islice(lines, dialect.skip, None), dialect):
        if any(fields) and any(field.strip() for field in fields):
            yield start + dialect.skip, count, fields


def _records(lines: Iterator[str], dialect: Dialect) -> Iterator[tuple[int, int, list[str]]]:
    if dialect.quoting == "none":
        for number, line in enumerate(lines, 1):
            yield number, 1, line.rstrip("\r\n").split(dialect.separator)
    elif dialect.quoting == "backslash":
        yield from _escaped(lines, dialect)
    else:
        yield from _doubled(lines, dialect)


def _doubled(lines: Iterator[str], dialect: Dialect) -> Iterator[tuple[int, int, list[str]]]:
    reader = csv.reader(
        lines, delimiter=dialect.separator, strict=True, skipinitialspace=dialect.spaces
    )
    start = 1
    try:
        for fields in reader:
            yield start, reader.line_num + 1 - start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        why = "a quoted field does not end" if "unexpected end" in str(error) else str(error)
        raise BadRecord(start + dialect.skip, why) from None


@lru_cache
def _field(separator: str) -> re.Pattern[str]:
    """Return the pattern of one field and what ends it."""
    mark = re.escape(separator)
    quoted = r'"((?:[^"\\]|\\.|"")*)"'
    return re.compile(rf"(?:{quoted}|([^{mark}\r\n]*))({mark}|\r?\n|\r|\Z)", re.DOTALL)


def _escaped(lines: Iterator[str], dialect: Dialect) -> Iterator[tuple[int, int, list[str]]]:
    field, start, count, record = _field(dialect.separator), 1, 0, ""
    for line in lines:
        record, count = record + line, count + 1
        fields = _fields(record, field, dialect.separator)
        if fields is None and count < 1000:
            continue
        if fields is None:
            break
        yield start, count, fields
        start, count, record = start + count, 0, ""
    if record:
        raise BadRecord(start + dialect.skip, "a quoted field does not end")


def _fields(record: str, field: re.Pattern[str], separator: str) -> list[str] | None:
    """Return the fields of a record; None where a quoted field goes on after it."""
    out: list[str] = []
    place = 0
    while True:
        match = field.match(record, place)
        if match is None or (match[1] is None and match[2].startswith('"')):
            return None
        plain = match[2] if match[1] is None else match[1].replace('""', '"')
        out.append(re.sub(r'\\(["\\])', r"\1", plain))
        place = match.end()
        if match[3] != separator:
            return out
