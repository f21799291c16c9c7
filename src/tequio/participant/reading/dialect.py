"""Finding the dialect of a text table: separator by a sample, quoting by the whole file, header."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from tequio.participant.reading.tables import BadRecord, Dialect, Quoting, records
from tequio.participant.reading.wanted import Wanted

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
SEP_LINE = re.compile(r'"?sep=(.)"?[;,\t|]*\s*', re.IGNORECASE)
SPACED = re.compile(r' +".*"\s*', re.DOTALL)  # a field that is quoted after spaces
SAMPLE_LINES, SAMPLE_CHARS = 200, 1 << 18
Lines = Callable[[], Iterable[str]]


@dataclass(frozen=True)
class Table:
    """Say how a table is written and what its columns are called.

    names: by position; `1`, `2`, ... without a header. first: the line of the header (or of the
    first row without one). even: nearly all rows of the sample have as many fields as the header.
    """

    dialect: Dialect
    names: tuple[str, ...]
    header: bool
    first: int
    even: bool


def find_table(
    lines: Lines, wanted: Wanted, prefer: str, separator: str | None, header: bool | None
) -> Table | None:
    """Find the dialect of a table.

    Args:
        lines: opens the file again at each call.
        wanted: the names and labels to look for.
        prefer: the separator that the file's ending suggests.
        separator: the one that is given, if any.
        header: whether the first line has names, if that is given.

    Returns:
        The table, or None where the file is blank.
    """
    sample, cut = _sample(lines())
    skip = next((place for place, line in enumerate(sample) if line.strip()), len(sample))
    if skip < len(sample) and (mark := SEP_LINE.fullmatch(sample[skip])):
        separator, skip = separator or mark[1], skip + 1
    if not any(line.strip() for line in sample[skip:]):
        return None
    if separator is None:
        order = sorted(SEPARATORS, key=lambda s: (s != prefer, s))
        separator = max(order, key=lambda s: _score(sample, s, skip, cut, wanted))
    plain = Dialect(separator, skip=skip)
    fields = (field for _, row in _rows(sample, plain, cut) for field in row)
    plain = replace(plain, spaces=any(SPACED.fullmatch(field) for field in fields))
    dialect = _quoting(lines, plain, wanted)
    rows = _rows(sample, dialect, cut) or _rows(sample, replace(dialect, quoting="none"), cut)
    return (
        named_table(dialect, rows, wanted, header) if rows else None
    )  # None of nothing but separators


def _sample(lines: Iterable[str]) -> tuple[list[str], bool]:
    """Return the first lines, and whether the file goes on after them."""
    out: list[str] = []
    size = 0
    stream = iter(lines)
    for line in islice(stream, SAMPLE_LINES):
        out.append(line)
        size += len(line)
        if size > SAMPLE_CHARS:
            break
    return out, next(stream, None) is not None


def _rows(sample: Sequence[str], dialect: Dialect, cut: bool) -> list[tuple[int, list[str]]]:
    """Return (line, fields) of the sample's records, up to one that cannot be parsed."""
    out: list[tuple[int, list[str]]] = []
    with suppress(BadRecord):
        out.extend((start, fields) for start, _, fields in records(sample, dialect))
    return out[:-1] if cut and len(out) > 1 else out


def _score(
    sample: Sequence[str], separator: str, skip: int, cut: bool, wanted: Wanted
) -> tuple[int, int, bool, bool, float]:
    """Return how well a separator fits, the better quoting counting; larger is better."""
    options: tuple[Quoting, ...] = ("double", "backslash", "none")
    return max(_fit_of(sample, Dialect(separator, q, skip), cut, wanted) for q in options)


def _fit_of(
    sample: Sequence[str], dialect: Dialect, cut: bool, wanted: Wanted
) -> tuple[int, int, bool, bool, float]:
    rows = [fields for _, fields in _rows(sample, dialect, cut)]
    if not rows:
        return 0, 0, False, False, 0.0
    names = [name.strip() for name in rows[0]]
    width = len(names)
    right = sum(_fits(row, width) for row in rows) / len(rows)
    labelled = bool(wanted.label_columns(rows[1:] or rows)) and width > 1
    known = wanted.known_in(names) if wanted.is_header(names) else 0
    return wanted.given_in(names), known, labelled, right == 1.0 and width > 1, right


def _fits(row: Sequence[str], width: int) -> bool:
    """Return whether a record has this many fields, empty ones at its end aside."""
    return len(row) == width or (len(row) > width and not any(f.strip() for f in row[width:]))


@dataclass
class _Fit:
    """Count how a dialect fits the whole file."""

    width: int = 0
    rows: int = 0
    wrong: int = 0
    spans: int = 0
    unlabelled: int = 0
    fails: float = float("inf")
    backslash: bool = False

    @property
    def clean(self) -> bool:
        return self.fails == float("inf")


def _fit(lines: Lines, dialect: Dialect, wanted: Wanted) -> _Fit:
    fit = _Fit()
    judged = wanted.kind == "classification"

    def watched() -> Iterator[str]:
        for line in lines():
            fit.backslash = fit.backslash or '\\"' in line
            yield line

    try:
        for start, count, fields in records(watched(), dialect):
            fit.width = fit.width or len(fields)
            fit.rows += 1
            fit.spans += count > 1
            if not _fits(fields, fit.width):
                fit.wrong += 1
                fit.fails = min(fit.fails, start)
            if judged and not any(wanted.labels.is_exact(field) for field in fields):
                fit.unlabelled += 1
    except BadRecord as error:
        fit.fails = min(fit.fails, error.line)
    return fit


def _quoting(lines: Lines, plain: Dialect, wanted: Wanted) -> Dialect:
    """Return the dialect with the quoting that fits all of the file."""
    double = _fit(lines, plain, wanted)
    if double.clean and not double.spans:
        return plain
    backslash, none = replace(plain, quoting="backslash"), replace(plain, quoting="none")
    escaped = _fit(lines, backslash, wanted) if double.backslash else _Fit(fails=-1)
    if escaped.clean and (not double.clean or escaped.spans < double.spans):
        return backslash
    ordinary = _fit(lines, none, wanted)
    if ordinary.clean and ordinary.width > 1:
        labelled = wanted.kind == "classification" and ordinary.unlabelled <= double.unlabelled
        if plain.separator == "\t" or not double.clean or labelled:
            return none
    if double.clean:
        return plain
    if ordinary.clean:
        return none
    choices = [(double.fails, plain), (escaped.fails, backslash), (ordinary.fails, none)]
    if plain.separator == "\t":
        choices.reverse()
    return max(choices, key=lambda choice: choice[0])[1]


def named_table(
    dialect: Dialect, rows: Sequence[tuple[int, list[str]]], wanted: Wanted, given: bool | None
) -> Table:
    """Return the table with its names: those of the first row, or numbers where it has no
    header.
    """
    first, fields = rows[0]
    names = tuple(name.strip() for name in fields)
    header = given if given is not None else _has_header(rows, wanted)
    if not header:
        width = max(len(row) for _, row in rows)
        names = tuple(str(number) for number in range(1, width + 1))
    even = sum(_fits(row, len(names)) for _, row in rows[1:]) >= max(1.0, 0.9 * (len(rows) - 1))
    return Table(dialect, names, header, first, even)


def _has_header(rows: Sequence[tuple[int, list[str]]], wanted: Wanted) -> bool:
    """Return whether the first line has names: by usual names, else by where the labels are."""
    first, rest = rows[0][1], [row for _, row in rows[1:]]
    if wanted.is_header(first):
        return True
    labels = wanted.label_columns(rest or [first])
    return not any(i < len(first) and wanted.labels.find(first[i]) is not None for i in labels)
