"""Every key that is a path is seen from the folder of its file, whichever table it stands in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tequio.config import load_federation, load_participant
from tequio.config.reference import keys

FEDERATION = """
name = "small"
base = { model = "bases/one" }
bases = [{ name = "two", model = "org/two" }]
task = { kind = "causal" }
adapter = { modules = ["q"] }
local = { terms = { replay = 0.1 }, data = "p.jsonl" }
centre = { data = "../c.jsonl" }
gate = { slices = { one = "s.jsonl", two = "t.jsonl" } }
energy = { intensity = "i.csv" }
participants = [{ name = "a", file = "people/a.toml" }, { name = "b", base = "two" }]
"""
PARTICIPANT = """
name = "a"
base = "model"
data = { train = ["x.csv", "y.csv"], validation = "~/v.csv", test = "/t.csv" }
energy = { intensity = "i.csv" }
"""


def paths(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif isinstance(value, BaseModel):
        yield from paths(dict(value))
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from paths(item)


def test_the_two_files_here_have_every_key_that_is_a_path() -> None:
    named = {
        key.name
        for file in ("federation", "participant")
        for key in keys(file)
        if "path" in key.type
    }
    assert named == {
        *("participants.file", "gate.slices", "energy.intensity", "local.data", "centre.data"),
        *("base", "data.path", "data.train", "data.validation", "data.test"),
    }


def test_paths_of_a_federation(tmp_path: Path) -> None:
    (tmp_path / "bases" / "one").mkdir(parents=True)
    file = tmp_path / "federation.toml"
    file.write_text(FEDERATION)
    found = load_federation(file)
    assert found.base.model == str(tmp_path / "bases" / "one")
    assert found.bases[0].model == "org/two"  # an id of the hub, for there is no such folder
    names = ["p.jsonl", "../c.jsonl", "s.jsonl", "t.jsonl", "i.csv", "people/a.toml"]
    assert list(paths(found)) == [tmp_path / name for name in names]


def test_paths_of_a_participant(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text(PARTICIPANT)
    found = load_participant(file, "a")
    assert list(paths(found)) == [
        *(tmp_path / "model", tmp_path / "x.csv", tmp_path / "y.csv"),
        *(Path.home() / "v.csv", Path("/t.csv"), tmp_path / "i.csv"),
    ]
    file.write_text('name = "a"\ndata = { path = "d" }\n')
    assert list(paths(load_participant(file))) == [tmp_path / "d"]
