"""What is written parses back to the same values, is commented, and overwrites nothing."""

from __future__ import annotations

import os
import tempfile
import textwrap
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import refused
from tequio.config import Federation, ParticipantFile, load_federation, load_participant
from tequio.config.reference import about, comments
from tequio.config.starter import BASES, write_starter
from tequio.config.templates import to_toml, write_federation
from tequio.core.errors import ConfigError, ResourceError

Task = Literal["classification", "causal"]
TEXT = st.text(
    st.characters(exclude_categories=["Cs"]), max_size=12
)  # all but surrogates: with \n " ' \ DEL NUL 😀
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)
LABELS = st.dictionaries(TEXT.filter(str.strip), TEXT, min_size=2, max_size=4).filter(
    lambda d: len({label.strip() for label in d}) == len(d)
)
NUMBERS = st.floats(min_value=5e-324, max_value=1000.0, allow_nan=False)
PATHS = TEXT.map(
    lambda text: "C:\\d\\" + "".join(c for c in text if c not in "\t\n\r\b\f")
)  # a backslash is an ordinary character of a name here


def small(**sections: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "name": "small",
        "base": {"model": "org/model"},
        "task": {"kind": "classification", "labels": {"neg": "bad", "pos": "good"}},
        "adapter": {"modules": ["query"]},
    }
    return base | sections


def person(name: str = "ana", **data: Any) -> dict[str, Any]:
    return {"name": name, "data": {"path": "a.csv"} | data}


@settings(max_examples=60, deadline=None)
@given(
    NAMES,
    LABELS,
    NUMBERS,
    st.integers(0, 2**70),
    st.lists(TEXT.filter(bool), min_size=1, max_size=3),
)
def test_a_federation_parses_back_to_the_same_values(
    name: str, labels: dict[str, str], rate: float, seed: int, modules: list[str]
) -> None:
    raw = small(
        name=name,
        seed=seed,
        task={"kind": "classification", "labels": labels},
        adapter={"modules": modules},
        train={"learning_rate": rate, "round_seconds": None},
        centre={"data": "c.jsonl"},
        gate={"slices": {name: "s.jsonl"}},
        algorithm={"server_settings": {"momentum": rate, name: 1}},
    )
    with tempfile.TemporaryDirectory() as folder:
        path = write_federation(Path(folder), raw, [person("ana"), person("ben.b-c_d")])
        root = path.resolve().parent
        found = load_federation(path)
        assert {p.name: p.file for p in found.participants} == {
            n: root / "participants" / f"{n}.toml" for n in ("ana", "ben.b-c_d")
        }
        assert all(load_participant(p.file, p.name).name == p.name for p in found.participants)
    assert (found.name, found.seed, found.task.labels) == (name, seed, labels)
    assert found.task.label_names() == tuple(sorted(labels))
    assert found.adapter.modules == modules
    assert (found.train.learning_rate, found.train.round_seconds) == (rate, None)
    assert found.gate.slices == {name: root / "s.jsonl"}
    assert found.algorithm.server_settings == {"momentum": rate, name: 1.0}


@settings(max_examples=60, deadline=None)
@given(NAMES.filter(lambda n: n != "centre"), PATHS, TEXT, TEXT, NUMBERS, st.booleans())
def test_a_participant_parses_back_to_the_same_values(
    name: str, path: str, column: str, consent: str, memory: float, probe: bool
) -> None:
    raw = person(name, path=path, text=column, consent=consent)
    raw["hardware"] = {"memory_gib": memory, "probe": probe, "max_rank": None}
    with tempfile.TemporaryDirectory() as folder:
        write_federation(Path(folder), small(), [raw])
        file = Path(folder).resolve() / "participants" / f"{name}.toml"
        found = load_participant(file, name)
    assert found.data.path == file.parent / path
    assert (found.data.text, found.data.consent, found.data.train) == (column, consent, None)
    assert (found.hardware.memory_gib, found.hardware.probe, found.hardware.max_rank) == (
        memory,
        probe,
        None,
    )


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        TEXT,
        st.one_of(TEXT, st.booleans(), st.integers(), st.lists(TEXT), st.dictionaries(TEXT, TEXT)),
    )
)
def test_any_mapping_of_tables_and_scalars_parses_back(value: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(value, "")) == value
    assert tomllib.loads(to_toml({"top": value, "rows": [value]}, "")) == {
        "top": value,
        "rows": [value],
    }


def test_nested_tables_stay_on_one_line() -> None:
    text = to_toml({"a": {"b": {"two words": 1, "dotted.key": Path("C:\\x"), "none": None}}}, "")
    assert text == '\n[a]\nb = { "two words" = 1, "dotted.key" = "C:\\\\x" }\n'
    assert tomllib.loads(text) == {"a": {"b": {"two words": 1, "dotted.key": "C:\\x"}}}


@pytest.mark.parametrize("task", get_args(Task))
def test_the_starter_is_legal_and_says_what_it_means(tmp_path: Path, task: Task) -> None:
    path, files = write_starter(tmp_path / "mi grupo ñandú", task, None)
    assert sorted(files) == sorted(
        p for p in (tmp_path / "mi grupo ñandú").rglob("*") if p.is_file()
    )
    found = load_federation(path)
    assert found.name == "mi-grupo-and"  # letters outside ASCII cannot stand in a name
    assert (found.base.model, found.base.licence) == (BASES[task], "Apache-2.0")
    assert found.task.label_names() == (
        ("negative", "positive") if task == "classification" else ()
    )
    assert [p.name for p in found.participants] == ["north", "south"]
    for entry in found.participants:
        data = load_participant(entry.file, entry.name).data.path
        assert isinstance(data, Path)
        assert data.resolve() == path.resolve().parent / "data" / f"{entry.name}.jsonl"


@pytest.mark.parametrize(
    ("folder", "name"), [("_-.", "federation"), ("ñ", "federation"), ("a" * 99, "a" * 64)]
)
def test_the_starter_finds_a_legal_name_for_any_folder(
    tmp_path: Path, folder: str, name: str
) -> None:
    assert load_federation(write_starter(tmp_path / folder, "causal", None)[0]).name == name


def test_the_starter_claims_no_licence_for_a_model_of_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "mini").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    base = load_federation(write_starter(Path("a"), "causal", "models/mini")[0]).base
    assert (base.model, base.licence) == (str(tmp_path / "models" / "mini"), "not stated")
    base = load_federation(write_starter(Path("b"), "causal", "org/model")[0]).base
    assert (base.model, base.licence) == ("org/model", "not stated")


def test_each_section_has_its_comment(tmp_path: Path) -> None:
    tables: dict[str, Any] = {
        name: {}
        for name in (
            "train",
            "algorithm",
            "local",
            "gate",
            "screen",
            "topology",
            "personal",
            "equity",
            "budget",
            "privacy",
        )
    }
    further = {"bases": [{"name": "mini", "model": "m"}], "distil": {}}
    accounts = {"energy": {}, "money": {"currency": "EUR", "per_kwh": 0.3}}
    people = [
        person() | {"hardware": {}, "team": {}, "schedule": {}, **accounts, "budget": {}},
        person("ben"),
    ]
    main = write_federation(
        tmp_path,
        small(**tables, **further, **accounts, centre={"data": "c"}),
        people,
        {"ben": "mini"},
    )
    timed = write_federation(
        tmp_path / "timed", small(shift={"start": "2026-01-01T00:00:00Z"}), [person("ana")]
    )
    texts = [path.read_text(encoding="utf-8") for path in (main, timed)]
    own = (tmp_path / "participants" / "ana.toml").read_text(encoding="utf-8")
    assert texts[0].startswith(commented(about("federation")))
    assert own.startswith(commented(about("participant")))
    sections = [
        name
        for name in (*Federation.model_fields, *ParticipantFile.model_fields)
        if name not in ("name", "seed")
    ]
    assert len(sections) == 29  # 21 of federation.toml, eight of participant.toml
    for name in sections:
        file = "participant" if name in ("data", "hardware", "team", "schedule") else "federation"
        header = f"[[{name}]]" if name in ("participants", "bases") else f"[{name}]"
        whole = own if file == "participant" else "".join(texts)
        assert f"{commented(about(file, name))}{header}\n" in whole, name


def commented(words: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(words, 98, break_on_hyphens=False))


@pytest.mark.parametrize("task", get_args(Task))
def test_each_key_has_its_comment_where_it_stands_first(tmp_path: Path, task: Task) -> None:
    for path in write_starter(tmp_path, task, None)[1]:
        file = "federation" if path.name == "federation.toml" else "participant"
        text, words = path.read_text(encoding="utf-8"), comments(file)
        for name, value in tomllib.loads(text).items():
            rows = value if isinstance(value, list) else [value]
            for key in (
                [f"{name}.{leaf}" for leaf in rows[0]] if isinstance(rows[0], dict) else [name]
            ):
                assert f"{commented(words[key])}{key.rpartition('.')[2]} = " in text, key


@pytest.mark.parametrize("there", ["federation.toml", "participants/ben.toml"])
@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_is_overwritten(tmp_path: Path, there: str, dangling: bool) -> None:
    path = tmp_path / there
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(tmp_path / "elsewhere") if dangling else path.write_text("mine")
    with refused(ConfigError, "path-exists") as caught:
        write_federation(tmp_path, small(), [person("ana"), person("ben")])
    assert str(path) in str(caught.value)
    assert [p for p in tmp_path.rglob("*.toml") if p.is_file() or p.is_symlink()] == [path]
    assert dangling or path.read_text() == "mine"


def test_other_files_beside_are_left_alone_and_not_listed(tmp_path: Path) -> None:
    other = tmp_path / "participants" / "west.toml"
    other.parent.mkdir()
    other.write_text("mine")
    _, files = write_starter(tmp_path, "causal", None)
    assert other not in files
    assert len(files) == 3


@pytest.mark.parametrize(
    ("federation", "participants", "expected"),
    [
        (small(name="two words"), [person()], "federation.toml: name: expected a name"),
        (
            small(train={"roundz": 3}),
            [person()],
            "federation.toml: unknown key 'train.roundz', did you mean 'rounds'?",
        ),
        (
            small(),
            [person(), person()],
            "federation.toml: participants: ana is on the roster twice",
        ),
        (small(), [], "federation.toml: participants"),
        (small(), [person("../x")], "x.toml: name: expected a name"),
        (small(), [person(max_train=0)], "ana.toml: data.max_train: "),
        (small(), [{"data": {"path": "a.csv"}}], "0.toml: the key 'name' is missing"),
        (small(), [person(path="a\udce9.csv")], "not UTF-8"),
    ],
)
def test_illegal_values_are_config_errors_and_write_nothing(
    tmp_path: Path, federation: dict[str, Any], participants: list[dict[str, Any]], expected: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        write_federation(tmp_path / "new", federation, participants)
    assert expected in str(caught.value)
    assert list(tmp_path.rglob("*")) == []


def test_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with refused(ResourceError, "folder-unwritable"):
        write_starter(tmp_path / "file" / "sub", "causal", None)
    with refused(ResourceError, "folder-unwritable"):
        write_starter(tmp_path / ("n" * 300), "causal", None)
    assert os.listdir(tmp_path) == ["file"]
