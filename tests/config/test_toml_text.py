"""TOML as people write it: each fault names the file, the line and the key, and what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import refused
from tequio.config import load_federation, load_participant
from tequio.config.federation import Federation
from tequio.config.other_names import KEYS, TABLES
from tequio.config.participant import ParticipantFile
from tequio.config.toml_text import decode_toml, parse_toml
from tequio.core.errors import ConfigError

FEDERATION = """name = "small"
[base]
model = "org/model"
[task]
kind = "classification"
labels = ["yes", "no"]
[adapter]
modules = ["query", "value"]
[train]
rounds = 3
[[participants]]
name = "ana"
file = "ana.toml"
"""
PARTICIPANT = 'name = "ana"\n[data]\npath = "ana.csv"\n'

FAULTS = [
    (
        "rounds = 3",
        "learning_rate = 0,003",
        10,
        "train.learning_rate",
        "Write: learning_rate = 0.003",
    ),
    (
        "rounds = 3",
        "learning_rate = 1.000,5",
        10,
        "train.learning_rate",
        "Write: learning_rate = 1000.5",
    ),
    (
        "rounds = 3",
        "final_rate = 10%",
        10,
        "train.final_rate",
        "A share is a number from 0 to 1: 0.1",
    ),
    ("rounds = 3", "rounds = 03", 10, "train.rounds", "Write: rounds = 3"),
    ("rounds = 3", "final_rate = .5", 10, "train.final_rate", "Write: final_rate = 0.5"),
    ("rounds = 3", "rounds = 1 000", 10, "train.rounds", "Write: rounds = 1000"),
    ("rounds = 3", "round_seconds = 20s", 10, "train.round_seconds", "Write: round_seconds = 20"),
    ("rounds = 3", "rounds = 3;", 10, "train.rounds", "The line ends with ';'"),
    ("rounds = 3", "rounds = 3 // few", 10, "train.rounds", "A comment begins with #"),
    ("rounds = 3", "rounds = 3\nrounds = 4", 11, "train.rounds", "It stands in line 10 already"),
    ("rounds = 3", "rounds = 3\n[base]", 11, None, "It stands in line 2 already"),
    ("rounds = 3", "rounds: 3", 10, None, "Write: rounds = 3"),
    ("rounds = 3", "rounds =", 10, "train.rounds", "It has no value"),
    ("rounds = 3", "rounds\u00a0= 3", 10, "train.rounds", "no-break space"),
    ("rounds = 3", "rounds = None", 10, "train.rounds", "Leave the key out"),
    ('"small"', "small", 1, "name", 'Write: name = "small"'),
    ('"small"', "“small”", 1, "name", 'Use straight ones: name = "small"'),
    ('"small"', "‘small’", 1, "name", 'Use straight ones: name = "small"'),
    ('"small"', "„small“", 1, "name", 'Use straight ones: name = "small"'),
    ('"small"', '"small', 1, "name", "Its quotation mark is not closed"),
    ('"small"', "'small", 1, "name", "Its quotation mark is not closed"),
    ('"query", "value"]', 'query, "value"]', 8, "adapter.modules", "Each text in a list"),
    ('"query", "value"]', '\n"query",\nvalue\n]', 10, "adapter.modules", "Each text in a list"),
    ('"value"]', '"value"', 8, "adapter.modules", "Its bracket is not closed"),
    ("[adapter]", "[adapter", 7, None, "A heading stands in brackets that are closed"),
    ('"ana.toml"', "/home/ana.toml", 13, "participants.file", 'Write: file = "/home/ana.toml"'),
    (
        '"ana.toml"',
        r'"C:\Users\ana.toml"',
        13,
        "participants.file",
        r"single quotes: file = 'C:\Users\ana.toml'",
    ),
    (
        '"ana.toml"',
        r'"C:\data\ana.toml"',
        13,
        "participants.file",
        r"single quotes: file = 'C:\data\ana.toml'",
    ),
]


def refusal(folder: Path, text: str, name: str = "federation.toml") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_federation(folder / name) if name.startswith("fed") else load_participant(
            folder / name
        )
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "fix"), FAULTS, ids=[f[1][:24] for f in FAULTS]
)
def test_a_fault_names_line_key_and_cure(
    tmp_path: Path, old: str, new: str, line: int, key: str | None, fix: str
) -> None:
    assert FEDERATION.count(old) == 1
    message = refusal(tmp_path, FEDERATION.replace(old, new))
    named = f", the key {key!r}" if key else ""
    assert f"federation.toml, line {line}{named}: this cannot be read as TOML." in message
    assert fix in message


@pytest.mark.parametrize("switch", ["True", "FALSE", "yes", "off"])
def test_a_switch_in_other_words(tmp_path: Path, switch: str) -> None:
    message = refusal(tmp_path, PARTICIPANT + f"[hardware]\nprobe = {switch}\n", "ana.toml")
    assert "line 5, the key 'hardware.probe'" in message
    assert f"Write: probe = {'true' if switch in ('True', 'yes') else 'false'}" in message


@pytest.mark.parametrize("path", [r"D:\new\tables\north.csv", r"C:\temp\b.csv", "a\tb.csv"])
def test_a_path_that_became_control_characters_is_refused(tmp_path: Path, path: str) -> None:
    message = refusal(tmp_path, PARTICIPANT.replace("ana.csv", path), "ana.toml")
    assert "data.path: it holds a tab or a line end" in message
    assert r"Write the path with / or \\, or put it in single quotes" in message


def test_a_path_in_single_quotes_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "ana.toml").write_text(PARTICIPANT.replace('"ana.csv"', r"'C:\new\ana.csv'"))
    assert load_participant(tmp_path / "ana.toml").data.path == tmp_path / r"C:\new\ana.csv"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_named_with_the_command_that_converts(
    tmp_path: Path, codec: str
) -> None:
    family = codec.upper().replace("-LE", "LE").replace("-BE", "BE")
    with refused(ConfigError, "toml-encoding", place="federation.toml", encoding=family) as caught:
        decode_toml(FEDERATION.encode(codec), "federation.toml")
    assert f"iconv -f {family}" in str(caught.value)


def test_windows_1252_names_line_and_key() -> None:
    raw = FEDERATION.replace('"org/model"', '"médico"').encode("cp1252")
    place = "federation.toml, line 3, the key 'model'"
    with refused(ConfigError, "toml-encoding", place=place, encoding="WINDOWS-1252") as caught:
        decode_toml(raw, "federation.toml")
    assert "iconv -f WINDOWS-1252 -t UTF-8" in str(caught.value)


@pytest.mark.parametrize("ends", ["\r\n", "\r"])
def test_marks_and_line_ends_of_other_systems_are_read(tmp_path: Path, ends: str) -> None:
    raw = FEDERATION.replace("\n", ends).encode("utf-8-sig")
    (tmp_path / "federation.toml").write_bytes(raw)
    assert load_federation(tmp_path / "federation.toml").name == "small"


def test_neither_a_label_nor_its_description_is_shown(tmp_path: Path) -> None:
    text = FEDERATION.replace('labels = ["yes", "no"]', "[task.labels]\nsecret = hidden words")
    message = refusal(tmp_path, text)
    assert "the key 'task.labels'" in message
    assert "secret" not in message
    assert "hidden" not in message


def fault(text: str) -> str:
    try:
        parse_toml(text, "f.toml")
    except ConfigError as error:
        return str(error)
    return ""


def test_whatever_is_cut_away_from_a_file_is_one_error_or_none() -> None:
    cuts = [
        (a, b)
        for a in range(0, len(FEDERATION), 3)
        for b in range(a + 1, min(a + 40, len(FEDERATION)), 5)
    ]
    said = [words for a, b in cuts if (words := fault(FEDERATION[:a] + FEDERATION[b:]))]
    assert len(said) > 100
    assert all(words.startswith("f.toml, line ") for words in said)


NAMES = [
    ("rounds = 3", "lr = 0.001", "train.lr", "'learning_rate'"),
    ("rounds = 3", "epochs = 3", "train.epochs", "'local_epochs'"),
    ("rounds = 3", "batch = 3", "train.batch", "'batch_size'"),
    (
        "rounds = 3",
        "per_device_train_batch_size = 3",
        "train.per_device_train_batch_size",
        "'batch_size'",
    ),
    ("rounds = 3", "num_rounds = 3", "train.num_rounds", "'rounds'"),
    ("rounds = 3", "warmup_ratio = 0.1", "train.warmup_ratio", "'final_rate'"),
    ("rounds = 3", "max_length = 64", "train.max_length", "'task.max_tokens'"),
    (
        "[train]",
        "lora_alpha = 16\n[train]",
        "adapter.lora_alpha",
        "'scale'; it is alpha / r, not alpha",
    ),
    ("[train]", "r = 8\n[train]", "adapter.r", "'ranks'"),
    ("[train]", "lora_r = 8\n[train]", "adapter.lora_r", "'ranks'"),
    ("[train]", 'target_modules = ["q"]\n[train]', "adapter.target_modules", "'modules'"),
    ("[train]", "[lora]\nr = 8\n[train]", "lora", "'adapter'"),
]


@pytest.mark.parametrize(("old", "new", "key", "ours"), NAMES, ids=[n[2] for n in NAMES])
def test_another_library_s_name_leads_to_our_key(
    tmp_path: Path, old: str, new: str, key: str, ours: str
) -> None:
    assert f"unknown key {key!r}: here it is called {ours}" in refusal(
        tmp_path, FEDERATION.replace(old, new)
    )


def test_every_name_leads_to_a_key_that_is_there() -> None:
    keys = set(Federation.model_fields) | set(ParticipantFile.model_fields)
    for model in (Federation, ParticipantFile):
        for table, field in model.model_fields.items():
            parts = (field.annotation, *getattr(field.annotation, "__args__", ()))
            keys |= {
                f"{table}.{key}" for part in parts for key in getattr(part, "model_fields", ())
            }
    assert {key for key, _ in KEYS.values()} <= keys
    assert set(TABLES.values()) <= keys


def test_nothing_is_offered_where_nothing_is_near(tmp_path: Path) -> None:
    message = refusal(tmp_path, FEDERATION.replace("rounds = 3", "zyxwvu = 3"))
    assert "unknown key 'train.zyxwvu'. Known here: rounds, " in message
    assert "did you mean" not in message


def test_a_key_of_another_table_is_sent_there(tmp_path: Path) -> None:
    message = refusal(tmp_path, FEDERATION.replace("[train]", "patience = 2\n[train]"))
    assert "'adapter.patience' belongs into the table [train]." in message


def test_a_decimal_comma_in_quotes(tmp_path: Path) -> None:
    message = refusal(tmp_path, FEDERATION.replace("rounds = 3", 'learning_rate = "0,003"'))
    assert "write it without quotes and with a point: 0.003" in message
