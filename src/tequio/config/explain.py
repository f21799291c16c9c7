"""What is wrong with a value of a configuration file, in words: key, what was expected, what was got, what to do.

Nothing of the validator's own wording is passed on; what it finds that is not known here is said in general words.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from datetime import date, time
from typing import Any

from pydantic import BaseModel

from tequio.config.other_names import other_name
from tequio.config.reference import model_schema, table_of

EXPECTED = {
    "model_type": "expected a table",
    "dict_type": "expected a table",
    "list_type": "expected a list",
    "path_type": "expected a path, as text",
    "string_type": "expected text",
    "string_too_short": "expected text that is not empty",
    "int_type": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "finite_number": "expected a finite number",
    "string_pattern_mismatch": "expected a name: at most 64 of a-z A-Z 0-9 _ . -, a letter or digit first",
    "greater_than": "expected a number above {gt:g}",
    "greater_than_equal": "expected {ge:g} or more",
    "less_than": "expected a number below {lt:g}",
    "less_than_equal": "expected {le:g} or less",
    "literal_error": "expected {expected}",
    "too_short": "expected a list of {min_length} or more",
    "too_long": "expected a list of {max_length} or fewer",
}
ODD = "this value has no meaning here"
SHOWN = 60  # letters of a value
SURE, NEAR = 0.85, 0.6  # ratios of difflib: a slip of the pen; a name that may be meant


def explain(
    error: Mapping[str, Any], model: type[BaseModel], elsewhere: Mapping[str, Collection[str]] | None = None
) -> str:
    """One fault that the validator found in a file of sections like `model`, as a sentence. elsewhere: other file -> keys only it has."""
    loc = tuple(part for part in error["loc"] if part != "[key]")
    where, kind = ".".join(map(str, loc)), str(error["type"])
    if kind == "extra_forbidden":
        for file, keys in (elsewhere or {}).items():
            if loc[-1] in keys and (len(loc) == 1 or loc[0] == "participants"):
                return f"{where!r} belongs into {file}, not into this file."
        return _unknown(where, loc, error.get("input"), model)
    if kind == "missing":
        return f"the key {where!r} is missing."
    context, value = error.get("ctx") or {}, error.get("input")
    if kind == "value_error":  # of our own validators
        words = str(context["error"])
        got = f" (got {_shown(value)})" if isinstance(value, str | int | float) else ""
    else:
        words = EXPECTED[kind].format(**context) if kind in EXPECTED else ODD
        got = f" (got {_shown(value)}){_hint(kind, value, where, context)}"
    return f"{where + ': ' if where else ''}{words}{got}."


def _unknown(where: str, loc: tuple[Any, ...], value: Any, model: type[BaseModel]) -> str:
    """What is said of a key that is not known: another library's name, a key of another table, a slip of the pen, or none of these."""
    name, known = str(loc[-1]), _keys_at(model, loc[:-1])
    plain = {key.lower(): key for key in known}
    near = difflib.get_close_matches(name.lower(), list(plain), n=1, cutoff=SURE)
    meant = other_name(name, isinstance(value, Mapping))
    if meant is not None and not near:
        key, note = meant
        own = key.rpartition(".")[2] if key.rpartition(".")[2] in known and key.count(".") == len(loc) - 1 else key
        what = f"; {note}" if note else ""
        return f"unknown key {where!r}: here it is called {own!r}{what}."
    if not near:
        near = difflib.get_close_matches(name.lower(), list(plain), n=1, cutoff=NEAR)
    if near:
        return f"unknown key {where!r}, did you mean {plain[near[0]]!r}? Known here: {', '.join(known)}."
    tables = [
        table
        for table in model.model_fields
        if name in _keys_at(model, (table,)) and _keys_at(model, (table,)) != known
    ]
    if tables and not isinstance(value, Mapping):
        return f"{where!r} belongs into the table [{tables[0]}]."
    return f"unknown key {where!r}. Known here: {', '.join(known)}."


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}…")
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    return str(value) if isinstance(value, int | float | date | time) else "something else"


def _hint(kind: str, value: Any, where: str, context: Mapping[str, Any]) -> str:
    """What to do, where it is plain."""
    if kind in ("int_type", "float_type") and isinstance(value, str) and re.fullmatch(r"[+-]?\d+,\d+", value.strip()):
        return f": write it without quotes and with a point: {value.strip().replace(',', '.')}"
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str):
        return ": write it without quotes"
    if kind in ("string_type", "path_type") and isinstance(value, int | float | date | time):
        return ": write it in quotes"
    if kind == "int_type" and isinstance(value, float):
        return ": write it without a point"
    if kind == "list_type":
        return f": write [[{where}]] for each" if isinstance(value, Mapping) else ": write it in brackets: [ … ]"
    if kind in ("model_type", "dict_type"):
        tables = isinstance(value, list) and any(isinstance(each, Mapping) for each in value)
        return (
            f": write [{where}] once, in single brackets" if tables else ": write it as { key = value } or as [table]"
        )
    if kind == "literal_error" and isinstance(value, str):
        choices = str(context.get("expected")).split("'")[1::2]
        near = difflib.get_close_matches(value, choices, n=1)
        return f", did you mean {near[0]!r}?" if near else ""
    return ""


def _keys_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Known keys of the table at `loc`, following nested sections and lists of sections."""
    part = whole = model_schema(model)
    for name in (part for part in loc if not isinstance(part, int)):
        part = table_of(whole, part.get("properties", {}).get(name, {}))
    return list(part.get("properties", {}))
