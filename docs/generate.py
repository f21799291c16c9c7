"""Writes configuration.md, commands.md, errors.md and messages.*.txt from the code, so that they
stay true:

`python docs/generate.py`.

Keys come from the pydantic models, commands from typer, errors from the tree; meanings.toml has
what stands in none of these.
"""

from __future__ import annotations

import inspect
import json
import tomllib
import typing
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import typer
from typer.models import ArgumentInfo, OptionInfo

from tequio.cli.main import app
from tequio.config.presets import PRESETS, leaves
from tequio.config.reference import FILES, about, keys
from tequio.core import errors
from tequio.core.texts.words import TEXTS, Lang, Words


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
    made = {
        "configuration.md": configuration(),
        "algorithms.md": algorithms(),
        "commands.md": commands(),
        "errors.md": error_page(),
    }
    return made | {f"messages.{lang}.txt": messages(lang) for lang in typing.get_args(Lang)}


def messages(lang: Lang) -> str:
    """The sentence of every reason in one language, with the sample facts of messages.toml."""
    samples, w = tomllib.loads((DOCS / "messages.toml").read_text(encoding="utf-8")), Words(lang)
    codes = [key.removeprefix("reason.") for key in TEXTS[lang] if key.startswith("reason.")]
    return "".join(
        f"{code}: {' '.join(w.filled(f'reason.{code}', samples).split())}\n" for code in codes
    )


def configuration() -> str:
    """Every key of both files."""
    out = [
        NOTE.format(source="config/"),
        "# Configuration\n",
        "Two files. Unknown keys are refused, with the nearest known one. Values are not "
        "converted: text is in quotes, whole numbers have no point. Relative paths start at the "
        "folder of the file in which they stand. `tequio init FOLDER` writes both, with comments. "
        "**required** means that there is no default; – means unset. `tequio config explain KEY` "
        "shows one key in the terminal, and `tequio config schema` prints the JSON Schema of a "
        "file for editors.\n",
    ]
    for file in FILES:
        out.append(f"## {file}.toml\n\n{about(file)}\n")
        for table, group in groupby(keys(file), key=lambda key: key.table):
            brackets = f"[[{table}]]" if table in ("participants", "bases") else f"[{table}]"
            out.append(f"### {brackets}\n\n{about(file, table)}\n" if table else "### At the top\n")
            out.append("| key | type | default | meaning |\n|---|---|---|---|")
            out += [
                f"| `{key.leaf}` | {key.type} | {key.default} | {key.meaning} |" for key in group
            ]
            out.append("")
    return "\n".join(out).rstrip() + "\n"


def algorithms() -> str:
    """Every preset as its pieces."""
    out = [
        NOTE.format(source="config/presets.toml"),
        "# Algorithms\n",
        "A method of the literature is a combination of pieces, and a piece is a key of [configuration.md](configuration.md). "
        '`[algorithm] preset = "NAME"` sets the keys of one row; `tequio init FOLDER --algorithm NAME` writes it into a new file. '
        "Keys without a table are of `[algorithm]`.\n",
        "- **Pieces** make the method. Another value beside the preset is refused, with the key: "
        "leave out that key, or the preset.\n- **Starting values** are set where your file writes "
        "none of them; yours count, except 0 and empty, which would switch the piece off and are "
        "refused. Steps of `diloco` are set together: one of yours replaces all three.\n- **All "
        "other keys are yours**: codecs, screening, gate, centre, personal models. "
        "[choosing-algorithms.md](choosing-algorithms.md) says what was measured.\n",
        "The preset is replaced by its keys when the file is read: the run's record holds these keys, and a run with a preset is "
        "bit-for-bit identical to one with the same keys written out. "
        "In every method local steps are AdamW's with the rates of `[train]`, and what is averaged is a LoRA adapter and the head "
        'unless `adapter.kind = "full"`.\n',
        "| preset | paper | pieces | starting values | when to use | difference from the paper |",
        "|---|---|---|---|---|---|",
    ]
    for name, preset in PRESETS.items():
        link = f"[{preset['paper']}](https://arxiv.org/abs/{preset['arxiv']})"
        starts = [_written(group) for group in preset.get("starts", [])]
        cells = (
            f"`{name}`",
            link,
            _written(preset["pieces"]),
            "; ".join(starts) or "–",
            preset["use"],
            preset["difference"],
        )
        out.append(f"| {' | '.join(cells)} |")
    return "\n".join(out) + "\n\n" + MEANINGS["algorithms"]["missing"]


def _written(tree: Mapping[str, Any]) -> str:
    """Keys with their values as one writes them, those of [algorithm] by their own name."""
    names = [(".".join(where).removeprefix("algorithm."), value) for where, value in leaves(tree)]
    return ", ".join(f"`{name} = {json.dumps(value)}`" for name, value in names)


def commands() -> str:
    """Every command with its arguments and options."""
    out = [
        NOTE.format(source="cli/main.py"),
        "# Commands\n",
        "`-h` or `--help` after any command shows the same in the terminal. With `--json` a "
        "command prints one JSON value, and an error as `error`, `what`, `why` and `fix`. Exit "
        "codes: [errors.md](errors.md).\n",
    ]
    for name, command in COMMANDS.items():
        function = inspect.unwrap(command.callback)
        rows = list(_parameters(name, function))
        places = " ".join(shown for shown, kind, *_ in rows if kind == "argument")
        out.append(f"## {name}\n\n{inspect.getdoc(function)}\n")
        out.append(f"```\n{' '.join(f'tequio {name} {places} [options]'.split())}\n```\n")
        out.append("| argument or option | type | default | meaning |\n|---|---|---|---|")
        out += [
            f"| `{shown}` | {words} | {default} | {help_} |"
            for shown, _, words, default, help_ in rows
        ]
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
            "**required**"
            if empty
            else "–"
            if parameter.default is None
            else f"`{json.dumps(parameter.default)}`"
        )
        if isinstance(info, ArgumentInfo):
            shown = name.upper() if empty else f"[{name.upper()}]"
            yield shown, "argument", _python_type(kind), default, info.help or ""
        elif isinstance(info, OptionInfo):
            written = ", ".join([*parsed[name].opts, *parsed[name].secondary_opts])
            yield (
                written,
                "option",
                _python_type(kind),
                default,
                info.help or MEANINGS["options"][written],
            )


def _python_type(kind: Any) -> str:
    choice = next(
        (one for one in (kind, *typing.get_args(kind)) if typing.get_origin(one) is typing.Literal),
        None,
    )
    if choice is not None:
        return ", ".join(f"`{value}`" for value in typing.get_args(choice))
    options = [option for option in typing.get_args(kind) if option is not type(None)]
    many = next((one for one in (kind, *options) if typing.get_origin(one) is list), None)
    if many is not None:
        return f"{_python_type(typing.get_args(many)[0])}, several"
    words = {
        "bool": "flag",
        "int": "whole number",
        "float": "number",
        "Path": "path",
        "str": "text",
    }
    return words[(options[0] if options else kind).__name__]


def error_page() -> str:
    """The tree, and every error with its exit code."""
    tree = (inspect.getdoc(errors) or "").split("\n\n")[1]
    out = [
        NOTE.format(source="core/errors.py"),
        "# Errors and exit codes\n",
        "Each message says what is wrong (naming the file, key or participant), why, and what to "
        "do. No message quotes a participant's text, or the label of a sample.\n",
        f"```\n{tree}\n```\n",
        "| exit code | error | what it means | for example | what to do |\n|---|---|---|---|---|",
        "| 0 | – | The command did what was asked. | | |",
        "| 1 | – | Anything else: an error of ours. | A traceback is shown. | Please report it. |",
        "| 2 | – | The command line is wrong (the same code as ConfigError). | An unknown option. "
        "| Add `--help`. |",
    ]
    for name, error in error_classes().items():
        example, fix = MEANINGS["errors"][name]
        words = " ".join((inspect.getdoc(error) or "").split())
        out.append(f"| {error.exit_code} | {name} | {words} | {example} | {fix} |")
    resume = (
        "Nothing that was finished is lost. The command says how to go on: `tequio run "
        "--resume RUN`, or the same command again."
    )
    out.append(f"| 130 | – | Stopped by Ctrl-C or SIGTERM. | | {resume} |")
    return "\n".join(out) + "\n"


def error_classes() -> dict[str, type[errors.TequioError]]:
    """Every error below TequioError, in the order of the tree."""
    found = {
        n: c
        for n, c in vars(errors).items()
        if isinstance(c, type) and issubclass(c, errors.TequioError)
    }
    found.pop("TequioError")
    return found


if __name__ == "__main__":
    for file, text in pages().items():
        (DOCS / file).write_text(text, encoding="utf-8")
        print(f"docs/{file}")
