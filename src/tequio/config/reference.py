"""The keys of both files as their models describe them: for the reference, the JSON Schema,
templates and `tequio config explain`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from tequio.config.federation import Federation
from tequio.config.fields import Section
from tequio.config.other_names import other_name
from tequio.config.participant import ParticipantFile
from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal

FILES: Mapping[str, type[Section]] = MappingProxyType(
    {"federation": Federation, "participant": ParticipantFile}
)
"""Name of a file, without .toml -> its model."""


@dataclass(frozen=True)
class Key:
    """One key of a file, in words. name: with its table, `train.rounds`; leaf: without."""

    file: str
    table: str
    leaf: str
    name: str
    type: str
    default: str
    meaning: str


@cache
def model_schema(model: type[BaseModel]) -> Mapping[str, Any]:
    """Return the JSON Schema of a table or file."""
    return model.model_json_schema()


def schema(file: str) -> dict[str, Any]:
    """Return the JSON Schema (Draft 2020-12) of a file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **model_schema(FILES[file]),
        "title": f"{file}.toml",
    }


@cache
def keys(file: str) -> tuple[Key, ...]:
    """Return every key of a file, those at the top first."""
    return tuple(_keys(file, schema(file), ""))


def about(file: str, table: str = "") -> str:
    """Return what a table of a file, or the file as a whole, is for."""
    whole = schema(file)
    words = (table_of(whole, whole["properties"][table]) if table else whole)["description"]
    return re.sub(r"^\[+\w+\]+ ", "", " ".join(words.split()))


def comments(file: str) -> dict[str, str]:
    """Return what stands above each part of a commented file: name of a table or key -> a sentence;
    empty name: the file.
    """
    tables = {key.table for key in keys(file)}
    sentences = {key.name: re.split(r"(?<=\.) (?=[A-Z`])", key.meaning)[0] for key in keys(file)}
    return sentences | {table: about(file, table) for table in tables}


def find(name: str) -> list[Key]:
    """Return the keys of this name, with or without its table, or all keys of this table.

    Raises ConfigError naming the nearest keys where there is none.
    """
    every = [key for file in FILES for key in keys(file)]
    if found := [key for key in every if name in (key.name, key.leaf, key.table)]:
        return found
    if meant := other_name(name, table=False):
        raise refusal(ConfigError, "key-renamed", key=name, own_key=meant[0], note=meant[1])
    likeness = {
        key.name: max(
            SequenceMatcher(None, name.lower(), of).ratio() for of in (key.name, key.leaf)
        )
        for key in every
    }
    near = sorted(likeness, key=lambda of: -likeness[of])[:3]
    raise refusal(ConfigError, "key-unknown", key=name, names=near)


def _keys(file: str, part: Mapping[str, Any], above: str) -> Iterator[Key]:
    tables = {name: table_of(schema(file), value) for name, value in part["properties"].items()}
    for name, value in part["properties"].items():
        if not tables[name]:
            default = (
                "**required**"
                if name in part.get("required", [])
                else _default(value.get("default"), value)
            )
            words = (_type(value), default, value.get("description", ""))
            yield Key(f"{file}.toml", above.rstrip("."), name, f"{above}{name}", *words)
    for name, table in tables.items():
        if table:
            yield from _keys(file, table, f"{above}{name}.")


def table_of(whole: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the table to which a property refers, or nothing."""
    options = (value, value.get("items", {}), *value.get("anyOf", []))
    names = (option["$ref"].rsplit("/", 1)[-1] for option in options if "$ref" in option)
    return next((whole["$defs"][name] for name in names), {})


def _default(value: Any, of: Mapping[str, Any]) -> str:
    holds = [option.get("type") in ("object", "array") for option in of.get("anyOf", [of])]
    return (
        f"`{json.dumps(value, ensure_ascii=False)}`"
        if value is not None
        else "empty"
        if all(holds)
        else "–"
    )


def _type(of: Mapping[str, Any]) -> str:
    """Return the JSON Schema of a value in words."""
    if "enum" in of:
        return ", ".join(f'`"{value}"`' for value in of["enum"] if value is not None)
    if "anyOf" in of:
        return " or ".join(_type(option) for option in of["anyOf"] if option.get("type") != "null")
    kind = of.get("type")
    if kind == "array":
        return f"list of: {_type(of['items'])}"
    if kind == "object":
        held = [*of.get("patternProperties", {}).values(), of.get("additionalProperties", {})]
        return f"table, name = {_type(held[0])}"
    if kind in ("integer", "number"):
        signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
        bounds = ",".join(f" {sign} {of[bound]:g}" for bound, sign in signs.items() if bound in of)
        return ("whole number" if kind == "integer" else "number") + bounds
    if kind == "boolean":
        return "true or false"
    return "path" if of.get("format") == "path" else "name" if "pattern" in of else "text"
