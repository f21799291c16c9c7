"""Data that come from Python, as the bytes of ordinary JSONL files: pairs, texts, dicts, and tables
of pandas and its like.

No library of tables is imported: each is known by the methods that it offers.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from tequio.core.errors import DataError
from tequio.core.texts.words import refusal

Kind = Literal["classification", "causal"]
PAIRS: Mapping[Kind, tuple[str, str]] = {
    "classification": ("text", "label"),
    "causal": ("prompt", "response"),
}  # what the two values of a pair are


def jsonl(source: object, kind: Kind | None, name: str) -> bytes:
    """Return rows as the bytes of a JSONL file.

    Args:
        source: (text, label) or (prompt, response) pairs, texts, dicts, a frame of pandas or
            polars,
            a pyarrow.Table, or a datasets.Dataset.
        kind: of the task, which says what a pair means. None: not known yet, and a pair is (text,
            label).
        name: of the participant, for messages.

    Raises:
        DataError: a row cannot be used, or a value cannot be written; the message has no value.
    """
    lines = []
    for number, row in enumerate(_rows(source, name), 1):
        table = _table(row, kind)
        if table is None:
            raise refusal(DataError, "python-row-unusable", name=name, row=number)
        lines.append(_line(table, name, number))
    return b"".join(lines)


def _rows(source: object, name: str) -> Iterator[Any]:
    """Yield the rows of whatever it is, by the methods that it has."""
    found: Any = source
    features = getattr(source, "features", None)
    if isinstance(
        features, Mapping
    ):  # a datasets.Dataset: classes are numbers there, with names beside them
        yield from (_named(row, features) for row in found)
        return
    for method in ("to_pylist", "to_dicts"):  # pyarrow, polars
        if callable(getattr(source, method, None)):
            yield from getattr(source, method)()
            return
    if hasattr(source, "columns") and callable(getattr(source, "to_dict", None)):  # pandas
        yield from found.to_dict("records")
        return
    if isinstance(source, str | bytes | Mapping) or not isinstance(source, Iterable):
        raise refusal(DataError, "python-data-unknown", name=name, type=type(source).__name__)
    yield from source


def _named(row: Mapping[str, Any], features: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a datasets.Dataset with the names of its classes in place of their
    numbers.
    """
    out = dict(row)
    for key, feature in features.items():
        if callable(to_name := getattr(feature, "int2str", None)) and isinstance(out.get(key), int):
            out[key] = None if out[key] < 0 else to_name(out[key])  # -1: no class is given
    return out


def _table(row: Any, kind: Kind | None) -> dict[str, Any] | None:
    if isinstance(row, Mapping):
        return {str(key): value for key, value in row.items()}
    if isinstance(row, str):
        return None if kind == "classification" else {"text": row}
    pair = isinstance(row, tuple | list) and len(row) == 2 and isinstance(row[0], str)
    return dict(zip(PAIRS[kind or "classification"], row, strict=True)) if pair else None


def _line(table: Mapping[str, Any], name: str, number: int) -> bytes:
    held = {key: value for key, value in table.items() if not _missing(value)}
    try:
        return (
            json.dumps(held, ensure_ascii=False, allow_nan=False, default=_plain).encode() + b"\n"
        )
    except (TypeError, ValueError):
        raise refusal(DataError, "python-value-unusable", name=name, row=number) from None


def _missing(value: object) -> bool:
    """Whether it stands for nothing, as NaN does in a frame."""
    return value is None or (isinstance(value, float) and value != value)


def _plain(value: object) -> Any:
    """Return a scalar or an array of numpy as plain Python. Raises TypeError for anything else."""
    to_list = getattr(value, "tolist", None)
    if not callable(to_list):
        raise TypeError(type(value).__name__)
    return to_list()
