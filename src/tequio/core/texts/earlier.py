"""Reasons of records, plans and messages of any version: a code with facts, or a sentence of a
version before codes.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from tequio.core.bounds import LARGEST
from tequio.core.reason import Reason

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?")  # as JSON writes it
KEYS = {
    "energy": "kwh",
    "carbon": "kg_co2e",
    "time": "hours",
    "bytes": "megabytes",
}  # of budgets, in sentences
LISTS = {
    "keys": ", ",
    "cut": "; ",
}  # parts of sentences that list several facts, and what is between these
QUOTED = "quoted"  # a sentence that no version wrote, or that quotes another program
SENTENCES: dict[str, re.Pattern[str]] = {
    code: re.compile(pattern, re.DOTALL | re.ASCII)
    for code, pattern in tomllib.loads(
        files("tequio.core.texts").joinpath("earlier.toml").read_text(encoding="utf-8")
    ).items()
}


def read_reason(value: object) -> Reason | None:
    """Return the reason in a record, of whichever version; None where there is none.

    A sentence that is not known is quoted as it was written.
    """
    if value is None or value == "" or isinstance(value, Reason):
        return value or None  # type: ignore[return-value]
    if (
        isinstance(value, Mapping)
        and isinstance(value.get("code"), str)
        and isinstance(value.get("facts"), Mapping)
    ):
        return Reason(value["code"], value["facts"])
    return _sentence(str(value)) or Reason(QUOTED, {"words": str(value)})


def read_record(value: object) -> dict[str, Any] | None:
    """Return the reason in a record in the form of today's records."""
    found = read_reason(value)
    return None if found is None else found.as_record()


def _sentence(text: str) -> Reason | None:
    """Return the reason that a sentence of an earlier version stands for."""
    for code, pattern in SENTENCES.items():
        if found := pattern.fullmatch(text):
            return Reason(
                code, {name: _fact(name, part) for name, part in found.groupdict().items()}
            )
    return None


def _fact(name: str, text: str) -> Any:
    """Return a part of a sentence as the fact that it was: a list, a number, a reason, or words."""
    if name in LISTS:
        return [_fact("", part) for part in text.split(LISTS[name])]
    if NUMBER.fullmatch(text):
        number = float(text)
        return (
            json.loads(text) if abs(number) <= LARGEST else text
        )  # no record holds a larger one, nor an infinite one
    inner = _sentence(text)
    return KEYS.get(text, text) if inner is None else inner.as_record()
