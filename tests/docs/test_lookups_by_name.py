"""Pieces are looked up by name in one place; others are handed the built ones.

Only a request that names pieces is read with them.
"""

from __future__ import annotations

import ast
from pathlib import Path

from tequio.algorithms import registry

SOURCE = Path(registry.__file__).resolve().parents[1]
LOOKUPS = {name for name in vars(registry) if name.endswith("_by_name")}
PLACE = {"app/assembly/algorithm.py"}
REQUESTS = {"participant/node.py", "participant/objective.py", "participant/task_budget.py"}


def lookups(path: Path) -> set[str]:
    """The look-ups that a module names, called or handed on."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        found |= {
            name for name in (getattr(node, "id", ""), getattr(node, "attr", "")) if name in LOOKUPS
        }
        if isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names} & LOOKUPS
    return found


def test_every_kind_of_piece_is_built_where_the_configuration_is_resolved() -> None:
    assert len(LOOKUPS) == 8
    assert {name for place in PLACE for name in lookups(SOURCE / place)} == LOOKUPS


def test_nobody_else_looks_up_but_who_reads_a_request() -> None:
    modules = {str(path.relative_to(SOURCE)): path for path in SOURCE.rglob("*.py")}
    assert len(modules) > 200
    who = {name for name, path in modules.items() if lookups(path)}
    assert who == PLACE | REQUESTS
