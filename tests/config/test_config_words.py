"""Every key of both configuration files, given every kind of wrong value: what is said is ours, and
names the key.
"""

from __future__ import annotations

import copy
import datetime
import json
import math
import typing
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from builders import NEEDED
from tequio.app.network.hub.folder import enrolled, read_coordinator_folder, withdrawn
from tequio.app.network.participant.join import read_identity
from tequio.app.run_files import config_from_header
from tequio.config import Federation, ParticipantFile, validated
from tequio.core.errors import ConfigError
from tequio.core.texts.words import TEXTS
from tequio.ledger.record import Ledger
from tequio.trust.invitation import read_invitation

FEDERATION: dict[str, Any] = {**NEEDED, "participants": [{"name": "a"}]}
PARTICIPANT: dict[str, Any] = {"name": "a", "data": {"path": "x"}}
FILES: list[tuple[type[BaseModel], dict[str, Any]]] = [
    (Federation, FEDERATION),
    (ParticipantFile, PARTICIPANT),
]

NUMBERS = [-1, 0, 1, 0.5, -0.5, 10**30, math.nan, math.inf]
TIMES = [datetime.datetime(2026, 1, 1), datetime.date(2026, 1, 1), datetime.time(1, 2)]
TABLES = [{}, {"a": 1}, {"a": "b"}, {"a": math.nan}, {"€": 1}]
LISTS = [[], [[]], [1], [-1], [""], ["x"], [["a"]], [["a", "b", "c"]], [{}], [{"a": 1}], [TIMES[0]]]
VALUES = [True, "", "x", "€ x", "x" * 100, *NUMBERS, *TIMES, *TABLES, *LISTS]

THEIRS = [
    *(
        "Input should",
        "Input is",
        "Value error",
        "String should",
        "List should",
        "Field required",
        "Extra inputs",
    ),
    *(
        "type=",
        "valid string",
        "valid dictionary",
        "valid integer",
        "valid number",
        "valid list",
        "valid boolean",
    ),
    *(
        "instance of",
        "Section",
        "after validation",
        "pydantic",
        "<class",
        "[key]",
        TEXTS["en"]["reason.expected-other"],
    ),
]


def keys(
    model: type[BaseModel], above: tuple[str | int, ...] = ()
) -> Iterator[tuple[str | int, ...]]:
    """Where each key of a file is, those in tables below with it."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        for part in parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel):
                each: tuple[int, ...] = (0,) if "list" in str(field.annotation) else ()
                yield from keys(part, (*above, name, *each))


def parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in typing.get_args(annotation):
        yield from parts(argument)


def put(raw: dict[str, Any], where: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """The file with one key as `value`."""
    out = copy.deepcopy(raw)
    table: Any = out
    for part, following in pairwise(where):
        if isinstance(part, str):
            table.setdefault(part, [{}] if isinstance(following, int) else {})
        table = table[part]
    table[where[-1]] = value
    return out


def test_no_word_of_the_validator_is_left() -> None:
    refused = 0
    for model, raw in FILES:
        for where in keys(model):
            for value in VALUES:
                try:
                    validated(put(raw, where, value), model, Path("a.toml"))  # type: ignore[type-var]
                except ConfigError as error:
                    refused += 1
                    said = str(error)
                    assert [words for words in THEIRS if words in said] == [], (where, value, said)
                    assert str(where[0]) in said, (where, value, said)
    assert refused > 3000


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (
            "train.rounds",
            "5",
            "train.rounds: expected a whole number (got '5'): write it without quotes.",
        ),
        (
            "train.rounds",
            5.0,
            "train.rounds: expected a whole number (got 5.0): write it without a point.",
        ),
        ("train.rounds", True, "train.rounds: expected a whole number (got true)."),
        ("train.rounds", [5], "train.rounds: expected a whole number (got a list of 1)."),
        ("train.rounds", 0, "train.rounds: expected 1 or more (got 0)."),
        ("adapter.scale", -1, "adapter.scale: expected a number above 0 (got -1)."),
        ("adapter.scale", math.nan, "adapter.scale: expected a finite number (got nan)."),
        ("train.final_rate", 2, "train.final_rate: expected 1 or less (got 2)."),
        (
            "equity.credit",
            "true",
            "equity.credit: expected true or false (got 'true'): write it without quotes.",
        ),
        ("base.model", 7, "base.model: expected text (got 7): write it in quotes."),
        ("base.model", "", "base.model: expected text that is not empty (got '')."),
        (
            "centre.data",
            TIMES[1],
            "centre.data: expected a path, as text (got 2026-01-01): write it in quotes.",
        ),
        (
            "adapter.modules",
            "q",
            "adapter.modules: expected a list (got 'q'): write it in brackets: [ … ].",
        ),
        (
            "adapter.modules",
            [],
            "adapter.modules: expected a list of 1 or more (got an empty list).",
        ),
        (
            "adapter.kind",
            "Lora",
            "adapter.kind: expected 'lora' or 'full' (got 'Lora'), did you mean 'lora'?",
        ),
        (
            "train",
            [{"rounds": 5}],
            "train: expected a table (got a list of 1): write [train] once, in single brackets.",
        ),
        ("train", 5, "train: expected a table (got 5): write it as { key = value } or as [table]."),
        (
            "participants",
            {"a": "b"},
            "participants: expected a list (got a table): write [[participants]] for each.",
        ),
        (
            "algorithm.server_settings",
            {"lr": "1"},
            "algorithm.server_settings.lr: expected a number (got '1'): write it",
        ),
        (
            "topology.edges",
            [["a", "b", "c"]],
            "topology.edges.0: expected a list of 2 or fewer (got a list of 3).",
        ),
        ("train.round", 5, "unknown key 'train.round', did you mean 'rounds'? Known here: "),
        ("base", {}, "the key 'base.model' is missing."),
    ],
)
def test_a_fault_says_key_what_was_expected_what_was_got_and_what_to_do(
    where: str, value: Any, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        validated(put(FEDERATION, tuple(where.split(".")), value), Federation, Path("a.toml"))
    assert words in str(caught.value)


def test_a_record_that_this_version_reads_otherwise_names_the_key(tmp_path: Path) -> None:
    """As one of a newer version may be, with a key that is not known here."""
    path = tmp_path / "ledger.sqlite"
    with Ledger.create(path, {"config": put(FEDERATION, ("train", "later"), 1)}) as ledger:
        header = ledger.last("run")
    assert header is not None
    with pytest.raises(ConfigError, match=r"ledger\.sqlite: unknown key 'train\.later'"):
        config_from_header(header.body, path)


DAMAGED = [
    "",
    "{",
    "[]",
    "null",
    "7",
    '"x"',
    "{}",
    "[" * 5000,
    '{"name": 1}',
    '{"a": {"node": "x", "public_key": "k"}}',
]
COORDINATOR_FILE = {"federation": "f", "digest": "d", "address": "h:1", "tokens": {"a": "t"}}
READ: dict[str, Callable[[Path], object]] = {
    "coordinator.json": read_coordinator_folder,
    "identity.json": read_identity,
    "enrolled.json": enrolled,
    "withdrawn.json": withdrawn,
    "invitation.json": lambda folder: read_invitation(folder / "invitation.json"),
}


@pytest.mark.parametrize("name", READ)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    wrong: list[Any] = [1, [], {"a": 1}]
    odd = [
        json.dumps({**COORDINATOR_FILE, key: value}) for key in COORDINATOR_FILE for value in wrong
    ]
    texts = [*DAMAGED, *(odd if name == "coordinator.json" else [])]
    for content in [*(text.encode() for text in texts), b"\xff\xfe"]:
        path.write_bytes(content)
        if content == b"{}" and name in ("enrolled.json", "withdrawn.json"):
            continue  # nobody joined
        with pytest.raises(ConfigError) as caught:
            READ[name](tmp_path)
        assert str(path) in caught.value.what
        assert "is damaged." in caught.value.what or "is not an invitation." in caught.value.what
        assert caught.value.fix
        assert not [
            words for words in (*THEIRS, "argument", "Traceback") if words in str(caught.value)
        ]
