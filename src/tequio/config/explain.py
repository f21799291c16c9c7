"""What is wrong with a value of a configuration file, in words: key, what was expected, what was
got, what to do.

Nothing of the validator's own wording is passed on; what it finds that is not known here is said in
general words.
"""

import difflib
import re
from collections.abc import Collection, Mapping
from datetime import date, time
from typing import Any

from pydantic import BaseModel

from tequio.config.fields import Unfit
from tequio.config.other_names import other_name
from tequio.config.reference import model_schema, table_of
from tequio.core.reason import Reason
from tequio.core.texts.words import needed_facts

EXPECTED = {
    "model_type": "expected-table",
    "dict_type": "expected-table",
    "list_type": "expected-list",
    "path_type": "expected-path",
    "string_type": "expected-text",
    "string_too_short": "expected-some-text",
    "int_type": "expected-whole",
    "float_type": "expected-number",
    "bool_type": "expected-truth",
    "finite_number": "expected-finite",
    "string_pattern_mismatch": "expected-name",
    "greater_than": "expected-above",
    "greater_than_equal": "expected-from",
    "less_than": "expected-below",
    "less_than_equal": "expected-to",
    "literal_error": "expected-one-of",
    "too_short": "expected-longer",
    "too_long": "expected-shorter",
}
SHOWN = 60  # letters of a value
SURE, NEAR = 0.85, 0.6  # ratios of difflib: a slip of the pen; a name that may be meant


def explain(
    error: Mapping[str, Any],
    model: type[BaseModel],
    elsewhere: Mapping[str, Collection[str]] | None = None,
) -> Reason:
    """Return one fault that the validator found in a file of sections like `model`. elsewhere:
    other file -> keys only it has.
    """
    loc = tuple(part for part in error["loc"] if part != "[key]")
    where, kind = ".".join(map(str, loc)), str(error["type"])
    if kind == "extra_forbidden":
        for file, keys in (elsewhere or {}).items():
            if loc[-1] in keys and (len(loc) == 1 or loc[0] == "participants"):
                return Reason("key-of-other-file", {"key": where, "file": file})
        return _unknown(where, loc, error.get("input"), model)
    if kind == "missing":
        return Reason("key-absent", {"key": where})
    context, value = error.get("ctx") or {}, error.get("input")
    code, odd = EXPECTED.get(kind, "expected-other"), context.get("error")
    why = Reason(code, {name: context[name] for name in needed_facts(code)})
    if kind == "value_error":  # of our own validators
        why = odd.reason if isinstance(odd, Unfit) else Reason("in-words", {"words": str(odd)})
    facts = {"why": why.as_record()} | ({"key": where} if where else {})
    if not where or (kind == "value_error" and not isinstance(value, str | int | float)):
        return Reason("fault" if where else "fault-whole", facts)
    hint = None if kind == "value_error" else _hint(kind, value, where, context)
    facts |= {"got": _shown(value)} | ({} if hint is None else {"hint": hint.as_record()})
    return Reason("fault-got" if hint is None else "fault-got-hint", facts)


def _unknown(where: str, loc: tuple[Any, ...], value: Any, model: type[BaseModel]) -> Reason:
    """What is said of a key that is not known: another library's name, a key of another table, a
    slip of the pen, or none of these.
    """
    name, known = str(loc[-1]), _keys_at(model, loc[:-1])
    plain = {key.lower(): key for key in known}
    near = difflib.get_close_matches(name.lower(), list(plain), n=1, cutoff=SURE)
    meant = other_name(name, isinstance(value, Mapping))
    if meant is not None and not near:
        key, note = meant
        own = (
            key.rpartition(".")[2]
            if key.rpartition(".")[2] in known and key.count(".") == len(loc) - 1
            else key
        )
        facts = {"key": where, "own_key": own} | ({"note": note} if note else {})
        return Reason("key-foreign-noted" if note else "key-foreign", facts)
    if not near:
        near = difflib.get_close_matches(name.lower(), list(plain), n=1, cutoff=NEAR)
    if near:
        return Reason("key-slip", {"key": where, "nearest": plain[near[0]], "names": known})
    tables = [
        table
        for table in model.model_fields
        if name in _keys_at(model, (table,)) and _keys_at(model, (table,)) != known
    ]
    if tables and not isinstance(value, Mapping):
        return Reason("key-of-table", {"key": where, "table": tables[0]})
    return Reason("key-strange", {"key": where, "names": known})


def _shown(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value if len(value) <= SHOWN else f"{value[:SHOWN]}…")
    if isinstance(value, Mapping):
        return Reason("got-table").as_record()
    if isinstance(value, list):
        return (
            Reason("got-list", {"count": len(value)}) if value else Reason("got-empty-list")
        ).as_record()
    return (
        str(value)
        if isinstance(value, int | float | date | time)
        else Reason("got-other").as_record()
    )


def _hint(kind: str, value: Any, where: str, context: Mapping[str, Any]) -> Reason | None:
    """What to do, where it is plain."""
    if (
        kind in ("int_type", "float_type")
        and isinstance(value, str)
        and re.fullmatch(r"[+-]?\d+,\d+", value.strip())
    ):
        return Reason("hint-point", {"value": value.strip().replace(",", ".")})
    if kind in ("int_type", "float_type", "bool_type") and isinstance(value, str):
        return Reason("hint-no-quotes")
    if kind in ("string_type", "path_type") and isinstance(value, int | float | date | time):
        return Reason("hint-quotes")
    if kind == "int_type" and isinstance(value, float):
        return Reason("hint-no-point")
    if kind == "list_type":
        return (
            Reason("hint-each", {"key": where})
            if isinstance(value, Mapping)
            else Reason("hint-brackets")
        )
    if kind in ("model_type", "dict_type"):
        tables = isinstance(value, list) and any(isinstance(each, Mapping) for each in value)
        return Reason("hint-once", {"key": where}) if tables else Reason("hint-table")
    if kind == "literal_error" and isinstance(value, str):
        choices = str(context.get("expected")).split("'")[1::2]
        near = difflib.get_close_matches(value, choices, n=1)
        return Reason("hint-nearest", {"nearest": near[0]}) if near else None
    return None


def _keys_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Known keys of the table at `loc`, following nested sections and lists of sections."""
    part = whole = model_schema(model)
    for name in (part for part in loc if not isinstance(part, int)):
        part = table_of(whole, part.get("properties", {}).get(name, {}))
    return list(part.get("properties", {}))
