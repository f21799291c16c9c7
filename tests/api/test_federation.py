"""A federation from a file or a dict: its settings are checked in the words for the file, and data
become ordinary files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest

import tequio
from tequio.config import load_federation, stored
from tequio.core.errors import ConfigError, DataError, TequioError


def lines(federation: tequio.Federation, name: str, file: str = "data.jsonl") -> list[Any]:
    """The rows of a participant's data file."""
    return [json.loads(line) for line in federation.inputs[name].files[file].decode().splitlines()]


def code(error: TequioError) -> str:
    assert error.reason is not None
    return error.reason.code


def test_a_dict_and_a_file_give_the_same(make_federation: Any) -> None:
    path = make_federation()
    one, other = (
        tequio.load_federation(path),
        tequio.load_federation(tequio.load_federation(path).table),
    )
    assert one.settings == load_federation(path)
    assert stored(other.settings) | {"participants": []} == stored(one.settings) | {
        "participants": []
    }
    assert (one.name, one.seed, one.participants) == ("small", 7, ["site0", "site1"])


def test_settings_are_replaced_and_the_first_federation_stays(
    api_settings: dict[str, Any], api_people: Any
) -> None:
    first = tequio.load_federation(api_settings, api_people)
    other = first.with_settings(
        {"train.rounds": 9, "task.max_tokens": 8}, seed=3, train={"batch_size": 4}
    )
    assert (other.settings.train.rounds, other.settings.train.batch_size, other.seed) == (9, 4, 3)
    assert other.settings.train.learning_rate == 5e-3
    assert (first.settings.train.rounds, first.seed) == (2, 0)
    assert (
        other.with_settings({"train.rounds": None}).settings.train.rounds
        == type(first.settings.train)().rounds
    )
    preset = first.with_settings({"algorithm.preset": "fedprox"})
    assert preset.settings.local.terms["fedprox"] > 0
    with pytest.raises(AttributeError):
        first.table = {}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train.ronds": 3}, "did you mean 'rounds'"),
        ({"train.rounds": 0}, "train.rounds"),
        ({"train.rounds": "many"}, "train.rounds"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_wrong_setting_is_refused_as_in_the_file(
    make_federation: Any, changes: dict[str, Any], words: str
) -> None:
    path = make_federation(folder="right")
    (key, value), *_ = changes.items()
    with pytest.raises(ConfigError, match=words) as caught:
        tequio.load_federation(path).with_settings(changes)
    table = tequio.load_federation(path).table
    top, _, leaf = key.partition(".")
    wrong = {**table, top: {**table[top], leaf: value} if leaf else value}
    with pytest.raises(ConfigError) as in_file:
        tequio.load_federation(wrong)
    assert caught.value.why == in_file.value.why
    assert str(path) in caught.value.what


def test_a_key_inside_a_value_is_refused(api_settings: dict[str, Any], api_people: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        tequio.load_federation(api_settings, api_people).with_settings({"name.low": 3})
    assert code(caught.value) == "setting-is-no-table"


def test_the_kinds_of_rows(api_settings: dict[str, Any]) -> None:
    wanted = [{"text": "a b", "label": "good"}, {"text": "c", "label": "bad"}]
    pairs = [(row["text"], row["label"]) for row in wanted]

    def made() -> Iterator[tuple[str, str]]:
        yield from pairs

    for rows in (pairs, wanted, made(), pyarrow.Table.from_pylist(wanted)):
        assert lines(tequio.load_federation(api_settings, {"north": rows}), "north") == wanted
    writing = {**api_settings, "task": {"kind": "causal"}}
    assert lines(tequio.load_federation(writing, {"a": ["one", "two"]}), "a") == [
        {"text": "one"},
        {"text": "two"},
    ]
    asked = tequio.load_federation(writing, {"a": [("why?", "so")]})
    assert lines(asked, "a") == [{"prompt": "why?", "response": "so"}]


def test_a_frame_of_pandas(api_settings: dict[str, Any]) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"text": ["a", "b"], "label": ["good", None], "n": [1, 2]})
    found = lines(tequio.load_federation(api_settings, {"north": frame}), "north")
    assert found == [{"text": "a", "label": "good", "n": 1}, {"text": "b", "n": 2}]


def test_a_dataset_with_the_names_of_its_classes(api_settings: dict[str, Any]) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["good", "bad"])}
    )
    rows = {"text": ["a", "b", "c"], "label": [0, 1, -1]}
    parts = datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features=features)})
    wanted = [{"text": "a", "label": "good"}, {"text": "b", "label": "bad"}, {"text": "c"}]
    assert lines(tequio.load_federation(api_settings, {"north": parts["train"]}), "north") == wanted
    assert (
        lines(tequio.load_federation(api_settings, {"north": parts}), "north", "train.jsonl")
        == wanted
    )


def test_tables_of_the_participants_own_file(
    api_settings: dict[str, Any], api_people: Any, tmp_path: Path
) -> None:
    given: dict[str, Any] = {
        "north": {
            "data": {"train": api_people["north"], "max_train": 9},
            "hardware": {"max_rank": 4},
        }
    }
    given |= {"south": tmp_path / "south.csv"}
    federation = tequio.load_federation(api_settings, given)
    texts = {name: text.decode() for name, text in federation.texts()}
    assert 'train = "data/north/train.jsonl"' in texts["inputs/participants/north.toml"]
    assert "max_train = 9" in texts["inputs/participants/north.toml"]
    assert "max_rank = 4" in texts["inputs/participants/north.toml"]
    assert f'path = "{tmp_path}/south.csv"' in texts["inputs/participants/south.toml"]
    written = load_federation(federation.write(tmp_path / "run"))
    files = [entry.file for entry in written.participants]
    assert files == [
        tmp_path / "run" / "inputs" / "participants" / f"{name}.toml" for name in given
    ]
    assert stored(written) | {"participants": []} == stored(federation.settings) | {
        "participants": []
    }


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("a", "good"), "SECRET"], "python-row-unusable"),
        ([("SECRET", "good", "x")], "python-row-unusable"),
        ([("SECRET", object())], "python-value-unusable"),
        ([("SECRET \ud800", "good")], "python-value-unusable"),
        (7, "python-data-unknown"),
        (b"SECRET", "python-data-unknown"),
    ],
)
def test_rows_that_cannot_be_used_are_named_and_not_shown(
    api_settings: dict[str, Any], rows: Any, expected: str
) -> None:
    with pytest.raises(DataError) as caught:
        tequio.load_federation(api_settings, {"north": rows})
    assert code(caught.value) == expected
    assert "north" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_name_is_checked_before_it_names_a_file(
    api_settings: dict[str, Any], api_people: Any
) -> None:
    with pytest.raises(ConfigError, match="name"):
        tequio.load_federation(api_settings, {"../north": api_people["north"]})
