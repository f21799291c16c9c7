"""Twenty files in the shape of well-known public data sets: each is understood, and prepared
without editing a file by hand.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

import public_shapes
from tequio.app.assembly.build import read_participants
from tequio.app.simulation.run import start
from tequio.app.start.prepare import check, look, write
from tequio.app.start.proposal import propose
from tequio.config import load_federation


def _prepared(
    name: str, folder: Path, bases: dict[str, Path], rounds: int | None = None
) -> tuple[Path, public_shapes.Made]:
    file, made = public_shapes.write(name, folder / "data")
    seen = look([file])
    found = seen.found
    assert found.kind == made.task
    assert found.labels == made.labels
    assert found.participants[0].usable == made.rows
    proposal = propose(found, "fed", (str(bases[found.kind]), "test"), rounds)
    counts = check(proposal, folder / "fed")
    assert sum(sum(parts.values()) for parts in counts.values()) >= 0.9 * made.rows
    return write(proposal, seen, folder / "fed"), made


@pytest.mark.parametrize("name", sorted(public_shapes.SHAPES))
def test_a_file_in_the_shape_of_a_public_data_set_is_prepared(
    name: str, tmp_path: Path, tiny_bert: Path, tiny_llama: Path
) -> None:
    path, made = _prepared(name, tmp_path, {"classification": tiny_bert, "causal": tiny_llama})
    config = load_federation(path)
    assert config.task.kind == made.task
    assert tuple(sorted(config.task.label_names())) == tuple(sorted(made.labels))
    ((_, splits),) = read_participants(config).values()
    assert len(splits.train) >= 16


def test_there_are_twenty() -> None:
    assert len(public_shapes.SHAPES) == 20


@pytest.mark.parametrize("name", ["sms_spam", "sharegpt"])
def test_some_of_them_are_trained(
    name: str, tmp_path: Path, tiny_bert: Path, tiny_llama: Path
) -> None:
    path, _ = _prepared(
        name, tmp_path, {"classification": tiny_bert, "causal": tiny_llama}, rounds=1
    )
    outcome = start(load_federation(path), tmp_path / "run", False)
    assert (outcome.folder / "ledger.sqlite").is_file()


def test_what_was_found_is_written_as_ordinary_keys(
    tmp_path: Path, tiny_bert: Path, tiny_llama: Path
) -> None:
    path, _ = _prepared("sms_spam", tmp_path, {"classification": tiny_bert})
    (file,) = (path.parent / "participants").iterdir()
    data = tomllib.loads(file.read_text())["data"]
    assert {key: data[key] for key in ("text", "label", "header")} == {
        "text": "2",
        "label": "1",
        "header": False,
    }
