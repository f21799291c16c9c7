"""The examples of docs/python.md and the cells of the notebook run in order, as they stand except
for the base model.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tequio
from builders import sentences

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTEBOOK = DOCS / "examples" / "first-run.ipynb"
BASE = "sentence-transformers/all-MiniLM-L6-v2"
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PANDAS = importlib.util.find_spec("pandas") is not None


def examples() -> list[str]:
    return FENCE.findall((DOCS / "python.md").read_text("utf-8"))


def cells(kind: str) -> list[dict[str, Any]]:
    found: dict[str, Any] = json.loads(NOTEBOOK.read_text("utf-8"))
    return [cell for cell in found["cells"] if cell["cell_type"] == kind]


def execute(blocks: list[str], base: Path) -> dict[str, Any]:
    """Run code blocks one after the other in one scope, with `base` in place of the base model that
    they name.
    """
    module = ModuleType("examples_of_a_page")
    sys.modules[module.__name__] = module  # where a dataclass looks for its module
    try:
        for number, block in enumerate(blocks, 1):
            code = compile(
                block.replace(BASE, str(base)), f"<block {number}>", "exec", dont_inherit=True
            )
            exec(code, vars(module))  # our own pages
    finally:
        del sys.modules[module.__name__]
    return vars(module)


def test_the_examples_of_the_page_run(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("north", "south", "west")):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, ["text", "label"])
            table.writeheader()
            table.writerows(sentences(60, seed))
    blocks = examples()
    assert len(blocks) == 14
    assert sum(BASE in block for block in blocks) == 2
    scope = execute(
        [block for block in blocks if PANDAS or "import pandas" not in block], tiny_bert
    )
    assert isinstance(scope["run"], tequio.Run)
    assert sorted(path.name for path in Path("runs").iterdir()) == [
        "reviews",
        "steeper",
        "stopped",
        "watched",
    ]
    assert len(list(Path("sweep").iterdir())) == 4
    assert len(scope["plan"]) == 2


def test_the_notebook_runs_twice(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = ["".join(cell["source"]) for cell in cells("code")]
    first = execute(blocks, tiny_bert)
    assert first["run"].finished
    assert [*first["run"]] == ["north", "south", "west"]
    before = (tmp_path / "runs/first/ledger.sqlite").stat().st_mtime_ns
    execute(blocks[:-1], tiny_bert)
    assert (tmp_path / "runs/first/ledger.sqlite").stat().st_mtime_ns == before


def test_the_notebook_is_plain_and_without_outputs() -> None:
    found = json.loads(NOTEBOOK.read_text("utf-8"))
    assert (found["nbformat"], found["metadata"]["language_info"]["name"]) == (4, "python")
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells("code"))
    assert len(cells("code")) > 4


def test_the_page_names_the_whole_api() -> None:
    page = (DOCS / "python.md").read_text("utf-8")
    types = {"Federation", "Participant", "Round", "Rows", "Run"}
    for name in set(tequio.__all__) - types:
        assert f"tequio.{name}" in page, name
