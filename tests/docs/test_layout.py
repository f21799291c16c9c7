"""The structure holds: names in the field's own words, short files, few entries at the top of
`app`, packages that say what they hold.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("src", "tests", "benchmarks")
LONGEST = 400  # lines of a file
MOST = 14  # entries at the top of `app`
FORBIDDEN = {
    *(
        "house",
        "office",
        "ground",
        "told",
        "kept",
        "apart",
        "island",
        "farewell",
        "vitals",
        "tally",
    ),
    *("purse", "thrift", "bench", "looked", "door", "bell", "guests"),
}
BESIDE = {
    "benchmarks",
    "deploy",
    "docs",
    "laws",
    "network",
    "old_runs",
}  # tests of several packages, or of what is not a package


def modules(root: Path, *folders: str) -> list[Path]:
    """Every Python file below these folders of `root`, in order."""
    return sorted(path for folder in folders for path in (root / folder).rglob("*.py"))


def words(name: str) -> set[str]:
    """The words of a name in snake_case or CamelCase, in lower case."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)}


def names(source: str) -> Iterator[tuple[int, str]]:
    """Each (line, name) of a file: its tokens, and what its f-strings compute (one token each
    before Python 3.12).
    """
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string
    for string in ast.walk(ast.parse(source)):
        if isinstance(string, ast.JoinedStr):
            for node in ast.walk(string):
                for field in ("id", "attr", "arg"):
                    if isinstance(name := getattr(node, field, None), str):
                        yield string.lineno, name


def private_words(root: Path) -> list[str]:
    """Each place where the name of a file, or a name in it, holds a word of the old private
    language.
    """
    found = set()
    for path in modules(root, *SOURCES):
        where = path.relative_to(root)
        found |= {
            f"{where}: {part}" for part in where.with_suffix("").parts if words(part) & FORBIDDEN
        }
        found |= {
            f"{where}:{line}: {name}"
            for line, name in names(path.read_text("utf-8"))
            if words(name) & FORBIDDEN
        }
    return sorted(found)


def long_files(root: Path) -> list[str]:
    """Each file of more than `LONGEST` lines, with its length."""
    lengths = {path: path.read_text("utf-8").count("\n") for path in modules(root, *SOURCES)}
    return [
        f"{path.relative_to(root)}: {lines} lines"
        for path, lines in lengths.items()
        if lines > LONGEST
    ]


def entries(folder: Path) -> list[str]:
    """The modules and packages at the top of a package, without `__init__`."""
    packages = [path.name for path in folder.iterdir() if path.is_dir() and any(path.rglob("*.py"))]
    return sorted(
        [*packages, *(path.stem for path in folder.glob("*.py") if path.stem != "__init__")]
    )


def silent_packages(package: Path) -> list[str]:
    """Each folder of code whose `__init__` does not say in two or three lines what it holds."""
    silent = []
    for folder in [package, *(p for p in package.rglob("*") if p.is_dir() and any(p.glob("*.py")))]:
        source = folder / "__init__.py"
        text = (
            ast.get_docstring(ast.parse(source.read_text("utf-8"))) if source.exists() else ""
        ) or ""
        if not 2 <= sum(bool(line.strip()) for line in text.splitlines()) <= 3 or len(text) < 60:
            silent.append(str(folder.relative_to(package.parent)))
    return sorted(silent)


def lost_tests(root: Path) -> list[str]:
    """Each folder of tests that mirrors no package of the source, and each test file that lies at
    the top.
    """
    lost = [f"tests/{path.name}" for path in (root / "tests").glob("test_*.py")]
    for folder in {
        path.parent.relative_to(root / "tests") for path in (root / "tests").rglob("*/test_*.py")
    }:
        package = root / "src" / "tequio" / folder
        if (
            folder.parts
            and folder.parts[0] not in BESIDE
            and not (package / "__init__.py").exists()
        ):
            lost.append(f"tests/{folder}")
    return sorted(lost)


def test_no_name_is_of_the_private_language() -> None:
    assert private_words(ROOT) == []


def test_no_file_is_long() -> None:
    assert long_files(ROOT) == []


def test_the_top_of_app_is_read_at_a_glance() -> None:
    found = entries(ROOT / "src/tequio/app")
    assert {"network", "simulation", "stages"} <= set(found)
    assert len(found) <= MOST, found


def test_every_folder_of_the_package_says_what_it_holds() -> None:
    assert silent_packages(ROOT / "src/tequio") == []


def test_tests_mirror_the_source() -> None:
    assert lost_tests(ROOT) == []
    unused = {name for name in BESIDE if not any((ROOT / "tests" / name).glob("test_*.py"))}
    assert unused == set(), "exceptions for folders that are not there"


@pytest.fixture
def untidy(tmp_path: Path) -> Path:
    """A tree in which each rule is broken once."""
    for name, text in {
        "src/tequio/__init__.py": '"""A package that says what it holds: all that\n\nthe rules of this page are about."""\n',
        "src/tequio/app/__init__.py": '"""Too short."""\n',
        "src/tequio/app/door_bell.py": "def f(x: int) -> str:\n    return f'{x.kept}'\n",
        "src/tequio/app/stages.py": "def outdoors() -> int:\n    return 1\n\n\nclass ApartHotel:\n "
        "   ...\n",
        "src/tequio/app/empty/notes.txt": "no code",
        "tests/app/test_a.py": "x = 1\n" * (LONGEST + 1),
        "tests/rooms/test_b.py": "x = 1\n" * LONGEST,
        "tests/laws/test_c.py": "",
        "tests/test_d.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_what_breaks_a_rule_is_named(untidy: Path) -> None:
    """So that the tests above can fail."""
    assert private_words(untidy) == [
        "src/tequio/app/door_bell.py: door_bell",
        "src/tequio/app/door_bell.py:2: kept",
        "src/tequio/app/stages.py:5: ApartHotel",
    ]
    assert long_files(untidy) == ["tests/app/test_a.py: 401 lines"]
    assert entries(untidy / "src/tequio/app") == ["door_bell", "stages"]
    assert silent_packages(untidy / "src/tequio") == ["tequio/app"]
    assert lost_tests(untidy) == ["tests/rooms", "tests/test_d.py"]
