"""Reading a participant's data: JSONL, CSV, TSV or Parquet rows become examples.

Errors name the file, the participant and the line, and never the content of a row.
"""

from __future__ import annotations

import csv
import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tequio.core.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
Kind = Literal["classification", "causal"]
SURROGATE = re.compile("[\ud800-\udfff]")
NAME = re.compile(r"[^\W\d][\w.-]{0,39}")
csv.field_size_limit(2**31 - 1)


@dataclass(frozen=True)
class Example:
    """One row: a text (or a prompt), with its label or its response."""

    text: str
    label: str | None = None
    response: str | None = None


@dataclass(frozen=True)
class Columns:
    """What the columns are called in the file."""

    text: str = "text"
    label: str = "label"
    prompt: str = "prompt"
    response: str = "response"


def _who(reader: str) -> str:
    """Whose file it is, in words: a participant's, or that of a section of federation.toml."""
    return reader if reader.startswith("[") else f"Participant {reader}"


def read_examples(path: Path, columns: Columns, kind: Kind, labels: Sequence[str], participant: str) -> list[Example]:
    """All rows of a file in order. A row with an empty text is kept, as an empty example, so that it can be counted.

    Raises DataError naming the participant, the file and the line.
    """
    use = _Use(path, participant, columns, kind, {label.strip(): label for label in labels})
    return [use.example(line, row) for line, row in _rows(path, f"{_who(participant)}:")]


@dataclass(frozen=True)
class _Use:
    """How rows of one file become examples."""

    path: Path
    participant: str
    columns: Columns
    kind: Kind
    labels: Mapping[str, str]

    def example(self, line: int, row: Mapping[str, Any]) -> Example:
        c = self.columns
        if self.kind == "classification":
            text = self._text(line, row, c.text)
            if text.strip():
                return Example(text, label=self._label(line, row))
            return Example("", label=self.labels.get(str(row.get(c.label)).strip()))
        if c.prompt in row and c.response in row and c.text not in row:
            response = self._text(line, row, c.response)
            prompt = self._text(line, row, c.prompt)
            return Example(prompt if response.strip() else "", response=response)
        return Example(self._text(line, row, c.text, or_else=f"{c.prompt!r} and {c.response!r}"))

    def _text(self, line: int, row: Mapping[str, Any], column: str, or_else: str = "") -> str:
        if column not in row:
            raise self._missing(line, row, column, or_else)
        value = row[column]
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._at(line, f"column {column!r} holds {type(value).__name__}, expected text.")
        if fault := _fault(value):
            raise self._at(line, f"column {column!r} holds {fault}.", "", "Remove it from the row.")
        return value

    def _label(self, line: int, row: Mapping[str, Any]) -> str:
        column = self.columns.label
        if column not in row:
            raise self._missing(line, row, column)
        value = row[column]
        text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if text in self.labels:
            return self.labels[text]
        near = _folded(text) in {_folded(label) for label in self.labels}
        hint = "It differs from one of them only in case or spaces. " if near else ""
        why = f"{hint}[task] labels allows: {', '.join(self.labels)}."
        fix = "Correct the row, or add the label to federation.toml."
        raise self._at(line, "the label is empty or unknown.", why, fix)

    def _missing(self, line: int, row: Mapping[str, Any], column: str, or_else: str = "") -> DataError:
        table = self.path.suffix.lower() not in (".jsonl", ".ndjson")
        found, shown = _found(row, self.labels if table else ())
        near = difflib.get_close_matches(column, shown, n=1, cutoff=0.5)
        wanted = f"{column!r}" + (f" (or {or_else})" if or_else else "")
        hint = f"Perhaps {near[0]!r} is meant: name" if near else "Name"
        fix = f"{hint} the column under [data] in participant.toml."
        return self._at(None if table else line, f"there is no column {wanted}.", found, fix)

    def _at(self, line: int | None, what: str, why: str = "", fix: str = "") -> DataError:
        place = "" if line is None else f", line {line}"
        return DataError(f"{_who(self.participant)}, {self.path}{place}: {what}", why, fix)


def _found(names: Iterable[str], labels: Iterable[str]) -> tuple[str, list[str]]:
    """The columns found, in words and as a list, without those that may be data.

    A table without a header has a sample as its first line: nothing of a line that holds a label is shown,
    and of any other only what looks like a name (one word).
    """
    names, hide = list(names), set(labels)
    if any(name.strip() in hide for name in names):
        why = f"The first line has {len(names)} fields and one is a label, so it seems to be data."
        return f"{why} Expected the column names there.", []
    shown = [name for name in names if NAME.fullmatch(name)]
    hidden = len(names) - len(shown)
    more = f" (and {hidden} not shown, which may be data: they are not one word)" if hidden else ""
    return f"Columns found: {', '.join(shown) or 'none'}{more}.", shown


def _folded(label: str) -> str:
    return "".join(label.casefold().split())


def _fault(text: str) -> str:
    """What makes a text unusable for a tokenizer, in words; empty if nothing."""
    if "\0" in text:
        return "a NUL character"
    return "half of a surrogate pair, which is no character" if SURROGATE.search(text) else ""


def read_texts(path: Path, columns: Sequence[str] = ("text", "prompt")) -> list[str | None]:
    """Read one text per row: of a table the first of `columns` that it has, of any other file its lines. An empty one is None.

    Raises DataError where no row has such a column, or a value is no text.
    """
    who = "Texts to predict:"
    if path.suffix.lower() not in SUFFIXES:
        _check_file(path, who)
        return [line.strip() or None for line in _lines(path, who)]
    rows = list(_rows(path, who))
    wanted = next((name for name in columns if any(name in row for _, row in rows)), None)
    if wanted is None:
        named = " or ".join(map(repr, dict.fromkeys(columns)))
        first, found = rows[0] if rows else (1, {})
        what = f"{who} {path}, line {first}: no text in a column {named}."
        raise DataError(what, _found(found, ())[0], "Name the column: --column NAME")
    texts: list[str | None] = []
    for line, row in rows:
        wanted = next((name for name in columns if row.get(name) is not None), wanted)
        value = row.get(wanted)
        if value is not None and not isinstance(value, str):
            what = f"{who} {path}, line {line}: column {wanted!r} holds {type(value).__name__}, expected text."
            raise DataError(what, "", "Name another column: --column NAME")
        if value is not None and (fault := _fault(value)):
            raise DataError(f"{who} {path}, line {line}: the text holds {fault}.", "", "Remove it.")
        texts.append(value if value is not None and value.strip() else None)
    return texts


def _check_file(path: Path, who: str) -> None:
    try:
        if path.is_dir():
            accepted = f"Accepted: {', '.join(SUFFIXES)}."
            raise DataError(f"{who} {path} is a folder.", "Expected a data file.", accepted)
        if not path.exists():
            raise DataError(f"{who} there is no file {path}.", "", "Correct the path, for participants under [data].")
    except OSError as error:
        raise DataError(f"{who} {path} cannot be read ({error.strerror}).") from None


def _rows(path: Path, who: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    _check_file(path, who)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{who} {path} has the ending {suffix or '(none)'}.", f"Accepted: {', '.join(SUFFIXES)}.")
    if suffix == ".parquet":
        return _parquet(path, who)
    if suffix in (".csv", ".tsv"):
        return _csv(path, who, "\t" if suffix == ".tsv" else ",")
    return _jsonl(path, who)


def _lines(path: Path, who: str) -> Iterator[str]:
    """Lines as text; a byte-order mark is dropped. Raises DataError naming the line that is not UTF-8 or holds NUL."""
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, 1):
                if b"\0" in raw:
                    why = "It is damaged, or UTF-16."
                    fix = "If it is UTF-16, convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW"
                    raise DataError(f"{who} {path}, line {number}: a NUL byte.", why, fix)
                yield _decoded(raw, number, f"{who} {path}")
    except OSError as error:
        raise DataError(f"{who} {path} cannot be read ({error.strerror}).") from None


def _decoded(raw: bytes, number: int, where: str) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        why = f"Line {number}, byte {error.start + 1} of the line."
        fix = "Convert it, for example: iconv -f LATIN1 -t UTF-8 OLD > NEW"
        raise DataError(f"{where} is not UTF-8.", why, fix) from None
    return text.removeprefix("\ufeff") if number == 1 else text


def _jsonl(path: Path, who: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(_lines(path, who), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            where = f"column {error.colno}" if isinstance(error, json.JSONDecodeError) else "a number or the nesting"
            raise DataError(f"{who} {path}, line {number}: not valid JSON (at {where}).") from None
        if not isinstance(row, dict):
            fix = 'Each line must be one object, {"text": "...", ...}.'
            raise DataError(f"{who} {path}, line {number}: not a JSON object.", "", fix)
        yield number, row


def _csv(path: Path, who: str, delimiter: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows with the line on which each starts."""
    reader = csv.reader(_lines(path, who), delimiter=delimiter, strict=True)
    start = 1
    try:
        names = [name.strip() for name in next(reader, [])]
        if not names:
            raise DataError(f"{who} {path}, line 1: empty.", "Expected a first line with the column names.")
        if len(set(names)) < len(names):
            raise DataError(f"{who} {path}, line 1: two columns have the same name.", "", "Rename one.")
        start = reader.line_num + 1
        for fields in reader:
            if fields and len(fields) != len(names):
                why = f"It has {len(fields)} fields, the first line has {len(names)}."
                fix = "Put texts with separators or line ends in double quotes."
                raise DataError(f"{who} {path}, line {start}: wrong number of fields.", why, fix)
            if fields:
                yield start, dict(zip(names, fields, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{who} {path}, line {start}: not valid CSV ({error}).") from None


def _parquet(path: Path, who: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows with their number, counted from 1."""
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        fix = 'Install it with: pip install "tequio[parquet]"'
        raise DataError(f"{who} {path} is Parquet,", "which needs the package pyarrow.", fix) from None
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise DataError(f"{who} {path} cannot be read as Parquet ({type(error).__name__}).") from None
