"""Reading a participant's data: JSONL, CSV, TSV or Parquet rows become examples.

Errors name the file, the participant and the line, and never the content of a row.
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tequio.core.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
Kind = Literal["classification", "causal"]
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


def read_examples(
    path: Path, columns: Columns, kind: Kind, labels: Sequence[str], participant: str
) -> list[Example]:
    """All rows of a file in order; rows with an empty text are kept as empty examples. Raises DataError."""
    rows = _rows(path, participant)
    use = _Use(path, participant, columns, kind, {label.strip(): label for label in labels})
    return [use.example(line, row) for line, row in rows]


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
            return Example(self._text(line, row, c.text), label=self._label(line, row))
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
        return value

    def _label(self, line: int, row: Mapping[str, Any]) -> str:
        column = self.columns.label
        if column not in row:
            raise self._missing(line, row, column)
        value = row[column]
        text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if text in self.labels:
            return self.labels[text]
        folded = {label.casefold() for label in self.labels}
        hint = (
            "It differs from one of them only in upper and lower case. " if text.casefold() in folded else ""
        )
        why = f"{hint}[task] labels allows: {', '.join(self.labels)}."
        raise self._at(
            line,
            "the label is empty or unknown.",
            why,
            "Correct the row, or add the label to federation.toml.",
        )

    def _missing(self, line: int, row: Mapping[str, Any], column: str, or_else: str = "") -> DataError:
        found = [str(key) for key in row]
        near = difflib.get_close_matches(column, found, n=1, cutoff=0.5)
        wanted = f"{column!r}" + (f" (or {or_else})" if or_else else "")
        hint = f"Perhaps {near[0]!r} is meant: " if near else ""
        fix = f"{hint}name the column under [data] in participant.toml."
        return self._at(
            line, f"there is no column {wanted}.", f"Columns found: {', '.join(found) or 'none'}.", fix
        )

    def _at(self, line: int, what: str, why: str = "", fix: str = "") -> DataError:
        return DataError(f"Participant {self.participant}, {self.path}, line {line}: {what}", why, fix)


def read_texts(path: Path) -> list[str]:
    """The column `text` (or `prompt`) of a table, or the lines of any other file; empty ones left out. Raises DataError."""
    if path.suffix.lower() not in SUFFIXES:
        if not path.is_file():
            raise DataError(f"There is no file {path}.", "", "Check the name.")
        return [line.strip() for line in _lines(path, "The texts to predict:") if line.strip()]
    columns, texts = Columns(), []
    for line, row in _rows(path, "of the texts to predict"):
        value = row.get(columns.text, row.get(columns.prompt))
        if not isinstance(value, str):
            raise DataError(
                f"{path}, line {line}: no column 'text'.", f"Columns found: {', '.join(map(str, row))}."
            )
        texts.append(value)
    return [text for text in texts if text.strip()]


def _rows(path: Path, participant: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    who = f"Participant {participant}:"
    if path.is_dir():
        raise DataError(
            f"{who} {path} is a folder.", "Expected a data file.", f"Accepted: {', '.join(SUFFIXES)}."
        )
    if not path.exists():
        raise DataError(f"{who} there is no file {path}.", "", "Correct [data] in its participant.toml.")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{who} {path} has the ending {suffix or '(none)'}.", f"Accepted: {', '.join(SUFFIXES)}."
        )
    if suffix == ".parquet":
        return _parquet(path, who)
    if suffix in (".csv", ".tsv"):
        return _csv(path, who, "\t" if suffix == ".tsv" else ",")
    return _jsonl(path, who)


def _lines(path: Path, who: str) -> Iterator[str]:
    """Lines as text; a byte-order mark is dropped. Raises DataError naming the line that is not UTF-8."""
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, 1):
                try:
                    yield raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    why = f"Line {number}, byte {error.start + 1} of the line."
                    fix = "Convert it, for example: iconv -f LATIN1 -t UTF-8 OLD > NEW"
                    raise DataError(f"{who} {path} is not UTF-8.", why, fix) from None
    except OSError as error:
        raise DataError(f"{who} {path} cannot be read ({error.strerror}).") from None


def _jsonl(path: Path, who: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(_lines(path, who), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            where = f"column {error.colno}" if isinstance(error, json.JSONDecodeError) else "a number"
            raise DataError(f"{who} {path}, line {number}: not valid JSON (at {where}).") from None
        if not isinstance(row, dict):
            fix = 'Each line must be one object, {"text": "...", ...}.'
            raise DataError(f"{who} {path}, line {number}: not a JSON object.", "", fix)
        yield number, row


def _csv(path: Path, who: str, delimiter: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(_lines(path, who), delimiter=delimiter, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise DataError(f"{who} {path} is empty.", "Expected a first line with the column names.")
        names = [name.strip() for name in header]
        for fields in reader:
            if not fields:
                continue
            if len(fields) != len(names):
                why = f"It has {len(fields)} fields, the first line has {len(names)}."
                fix = "Put texts with separators or line ends in double quotes."
                raise DataError(f"{who} {path}, line {reader.line_num}: wrong number of fields.", why, fix)
            yield reader.line_num, dict(zip(names, fields, strict=True))
    except csv.Error as error:
        raise DataError(f"{who} {path}, line {reader.line_num}: not valid CSV ({error}).") from None


def _parquet(path: Path, who: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        fix = 'Install it with: pip install "tequio[parquet]"'
        raise DataError(f"{who} {path} is Parquet,", "which needs the package pyarrow.", fix) from None
    try:
        with parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DataError(f"{who} {path} cannot be read as Parquet ({type(error).__name__}).") from None
