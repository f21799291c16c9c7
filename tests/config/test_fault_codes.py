"""Faults of configuration files: each is a code with facts, which the Spanish page shows as a
Spanish sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builders import refused
from tequio.config import Federation, ParticipantFile
from tequio.config.load import validated
from tequio.core.errors import ConfigError
from tequio.core.texts.words import Words

SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 1,
    "base": {"model": "org/model", "licence": "MIT"},
    "task": {"kind": "classification", "labels": ["yes", "no"]},
    "adapter": {"modules": ["query"]},
    "train": {"rounds": 3},
    "participants": [{"name": "ana"}, {"name": "luis"}],
}
FAULTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"train": {"roundz": 2}}, {"code": "key-slip", "key": "train.roundz", "nearest": "rounds"}),
    (
        {"train": {"lr": 0.1}},
        {"code": "key-foreign", "key": "train.lr", "own_key": "learning_rate"},
    ),
    ({"train": {"rounds": 0}}, {"code": "expected-from", "ge": 1}),
    ({"train": {"rounds": "2"}}, {"code": "expected-whole"}),
    ({"train": {"cohort": 5}}, {"code": "cohort-too-large", "count": 5, "most": 2}),
    ({"screen": {"loss": 0.1}}, {"code": "loss-without-slices"}),
    ({"task": {"kind": "classification", "labels": ["yes"]}}, {"code": "labels-too-few"}),
    ({"algorithm": {"preset": "fedpro"}}, {"code": "preset-unknown", "nearest": "fedprox"}),
    ({"participants": [{"name": "ana"}, {"name": "ana"}]}, {"code": "name-twice", "name": "ana"}),
]


@pytest.mark.parametrize(
    ("change", "expected"), FAULTS, ids=[str(row[1]["code"]) for row in FAULTS]
)
def test_a_fault_is_a_code_with_facts(change: dict[str, Any], expected: dict[str, Any]) -> None:
    raw = {
        key: {**SMALL.get(key, {}), **item} if isinstance(item, dict) else item
        for key, item in change.items()
    }
    with refused(ConfigError, "keys-unfit", path="federation.toml") as caught:
        validated({**SMALL, **raw}, Federation, Path("federation.toml"))
    assert caught.value.reason is not None
    (fault,) = caught.value.reason.facts["faults"]
    found = fault["facts"].get("why", fault)
    assert {
        "code": found["code"],
        **{k: found["facts"][k] for k in expected if k != "code"},
    } == expected
    spanish = Words("es").reason(caught.value.reason)
    assert spanish.startswith("federation.toml: ")
    assert spanish != str(caught.value)


def test_several_faults_stand_in_one_error() -> None:
    raw = {
        "name": "ana",
        "data": {"path": "a.csv", "validation_share": "0,2"},
        "energy": {"country": "Atlantis"},
    }
    with refused(ConfigError, "keys-unfit") as caught:
        validated(raw, ParticipantFile, Path("ana.toml"))
    assert caught.value.reason is not None
    first, second = caught.value.reason.facts["faults"]
    assert (first["code"], first["facts"]["hint"]["facts"]) == ("fault-got-hint", {"value": "0.2"})
    assert second["facts"]["key"] == "energy.country"
    assert "data.validation_share: expected a number (got '0,2'): write it without quotes" in str(
        caught.value
    )
