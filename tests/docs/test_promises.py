"""What docs/versioning.md promises stays as it is pinned in promises.json: a change there is a
decision, seen in the diff.

A removed name breaks a user's file or script, and a new one is a promise. `python
tests/docs/test_promises.py` pins what is there.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer

import tequio
from tequio.app.network.hub import backup
from tequio.cli.main import app
from tequio.config.reference import FILES, keys
from tequio.core import canonical, errors, messages
from tequio.ledger.chain import RECORD_VERSION, Entry
from tequio.ledger.query import VIEWS, read_query
from tequio.ledger.record import Ledger
from tequio.ledger.store import APPLICATION_ID, SCHEMA, SCHEMA_VERSION
from tequio.trust import invitation

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tequio"
PINNED = Path(__file__).with_name("promises.json")
KINDS_WITHOUT_APPEND = {"run"}  # Ledger.create writes it


def commands(group: Any, before: str = "") -> dict[str, list[str]]:
    """Each command with its arguments in order, then its options in alphabetical order."""
    found: dict[str, list[str]] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, f"{before}{name} ")
        else:
            arguments = [p.name for p in command.params if p.param_type_name == "argument"]
            options = [
                o
                for p in command.params
                if p.param_type_name == "option"
                for o in (*p.opts, *p.secondary_opts)
            ]
            found[f"{before}{name}"] = [*arguments, *sorted(options)]
    return found


def record_kinds(source: Path) -> set[str]:
    """The kinds that the source appends to a ledger: a call of `append` with a body, which no list
    has.
    """
    constants: dict[str, str] = {}
    calls: list[ast.expr] = []
    for path in sorted(source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr == "append" and len(node.args) >= 2:
                    calls.append(node.args[0])
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name | ast.Tuple):
                names = (
                    node.targets[0].elts
                    if isinstance(node.targets[0], ast.Tuple)
                    else [node.targets[0]]
                )
                values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
                for name, value in zip(names, values, strict=False):
                    if (
                        isinstance(name, ast.Name)
                        and isinstance(value, ast.Constant)
                        and isinstance(value.value, str)
                    ):
                        constants[name.id] = value.value
    kinds = {call.value for call in calls if isinstance(call, ast.Constant)}
    named = {call.id for call in calls if isinstance(call, ast.Name)}
    return (
        {str(kind) for kind in kinds} | {constants[name] for name in named} | KINDS_WITHOUT_APPEND
    )


def views(folder: Path) -> dict[str, list[str]]:
    """The columns of each view that `tequio query` adds."""
    ledger = folder / "ledger.sqlite"
    Ledger.create(ledger, {}).close()
    return {name: list(read_query(ledger, f"SELECT * FROM {name}").columns) for name in VIEWS}


def promises(folder: Path) -> dict[str, Any]:
    """Everything that docs/versioning.md promises, as JSON holds it; `folder` is an empty one."""
    kinds = vars(errors).items()
    tree = {
        n: c.exit_code for n, c in kinds if inspect.isclass(c) and issubclass(c, errors.TequioError)
    }
    return {
        "keys": {file: [key.name for key in keys(file)] for file in FILES},
        "commands": commands(typer.main.get_command(app)),
        "exit codes": tree,
        "record kinds": sorted(record_kinds(SOURCE)),
        "record version": RECORD_VERSION,
        "record columns": list(Entry.__dataclass_fields__),
        "ledger": {"application id": APPLICATION_ID, "schema version": SCHEMA_VERSION, **SCHEMA},
        "views": views(folder),
        "formats": {
            "message": messages.FORMAT,
            "update": canonical.FORMAT,
            "invitation": invitation.FORMAT,
            "backup": backup.FORMAT,
        },
        "python names": sorted(getattr(tequio, "__all__", ())),
    }


def changes(pinned: Any, found: Any, where: str = "") -> list[str]:
    """Each difference, by its path: '- ' is gone, '+ ' is new."""
    if isinstance(pinned, dict) and isinstance(found, dict):
        both = [
            line
            for key in pinned.keys() & found.keys()
            for line in changes(pinned[key], found[key], f"{where}/{key}")
        ]
        gone, new = pinned.keys() - found.keys(), found.keys() - pinned.keys()
        return sorted(
            [*both, *(f"- {where}/{key}" for key in gone), *(f"+ {where}/{key}" for key in new)]
        )
    if isinstance(pinned, list) and isinstance(found, list) and sorted(pinned) != sorted(found):
        lost = [f"- {where}: {one}" for one in pinned if one not in found]
        return lost + [f"+ {where}: {one}" for one in found if one not in pinned]
    return [] if pinned == found else [f"- {where}: {pinned}", f"+ {where}: {found}"]


def test_what_is_promised_is_as_it_is_pinned(tmp_path: Path) -> None:
    pinned = json.loads(PINNED.read_text(encoding="utf-8"))
    assert changes(pinned, json.loads(json.dumps(promises(tmp_path)))) == [], (
        "docs/versioning.md says what may change when; then run: python tests/docs/test_promises.py"
    )


def test_every_kind_of_record_is_documented() -> None:
    page = (ROOT / "docs" / "record.md").read_text(encoding="utf-8")
    kinds = json.loads(PINNED.read_text(encoding="utf-8"))["record kinds"]
    assert len(kinds) > 15
    assert [kind for kind in kinds if f"`{kind}`" not in page] == []


def test_every_column_of_the_ledger_is_documented(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "record.md").read_text(encoding="utf-8")
    part = page.split("## The file, and how to query it")[1].split("\n## ")[0]
    columns = {column for of_view in views(tmp_path).values() for column in of_view}
    for table in ("record", "head", "checkpoint"):
        columns |= set(re.findall(r"(\w+) (?:INTEGER|TEXT|BLOB)", SCHEMA[table]))
    assert {"seq", "body", "state_seq", "data", "gain_low"} <= columns
    assert [column for column in sorted(columns) if f"`{column}`" not in part] == []


@pytest.mark.parametrize(
    ("pinned", "found", "said"),
    [
        ({"a": ["x", "y"]}, {"a": ["y"]}, ["- /a: x"]),
        ({"a": ["x"]}, {"a": ["x", "z"]}, ["+ /a: z"]),
        ({"a": ["x", "y"]}, {"a": ["y", "x"]}, ["+ /a: ['y', 'x']", "- /a: ['x', 'y']"]),
        ({"a": 1}, {"a": 2}, ["+ /a: 2", "- /a: 1"]),
        ({"a": 1}, {"b": 1}, ["+ /b", "- /a"]),
    ],
)
def test_a_change_is_named(pinned: Any, found: Any, said: list[str]) -> None:
    """So that the first test can fail."""
    assert changes(pinned, found) == said


def test_kinds_of_records_are_found_in_source(tmp_path: Path) -> None:
    source = (
        'A, B = "one", "two"\nledger.append(B, {})\nledger.append("three", {}, '
        'b"")\nrows.append("four")\n'
    )
    (tmp_path / "a.py").write_text(source, encoding="utf-8")
    assert record_kinds(tmp_path) == {"two", "three", "run"}


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as empty:
        text = json.dumps(promises(Path(empty)), indent=1, sort_keys=True) + "\n"
    PINNED.write_text(text, encoding="utf-8")
