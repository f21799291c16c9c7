"""The two configuration files: what is accepted, and that each refusal names the file and the
key.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from builders import refused
from tequio.config import Federation, load_federation, load_participant
from tequio.core.canonical import canonical_json
from tequio.core.errors import ConfigError

FEDERATION = """
name = "small"
[base]
model = "org/model"
[task]
kind = "classification"
labels = { pos = "praise", neg = "complaint" }
[adapter]
modules = ["query", "value"]
[train]
rounds = 3
[centre]
data = "public/centre.jsonl"
[gate]
slices = { public = "public/slice.jsonl" }
[[participants]]
name = "ana"
file = "ana.toml"
[[participants]]
name = "ben"
file = "/far/ben.toml"
"""
PARTICIPANT = """
name = "ana"
[data]
path = "ana.jsonl"
[hardware]
memory_gib = 4
"""


def write(folder: Path, text: str | bytes, name: str = "federation.toml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(folder: Path, text: str = FEDERATION) -> Federation:
    return load_federation(write(folder, text))


def refusal(folder: Path, text: str | bytes) -> str:
    """The message of load_federation, which names the file."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_federation(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def refusal_of_participant(folder: Path, text: str) -> str:
    path = write(folder, text, "ana.toml")
    with pytest.raises(ConfigError) as caught:
        load_participant(path, "ana")
    assert str(path) in str(caught.value)
    return str(caught.value)


def changed(old: str, new: str, text: str = FEDERATION) -> str:
    assert text.count(old) == 1
    return text.replace(old, new)


def test_defaults_and_absolute_paths(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert [str(p.file) for p in found.participants] == [
        str(tmp_path / "ana.toml"),
        "/far/ben.toml",
    ]
    assert found.gate.slices == {"public": tmp_path / "public" / "slice.jsonl"}
    assert found.centre is not None
    assert found.centre.data == tmp_path / "public" / "centre.jsonl"
    assert found.base.model == "org/model"
    assert (found.seed, found.train.rounds, found.train.patience, found.adapter.ranks) == (
        0,
        3,
        3,
        [2, 4, 8, 16],
    )


def test_paths_start_at_the_files_folder_whatever_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fed" / "models" / "mini").mkdir(parents=True)
    write(tmp_path / "fed", changed('"org/model"', '"models/mini"'))
    write(tmp_path / "fed", changed('"ana.jsonl"', '"../ana.jsonl"', PARTICIPANT), "ana.toml")
    monkeypatch.chdir(tmp_path)
    found = load_federation(Path("fed/federation.toml"))
    assert found.participants[0].file == tmp_path / "fed" / "ana.toml"
    assert found.base.model == str(tmp_path / "fed" / "models" / "mini")
    assert (
        load_participant(Path("fed/ana.toml"), "ana").data.path
        == tmp_path / "fed" / ".." / "ana.jsonl"
    )


def test_a_home_folder_is_opened_and_an_unknown_one_is_just_a_missing_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = load(tmp_path, changed('"ana.toml"', '"~/ana.toml"'))
    assert found.participants[0].file == tmp_path / "home" / "ana.toml"
    found = load(tmp_path, changed('"ana.toml"', '"~nobody-of-that-name/ana.toml"'))
    assert found.participants[0].file == tmp_path / "~nobody-of-that-name" / "ana.toml"


@pytest.mark.parametrize("model", ["m" * 300, "a\\u0000b"])
def test_a_model_name_that_can_be_no_path_stays_a_name(tmp_path: Path, model: str) -> None:
    found = load(tmp_path, changed("org/model", model))
    assert found.base.model == model.replace("\\u0000", "\0")


def test_a_byte_order_mark_is_allowed(tmp_path: Path) -> None:
    assert load_federation(write(tmp_path, b"\xef\xbb\xbf" + FEDERATION.encode())).name == "small"


UNKNOWN = [
    ('name = "small"', 'name = "small"\nsede = 1', "sede", "seed"),
    ('model = "org/model"', 'model = "org/model"\nlicense = "x"', "base.license", "licence"),
    ('kind = "class', 'max_token = 9\nkind = "class', "task.max_token", "max_tokens"),
    ("[adapter]", "[adapter]\nrank = [2]", "adapter.rank", "ranks"),
    ("rounds = 3", "learning_rat = 1e-3", "train.learning_rat", "learning_rate"),
    ("[gate]", "[algorithm]\nreduse = 'stack'\n[gate]", "algorithm.reduse", "reduce"),
    ("[centre]", "[centre]\nfederated_shares = 1", "centre.federated_shares", "federated_share"),
    ("[gate]", "[gate]\nmargins = 0.1", "gate.margins", "margin"),
    ("[gate]", "[personal]\nalpha = [1]\n[gate]", "personal.alpha", "alphas"),
    ('file = "ana.toml"', 'fil = "x"\nfile = "ana.toml"', "participants.0.fil", "file"),
    ('file = "/far/ben.toml"', 'file = "x"\nnombre = "x"', "participants.1.nombre", "name"),
    ("[gate]", "[trian]\n[gate]", "trian", "train"),
]


@pytest.mark.parametrize(("old", "new", "key", "near"), UNKNOWN, ids=[u[2] for u in UNKNOWN])
def test_an_unknown_key_is_refused_with_the_nearest(
    tmp_path: Path, old: str, new: str, key: str, near: str
) -> None:
    assert f"unknown key {key!r}, did you mean {near!r}? Known here: " in refusal(
        tmp_path, changed(old, new)
    )


@pytest.mark.parametrize(
    ("old", "new", "key", "near"),
    [
        ("memory_gib", "memory_gb", "hardware.memory_gb", "memory_gib"),
        ('path = "', 'lable = "y"\npath = "', "data.lable", "label"),
        ("[hardware]", "[hardwear]", "hardwear", "hardware"),
    ],
)
def test_an_unknown_key_of_a_participant(
    tmp_path: Path, old: str, new: str, key: str, near: str
) -> None:
    message = refusal_of_participant(tmp_path, changed(old, new, PARTICIPANT))
    assert f"unknown key {key!r}, did you mean {near!r}?" in message


@pytest.mark.parametrize(
    ("old", "key"),
    [
        ('name = "small"', "name"),
        ('model = "org/model"', "base.model"),
        ('kind = "classification"', "task.kind"),
        ('modules = ["query", "value"]', "adapter.modules"),
        ('data = "public/centre.jsonl"', "centre.data"),
    ],
)
def test_a_missing_key_is_named(tmp_path: Path, old: str, key: str) -> None:
    assert f"the key {key!r} is missing" in refusal(tmp_path, changed(old, ""))


def test_a_participant_without_a_file_is_named_where_it_should_run_here(tmp_path: Path) -> None:
    """On the roster it may lack one, for it may be elsewhere; a run on this machine needs it."""
    roster = load_federation(write(tmp_path, changed('file = "ana.toml"', ""))).participants
    with refused(ConfigError, "roster-without-file", name="ana"):
        load_participant(roster[0].file, "ana")


WRONG = [
    ("rounds = 3", 'rounds = "8"', "train.rounds: expected a whole number (got '8')"),
    ("rounds = 3", "rounds = 8.0", "train.rounds: expected a whole number (got 8.0)"),
    ("rounds = 3", "rounds = true", "train.rounds: expected a whole number (got true)"),
    ("rounds = 3", "rounds = 0", "train.rounds: expected 1 or more (got 0)"),
    ("rounds = 3", 'learning_rate = "1e-3"', "train.learning_rate: expected a number (got '1e-3')"),
    ("rounds = 3", "learning_rate = true", "train.learning_rate: expected a number (got true)"),
    (
        "rounds = 3",
        "learning_rate = -0.1",
        "train.learning_rate: expected a number above 0 (got -0.1)",
    ),
    ("rounds = 3", "learning_rate = 0", "train.learning_rate: expected a number above 0"),
    ("rounds = 3", "learning_rate = nan", "train.learning_rate: expected a finite number"),
    ("rounds = 3", "learning_rate = 1e999", "train.learning_rate: expected a finite number"),
    ("rounds = 3", "final_rate = 1.5", "train.final_rate: expected 1 or less"),
    ("rounds = 3", "final_rate = nan", "train.final_rate: "),
    ("rounds = 3", "max_steps = 1", "train: min_steps = 2 is more than max_steps = 1"),
    ("[gate]", "[gate]\nmargin = inf", "gate.margin: expected a finite number"),
    ("[gate]", "[gate]\nmargin = -0.1", "gate.margin: "),
    (
        "[gate]",
        "[algorithm]\nserver_settings = {lr = nan}\n[gate]",
        "algorithm.server_settings.lr: expected a finite",
    ),
    ("[gate]", "[personal]\nlocal_rates = [0.1, -1.0]\n[gate]", "personal.local_rates.1: "),
    ("[gate]", "[personal]\nlocal_rates = []\n[gate]", "personal.local_rates: "),
    ("[gate]", "[personal]\nalphas = [2]\n[gate]", "personal.alphas.0: "),
    ('["query", "value"]', '"query"', "adapter.modules: expected a list (got 'query')"),
    ('["query", "value"]', "[]", "adapter.modules: "),
    ('["query", "value"]', '["query", 3]', "adapter.modules.1: expected text (got 3)"),
    ('["query", "value"]', '["query"]\nranks = [4, 0]', "adapter.ranks.1: "),
    ('"org/model"', "7", "base.model: expected text (got 7)"),
    ('"org/model"', '""', "base.model: "),
    (
        '"org/model"',
        '"m"\ndtype = "float16"',
        "base.dtype: expected 'auto', 'bfloat16' or 'float32'",
    ),
    ('"classification"', '"regression"', "task.kind: expected 'classification' or 'causal'"),
    ('"public/centre.jsonl"', "3", "centre.data: expected a path, as text (got 3)"),
    ('"ana.toml"', "[]", "participants.0.file: expected a path, as text"),
    ('name = "small"', 'name = "mi grupo"', "name: expected a name: at most 64"),
    ('name = "small"', 'name = "../x"', "name: expected a name: "),
    ('name = "small"', f'name = "{"n" * 65}"', "name: expected a name: "),
    ('name = "small"', 'name = "x\\n"', "name: expected a name: "),
    ('name = "small"', 'name = "x"\nseed = -1', "seed: expected 0 or more (got -1)"),
    ('name = "ana"', 'name = "a/b"', "participants.0.name: expected a name: "),
    ('name = "ana"', 'name = "ben"', "participants: ben is on the roster twice"),
    ('name = "ana"', 'name = "centre"', "participants: the name 'centre' is taken"),
    ("{ public =", '{ "two words" =', "gate.slices.two words: expected a name: "),
    ('[centre]\ndata = "public/centre.jsonl"\n', "", "gate.slices: the centre evaluates"),
    ("[train]\n", "[[train]]\n", "train: expected a table"),
]


@pytest.mark.parametrize(("old", "new", "expected"), WRONG, ids=[f"{w[1][-30:]!r}" for w in WRONG])
def test_a_wrong_value_is_refused_with_its_key(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert expected in refusal(tmp_path, changed(old, new))


LABELS = '{ pos = "praise", neg = "complaint" }'


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("[]", "classification needs at least two different labels"),
        ('["a", "a"]', "classification needs at least two different labels"),
        ('["a", "b", "a"]', "one stands there twice"),
        ('["a", " a"]', "one stands there twice"),
        ('["a", " "]', "one is empty"),
        ('{ a = "x", "" = "y" }', "one is empty"),
        ('["a", 1]', "must be text"),
        ("{ a = 1, b = 2 }", "must be text"),
        ('"a, b"', "expected a table (label = description) or a list"),
    ],
)
def test_labels_that_cannot_be_classes(tmp_path: Path, labels: str, expected: str) -> None:
    message = refusal(tmp_path, changed(LABELS, labels))
    assert expected in message
    assert "labels" in message
    assert "dict[" not in message


def test_labels_belong_to_classification_alone(tmp_path: Path) -> None:
    causal = changed('"classification"', '"causal"')
    assert "labels: a causal task has none" in refusal(tmp_path, causal)
    assert load(tmp_path, changed(f"labels = {LABELS}", "", causal)).task.label_names() == ()
    assert "labels: classification needs" in refusal(tmp_path, changed(f"labels = {LABELS}", ""))


def test_the_order_of_labels_survives_the_ledgers_canonical_json(tmp_path: Path) -> None:
    # Canonical JSON sorts keys: a table read back from a ledger would otherwise swap the rows of
    # the head.
    found = load(tmp_path)
    again = Federation.model_validate(json.loads(canonical_json(found.model_dump(mode="json"))))
    assert again == found
    assert again.task.label_names() == found.task.label_names() == ("neg", "pos")
    listed = load(tmp_path, changed(LABELS, '["pos", "neg"]'))
    assert listed.task.label_names() == ("pos", "neg")


def test_a_whole_number_may_stand_for_a_number(tmp_path: Path) -> None:
    found = load(tmp_path, changed("rounds = 3", "learning_rate = 1\nfinal_rate = 0"))
    assert (found.train.learning_rate, found.train.final_rate) == (1.0, 0.0)


def test_one_roster_table_instead_of_a_list(tmp_path: Path) -> None:
    head, _, _ = FEDERATION.partition("[[participants]]")
    assert "participants: expected a list" in refusal(
        tmp_path, head + '[participants]\nana = "ana.toml"\n'
    )
    assert "the key 'participants' is missing" in refusal(tmp_path, head)
    assert "participants: " in refusal(tmp_path, "participants = []\n" + head)


def test_all_faults_come_in_one_message(tmp_path: Path) -> None:
    text = changed("rounds = 3", "rounds = 0\npatiense = 2")
    message = refusal(tmp_path, text)
    assert "train.rounds: " in message
    assert "unknown key 'train.patiense'" in message


@pytest.mark.parametrize("key", ["team", "hardware", "data", "schedule"])
def test_a_table_of_a_participant_is_sent_there(tmp_path: Path, key: str) -> None:
    said = "belongs into participant.toml, not into this file."
    assert f"{key!r} {said}" in refusal(tmp_path, changed("[gate]", f"[{key}]\nx = 1\n[gate]"))
    within = refusal(tmp_path, changed('file = "ana.toml"', f'file = "ana.toml"\n{key} = {{}}'))
    assert f"'participants.0.{key}' {said}" in within


@pytest.mark.parametrize("key", ["train", "gate", "participants", "centre"])
def test_a_table_of_the_federation_is_sent_there(tmp_path: Path, key: str) -> None:
    message = refusal_of_participant(
        tmp_path, changed("[hardware]", f"[{key}]\nx = 1\n[hardware]", PARTICIPANT)
    )
    assert f"{key!r} belongs into federation.toml, not into this file." in message


@pytest.mark.parametrize("value", ["True", "FALSE", "[False]"])
def test_true_and_false_in_capitals(tmp_path: Path, value: str) -> None:
    message = refusal(tmp_path, f'name = "x"\nseed = {value}\n')
    assert "line 2, the key 'seed'" in message
    assert "TOML wants true and false in lower case." in message
    assert "lower case" not in refusal(tmp_path, 'name = "x"\nseed = Truely\n')


def test_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    assert "line 3, the key 'base.model'" in refusal(tmp_path, 'name = "x"\n[base]\nmodel == "y"\n')
    assert "line 2, the key 'seed'" in refusal(
        tmp_path, 'seed = 1\nseed = 2\n[base]\nmodel = "y"\n'
    )


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "a = " + "9" * 5000], ids=["nesting", "digits"]
)
def test_a_file_that_overwhelms_the_parser_is_refused(tmp_path: Path, text: str) -> None:
    assert "cannot be read as TOML" in refusal(tmp_path, text)


def test_a_file_that_is_no_utf8_text(tmp_path: Path) -> None:
    assert "federation.toml, line 2: this is not UTF-8" in refusal(
        tmp_path, b'name = "x"\n# a\xf1o\n'
    )
    assert "looks like UTF-16. TOML is always UTF-8." in refusal(
        tmp_path, FEDERATION.encode("utf-16")
    )


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with refused(ConfigError, "config-missing") as caught:
        load_federation(tmp_path / "none.toml")
    assert str(tmp_path / "none.toml") in str(caught.value)
    with refused(ConfigError, "path-is-a-folder", file="federation.toml"):
        load_federation(tmp_path)
    with refused(ConfigError, "path-is-a-folder", file="participant.toml"):
        load_participant(tmp_path, "ana")
    inside = write(tmp_path, "", "file") / "federation.toml"
    with refused(ConfigError, "unreadable") as caught:
        load_federation(inside)
    assert str(inside) in str(caught.value)


def test_a_participants_file(tmp_path: Path) -> None:
    found = load_participant(write(tmp_path, PARTICIPANT, "ana.toml"), "ana")
    assert found.data.path == tmp_path / "ana.jsonl"
    assert found.data.train is None
    assert found.hardware.memory_gib == 4.0
    assert found.hardware.tokens_per_second is None


def test_the_name_must_be_the_rosters(tmp_path: Path) -> None:
    path = write(tmp_path, changed('"ana"', '"anna"', PARTICIPANT), "ana.toml")
    with pytest.raises(ConfigError) as caught:
        load_participant(path, "ana")
    message = str(caught.value)
    assert f"{path}: name = 'anna'." in message
    assert "calls it 'ana'" in message


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('path = "a.csv"\ntrain = "b.csv"', "data: give either path"),
        ('test = "b.csv"', "data: give either path"),
        ('path = "a.csv"\ntest = "b.csv"', "data: path is split into train"),
        ('path = "a.csv"\nvalidation_share = 0.5\ntest_share = 0.5', "leave nothing to train on"),
        ('train = "a.csv"\ntest = "b.csv"\nvalidation_share = 1.0', "data.validation_share: "),
        ('path = "a.csv"\ntest_share = 0', "data.test_share: "),
        ('path = "a.csv"\nmax_train = -1', "data.max_train: "),
        ('path = "a.csv"\ntext = 3', "data.text: expected text (got 3)"),
    ],
)
def test_data_sources_and_shares_that_contradict_each_other(
    tmp_path: Path, data: str, expected: str
) -> None:
    assert expected in refusal_of_participant(
        tmp_path, changed('path = "ana.jsonl"', data, PARTICIPANT)
    )


def test_a_share_that_is_not_used_is_not_added_up(tmp_path: Path) -> None:
    data = 'train = "a.csv"\ntest = "b.csv"\nvalidation_share = 0.9'
    found = load_participant(
        write(tmp_path, changed('path = "ana.jsonl"', data, PARTICIPANT), "ana.toml"), "ana"
    )
    assert found.data.test == tmp_path / "b.csv"


def test_the_file_used_here_is_what_toml_says(tmp_path: Path) -> None:
    # The tests above change one line of FEDERATION each: it must be legal, and every section a
    # table.
    raw = tomllib.loads(FEDERATION)
    assert [p["name"] for p in raw["participants"]] == ["ana", "ben"]
    assert load(tmp_path).task.kind == raw["task"]["kind"]
