"""Refusals have codes: no error of the tree is made of English sentences in the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tequio.core import errors

SOURCE = Path(__file__).parents[3] / "src" / "tequio"
PACKAGES = sorted(path.parent.name for path in SOURCE.glob("*/__init__.py"))
TREE = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.TequioError)
}
SENTENCE = re.compile(r"[A-Za-z]{2,}[ ,.;:]+[A-Za-z(]")  # two words


def literals(node: ast.expr) -> str:
    """All literal text in an expression, its formatted values left out."""
    found = (part.value for part in ast.walk(node) if isinstance(part, ast.Constant))
    return "\n".join(value for value in found if isinstance(value, str))


def sentences(text: str) -> Iterator[int]:
    """Lines at which an error of the tree is made with words of its own, or with words that a name
    stands for.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in TREE:
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            if any(
                isinstance(argument, ast.Name) or SENTENCE.search(literals(argument))
                for argument in given
            ):
                yield node.lineno


@pytest.mark.parametrize("package", PACKAGES)
def test_no_error_of_this_package_is_made_of_sentences(package: str) -> None:
    paths = sorted((SOURCE / package).rglob("*.py"))
    assert paths
    found = [
        f"{path.name}:{line}"
        for path in paths
        for line in sentences(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ('raise ConfigError("The folder is not empty.")', 1),
        ('raise LedgerError(f"{path} is not a folder.", "", "Create it.")', 1),
        ('return UpdateError(f"{source} is damaged.", why)', 1),
        ('raise RunError(what, fix="Name another.")', 1),
        ('raise refusal(ConfigError, "folder-in-use", path=str(path))', 0),
        ("raise MessageError(error.what, error.why, error.fix, error.reason) from None", 0),
        ("raise ConfigError(what, why, fix)", 1),
        ('raise ValueError("it is not JSON")', 0),
    ],
)
def test_sentences_are_found(line: str, count: int) -> None:
    assert len(list(sentences(line))) == count
