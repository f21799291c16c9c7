"""The hash chain as pure functions: what a record is, how it is hashed, how a stored row is
read back.

hash = SHA-256 of the canonical JSON of {"seq", "kind", "body", "previous"}; the first `previous` is
64 zeros.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tequio.core.canonical import canonical_json, digest_json
from tequio.core.errors import LedgerError
from tequio.core.texts.words import refusal

ZEROS = "0" * 64
STATE_DIGEST = "state_digest"
VERSION = "record_version"
RECORD_VERSION = 2
"""Of the bodies written here. 1: bodies without this key, and a header with the whole
configuration.
"""
KIND = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True)
class Entry:
    """One record: its place, kind and JSON body, the hash of the one before, and its own hash (64
    hex).
    """

    seq: int
    kind: str
    body: Mapping[str, Any]
    previous: str
    hash: str


def link(seq: int, kind: str, body: Mapping[str, Any], previous: str) -> Entry:
    """The entry that follows the one whose hash is `previous`."""
    sealed = {"seq": seq, "kind": kind, "body": body, "previous": previous}
    return Entry(seq, kind, body, previous, digest_json(sealed))


def plain_body(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """`body` as plain JSON values, with the version of records.

    Raises LedgerError naming the kind and the path of the key that is not.
    """
    if not KIND.fullmatch(kind):
        raise refusal(LedgerError, "record-kind", record=kind)
    if STATE_DIGEST in body or not isinstance(
        body.get(VERSION, 1), int
    ):  # a copied body has one, which is replaced
        key = STATE_DIGEST if STATE_DIGEST in body else VERSION
        raise refusal(LedgerError, "record-key-reserved", record=kind, key=key)
    try:
        plain: dict[str, Any] = _plain(kind, "", body)
    except RecursionError:
        raise refusal(LedgerError, "record-too-deep", record=kind) from None
    return plain | {VERSION: RECORD_VERSION}


def version_of(body: Mapping[str, Any]) -> int:
    """Return the version of a record's body; 1 for one that states none."""
    stated = body.get(VERSION, 1)
    return stated if isinstance(stated, int) else 1


def _plain(kind: str, where: str, value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _checked_text(kind, where, value)
    if isinstance(value, int):
        return _checked_int(kind, where, int(value))
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refused(kind, where, str(float(value)))
        return float(value)
    if isinstance(value, list | tuple):
        return [_plain(kind, f"{where}[{i}]", item) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        return _plain_mapping(kind, where, value)
    raise _refused(kind, where, type(value).__name__)


def _plain_mapping(kind: str, where: str, value: Mapping[Any, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise _refused(kind, where, f"{type(key).__name__}: …")
        key = _checked_text(kind, where, key)
        plain[key] = _plain(kind, f"{where}.{key}" if where else key, item)
    return plain


def _checked_text(kind: str, where: str, value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise _refused(kind, where, "U+D800 – U+DFFF") from None
    return str(value)


def _checked_int(kind: str, where: str, value: int) -> int:
    if (
        value.bit_length() > 4096
    ):  # beyond Python's limit of decimal digits it could not be read back
        raise _refused(kind, where, f"int, {value.bit_length()} bit")
    return value


def _refused(kind: str, where: str, found: str) -> LedgerError:
    return refusal(LedgerError, "record-not-json", record=kind, key=where or None, found=found)


def read_row(row: tuple[Any, ...]) -> tuple[Entry, str]:
    """A stored row as the entry it claims to be, and what is wrong with it ("" when nothing is).

    Raises ValueError when the row is so damaged that no entry can be made of it.
    """
    seq, kind, body, previous, stored = row
    if not all(isinstance(value, str) for value in (kind, body, previous, stored)):
        raise ValueError("a column does not hold text")
    try:
        value = json.loads(body)
        entry = link(seq, kind, value, previous)
        canonical = canonical_json(value).decode("utf-8") == body
    except (ValueError, RecursionError):
        raise ValueError("it is not canonical JSON") from None
    if not isinstance(value, dict):
        raise ValueError("the body is not a JSON object")
    if entry.hash != stored:
        return Entry(seq, kind, value, previous, stored), "the content does not match its hash"
    return entry, "" if canonical else "it is not canonical JSON"
