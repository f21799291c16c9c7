"""Rows of Parquet: only the columns in use, with the names of class labels from the metadata."""

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tequio.core.errors import DataError
from tequio.core.texts.words import refusal
from tequio.participant.reading.streams import Source

MANY_ROWS = 1024
BEYOND = (
    "timestamp",
    "date",
    "time",
    "duration",
    "binary",
    "large_binary",
    "fixed_size_binary",
    "decimal",
)


@dataclass(frozen=True)
class ParquetFile:
    """Hold what a Parquet file says about itself. classes: column -> the names of its class
    labels.
    """

    source: Source
    names: tuple[str, ...]
    simple: tuple[str, ...]
    classes: Mapping[str, tuple[str, ...]]

    def rows(self, columns: Collection[str] | None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield (row, values) of these columns; None: those that can hold texts or labels."""
        chosen = list(self.simple) if columns is None else [n for n in self.names if n in columns]
        number = 0
        with _opened(self.source, chosen) as file:
            for batch in file.iter_batches(batch_size=MANY_ROWS, columns=chosen):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row


def open_parquet(source: Source) -> ParquetFile:
    """Read the schema and metadata.

    Raises DataError where the file is damaged or pyarrow is missing.
    """
    with _opened(source) as file:
        schema = file.schema_arrow
        names = tuple(str(name) for name in schema.names)
        if doubles := [name for name in names if names.count(name) > 1]:
            return ParquetFile(source, names, tuple(n for n in names if n not in doubles), {})
        simple = tuple(n for n in names if not str(schema.field(n).type).startswith(BEYOND))
        return ParquetFile(source, names, simple, _classes(schema.metadata or {}))


@contextmanager
def _opened(source: Source, columns: Collection[str] = ()) -> Iterator[Any]:
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise refusal(DataError, "parquet-package", file=source.at()) from None
    try:
        with parquet.ParquetFile(source.path) as file:
            yield file
    except (OSError, ValueError, KeyError, arrow.ArrowException):
        raise refusal(DataError, "file-cut-off", file=source.at(), format="Parquet") from None


def _classes(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Return the names of class labels, as the library datasets writes them into the schema."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        items = [(n, f["names"]) for n, f in features.items() if f.get("_type") == "ClassLabel"]
        return {
            str(n): tuple(str(c) for c in names) for n, names in items if isinstance(names, list)
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
