"""Writes configuration.md, commands.md, errors.md and messages.*.txt from the code, so that they stay true: `python docs/generate.py`.

Types, defaults and limits come from the pydantic models, commands from typer, errors from the tree; what a key means, which no code
says, is written by hand in meanings.toml.
"""

from __future__ import annotations

import inspect
import json
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from typer.models import ArgumentInfo, OptionInfo

from tequio.cli.main import app
from tequio.config import Federation, ParticipantFile
from tequio.core import errors
from tequio.texts.words import TEXTS, Lang, Words


def flat(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command with its whole name, those of groups too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from flat(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


COMMANDS: Mapping[str, Any] = dict(flat(typer.main.get_command(app)))
DOCS = Path(__file__).resolve().parent
NOTE = "<!-- Written by `python docs/generate.py` from {source}. Do not edit by hand. -->\n"

MEANINGS = tomllib.loads((DOCS / "meanings.toml").read_text(encoding="utf-8"))


def pages() -> dict[str, str]:
    """File name in docs/ -> what it must hold."""
    made = {"configuration.md": configuration(), "commands.md": commands(), "errors.md": error_page()}
    return made | {f"messages.{lang}.txt": messages(lang) for lang in typing.get_args(Lang)}


def messages(lang: Lang) -> str:
    """The sentence of every reason in one language, with the sample facts of messages.toml."""
    samples, w = tomllib.loads((DOCS / "messages.toml").read_text(encoding="utf-8")), Words(lang)
    codes = [key.removeprefix("reason.") for key in TEXTS[lang] if key.startswith("reason.")]
    return "".join(f"{code}: {' '.join(w.filled(f'reason.{code}', samples).split())}\n" for code in codes)


def configuration() -> str:
    """Every key of both files."""
    out = [
        NOTE.format(source="config/"),
        "# Configuration\n",
        "Two files. Unknown keys are refused, with the nearest known one. Values are not converted: text is in quotes, "
        "whole numbers have no point. Relative paths start at the folder of the file in which they stand. "
        "`tequio init FOLDER` writes both, with comments. **required** means that there is no default; – means unset.\n",
    ]
    for title, model, meaning in (
        ("federation.toml", Federation, MEANINGS["federation"]),
        ("participant.toml", ParticipantFile, MEANINGS["participant"]),
    ):
        schema = model.model_json_schema()
        rows = list(keys(schema, schema))
        unknown = {key for key, _, _ in rows} ^ set(meaning)
        if unknown:
            raise SystemExit(f"docs/meanings.toml: {title} and its meanings differ in: {', '.join(sorted(unknown))}")
        out.append(f"## {title}\n")
        section = None
        for key, kind, default in rows:
            table, _, leaf = key.rpartition(".")
            if table != section:
                section = table
                heading = (
                    f"[[{table}]]" if table in ("participants", "bases") else f"[{table}]" if table else "At the top"
                )
                out.append(f"### {heading}\n" + _intro(schema, table))
                out.append("| key | type | default | unit | meaning |\n|---|---|---|---|---|")
            unit, words = meaning[key]
            out.append(f"| `{leaf}` | {kind} | {default} | {unit} | {words} |")
            if key == rows[-1][0] or _table_of(rows, key) != table:
                out.append("")
    return "\n".join(out).rstrip() + "\n"


def _table_of(rows: list[tuple[str, str, str]], key: str) -> str:
    """The table of the key after `key`."""
    names = [row[0] for row in rows]
    return names[names.index(key) + 1].rpartition(".")[0]


def _intro(schema: Mapping[str, Any], table: str) -> str:
    """What the section's docstring says after its name."""
    if not table:
        return ""
    words = " ".join(str(_section(schema, schema["properties"][table]).get("description", "")).split())
    words = re.sub(r"^\[+\w+\]+[.:]?\s*", "", words)
    return f"\n{words[:1].upper()}{words[1:]}\n" if words else ""


def keys(schema: Mapping[str, Any], part: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(key, type, default) of every key, those of the top first."""
    tables = {name: _section(schema, value) for name, value in part["properties"].items()}
    for name, value in part["properties"].items():
        if not tables[name]:
            shown = "**required**" if name in part.get("required", []) else _default(value.get("default"), value)
            yield f"{prefix}{name}", _type(value), shown
    for name, table in tables.items():
        if table:
            yield from keys(schema, table, f"{prefix}{name}.")


def _section(schema: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The table that a property refers to, or nothing."""
    for option in (value, value.get("items", {}), *value.get("anyOf", [])):
        if "$ref" in option:
            found: Mapping[str, Any] = schema["$defs"][option["$ref"].rsplit("/", 1)[-1]]
            return found
    return {}


def _default(value: Any, schema: Mapping[str, Any]) -> str:
    holds = [option.get("type") in ("object", "array") for option in schema.get("anyOf", [schema])]
    return f"`{json.dumps(value, ensure_ascii=False)}`" if value is not None else "empty" if all(holds) else "–"


def _type(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"] if option.get("type") != "null")
    if "enum" in schema:
        return ", ".join(f'`"{value}"`' for value in schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return f"list of: {_type(schema['items'])}"
    if kind == "object":
        held = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties", {})]
        return f"table, name = {_type(held[0])}"
    if kind in ("integer", "number"):
        return ("whole number" if kind == "integer" else "number") + _bounds(schema)
    if kind == "boolean":
        return "true or false"
    return "path" if schema.get("format") == "path" else "name" if "pattern" in schema else "text"


def _bounds(schema: Mapping[str, Any]) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ",".join(f" {sign} {schema[key]:g}" for key, sign in words.items() if key in schema)


def commands() -> str:
    """Every command with its arguments and options."""
    out = [
        NOTE.format(source="cli/main.py"),
        "# Commands\n",
        "`-h` or `--help` after any command shows the same in the terminal. With `--json` a command prints one JSON value, "
        "and an error as `error`, `what`, `why` and `fix`. Exit codes: [errors.md](errors.md).\n",
    ]
    for name, command in COMMANDS.items():
        function = inspect.unwrap(command.callback)
        rows = list(_parameters(name, function))
        places = " ".join(shown for shown, kind, *_ in rows if kind == "argument")
        out.append(f"## {name}\n\n{inspect.getdoc(function)}\n")
        out.append(f"```\n{' '.join(f'tequio {name} {places} [options]'.split())}\n```\n")
        out.append("| argument or option | type | default | meaning |\n|---|---|---|---|")
        out += [f"| `{shown}` | {words} | {default} | {help_} |" for shown, _, words, default, help_ in rows]
        out.append("")
    return "\n".join(out).rstrip() + "\n"


def _parameters(command: str, function: Any) -> Iterator[tuple[str, str, str, str, str]]:
    """(as written, argument or option, type, default, meaning) of each parameter."""
    hints = typing.get_type_hints(function, include_extras=True)
    parsed = {parameter.name: parameter for parameter in COMMANDS[command].params}
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = hints[name].__origin__, hints[name].__metadata__[0]
        empty = parameter.default is inspect.Parameter.empty
        default = (
            "**required**" if empty else "–" if parameter.default is None else f"`{json.dumps(parameter.default)}`"
        )
        if isinstance(info, ArgumentInfo):
            shown = name.upper() if empty else f"[{name.upper()}]"
            yield shown, "argument", _python_type(kind), default, info.help or ""
        elif isinstance(info, OptionInfo):
            written = ", ".join([*parsed[name].opts, *parsed[name].secondary_opts])
            yield written, "option", _python_type(kind), default, info.help or MEANINGS["options"][written]


def _python_type(kind: Any) -> str:
    choice = next((one for one in (kind, *typing.get_args(kind)) if typing.get_origin(one) is typing.Literal), None)
    if choice is not None:
        return ", ".join(f"`{value}`" for value in typing.get_args(choice))
    options = [option for option in typing.get_args(kind) if option is not type(None)]
    many = next((one for one in (kind, *options) if typing.get_origin(one) is list), None)
    if many is not None:
        return f"{_python_type(typing.get_args(many)[0])}, several"
    words = {"bool": "flag", "int": "whole number", "float": "number", "Path": "path", "str": "text"}
    return words[(options[0] if options else kind).__name__]


def error_page() -> str:
    """The tree, and every error with its exit code."""
    tree = (inspect.getdoc(errors) or "").split("\n\n")[1]
    out = [
        NOTE.format(source="core/errors.py"),
        "# Errors and exit codes\n",
        "Each message says what is wrong (naming the file, key or participant), why, and what to do. No message quotes a "
        "participant's text, or the label of a sample.\n",
        f"```\n{tree}\n```\n",
        "| exit code | error | what it means | for example | what to do |\n|---|---|---|---|---|",
        "| 0 | – | The command did what was asked. | | |",
        "| 1 | – | Anything else: an error of ours. | A traceback is shown. | Please report it. |",
        "| 2 | – | The command line is wrong (the same code as ConfigError). | An unknown option. | Add `--help`. |",
    ]
    for name, error in error_classes().items():
        example, fix = MEANINGS["errors"][name]
        words = " ".join((inspect.getdoc(error) or "").split())
        out.append(f"| {error.exit_code} | {name} | {words} | {example} | {fix} |")
    resume = "Nothing that was finished is lost. The command says how to go on: `tequio run --resume RUN`, or the same command again."
    out.append(f"| 130 | – | Stopped by Ctrl-C or SIGTERM. | | {resume} |")
    return "\n".join(out) + "\n"


def error_classes() -> dict[str, type[errors.TequioError]]:
    """Every error below TequioError, in the order of the tree."""
    found = {n: c for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, errors.TequioError)}
    found.pop("TequioError")
    return found


if __name__ == "__main__":
    for file, text in pages().items():
        (DOCS / file).write_text(text, encoding="utf-8")
        print(f"docs/{file}")
