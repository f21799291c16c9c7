"""Every key has its description in its model, and the reference, the schema and `tequio config`
come from there.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from builders import NEEDED
from tequio.cli.main import app
from tequio.config.other_names import KEYS
from tequio.config.presets import PRESETS
from tequio.config.reference import FILES, about, comments, find, keys, schema
from tequio.config.starter import write_starter
from tequio.core.errors import ConfigError


@pytest.mark.parametrize("file", FILES)
def test_every_key_and_table_says_what_it_means(file: str) -> None:
    for key in keys(file):
        assert key.meaning[-1:] in (".", "…", "this"), key.name
        assert "|" not in key.meaning, f"{key.name}: it would end the cell of a table"
        assert key.type, key.name
    tables = {key.table for key in keys(file)}
    for table in tables:
        assert about(file, table).endswith((".", ".md.")), table
    assert len(tables) > 6


def test_no_two_keys_share_a_description_by_mistake() -> None:
    for file in FILES:
        said: dict[str, str] = {}
        for key in keys(file):
            assert said.setdefault(key.meaning, key.leaf) == key.leaf, key.name


def test_the_first_sentence_is_short_enough_for_a_comment() -> None:
    for file in FILES:
        for name, words in comments(file).items():
            assert len(words) <= 260, name
            assert words.endswith((".", "…")), name


@pytest.mark.parametrize("task", ["classification", "causal"])
def test_the_schema_admits_what_the_starter_writes_and_refuses_slips(
    tmp_path: Path, task: Any
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    checks = {}
    for file in FILES:
        jsonschema.Draft202012Validator.check_schema(schema(file))
        checks[file] = jsonschema.Draft202012Validator(schema(file))
    main, files = write_starter(tmp_path, task, None, "fedprox")
    federation = tomllib.loads(main.read_text(encoding="utf-8"))
    assert not list(checks["federation"].iter_errors(federation))
    for path in files[1:]:
        assert not list(
            checks["participant"].iter_errors(tomllib.loads(path.read_text(encoding="utf-8")))
        )
    assert not list(
        checks["federation"].iter_errors({**NEEDED, "adapter": {"modules": "attention"}})
    )
    for table, key, value in (
        ("train", "roundz", 3),
        ("train", "rounds", 0),
        ("algorithm", "preset", "fedprx"),
    ):
        wrong = {**federation, table: {**federation[table], key: value}}
        assert list(checks["federation"].iter_errors(wrong)), key


def test_an_editor_finds_a_description_at_each_property() -> None:
    for file in FILES:
        whole = schema(file)
        for where, part in [("", whole), *whole["$defs"].items()]:
            assert part["description"], where
            for name, value in part["properties"].items():
                refers = [
                    option
                    for option in (value, value.get("items", {}), *value.get("anyOf", []))
                    if "$ref" in option
                ]
                assert value.get("description") or refers, f"{where}.{name}"


def test_a_key_is_found_by_either_name_and_a_table_with_all_its_keys() -> None:
    assert (
        [key.name for key in find("rounds")]
        == ["train.rounds"]
        == [key.name for key in find("train.rounds")]
    )
    assert {key.file for key in find("kwh")} == {"federation.toml", "participant.toml"}
    assert [key.leaf for key in find("team")] == ["shard_base"]
    assert all(name in find("preset")[0].type for name in PRESETS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("roundz", "train.rounds"), ("train.pach", "train.pace"), ("lr", "'train.learning_rate'")],
)
def test_an_unknown_key_names_the_nearest(name: str, expected: str) -> None:
    with pytest.raises(ConfigError, match="There is no key") as caught:
        find(name)
    assert expected in str(caught.value)


def test_other_libraries_names_lead_to_keys_that_there_are() -> None:
    every = {key.name for file in FILES for key in keys(file)} | {"participants"}
    assert {key for key, _ in KEYS.values()} <= every


def test_the_commands_print_a_key_and_a_schema() -> None:
    shown = CliRunner().invoke(app, ["config", "explain", "patience"])
    (key,) = find("patience")
    assert (shown.exit_code, key.meaning in shown.output) == (0, True)
    assert "train.patience (federation.toml)" in shown.output
    assert "default: 3" in shown.output
    found = json.loads(CliRunner().invoke(app, ["config", "explain", "patience", "--json"]).output)
    assert found["keys"][0]["meaning"] == key.meaning
    for file in FILES:
        assert json.loads(CliRunner().invoke(app, ["config", "schema", file]).output) == schema(
            file
        )
