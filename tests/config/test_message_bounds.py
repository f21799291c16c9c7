"""Words from configuration fit into messages: an honest participant is never refused for the length
of what its file says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from benchmarks.common.replies import description, personal_outcome
from builders import NEEDED
from tequio.app.assembly.profile import ParticipantProfile
from tequio.config import Federation, ParticipantFile, validated
from tequio.config.fields import MOST_PULLED, MOST_TRIED
from tequio.core.bounds import TEXT, check_text
from tequio.core.errors import ConfigError
from tequio.core.messages import REPLIES, pack_message, unpack_message
from tequio.core.replies import read_description, read_personal_outcome
from tequio.core.reply_schemas import Name, Text
from tequio.core.types import Reply
from tequio.measure.currencies import currencies

FEDERATION: dict[str, Any] = {**NEEDED, "participants": [{"name": "a"}]}
PARTICIPANT: dict[str, Any] = {"name": "a", "data": {"path": "x"}}
LONGEST = "é" * (TEXT // 2)
LONGEST_NAME = "n" * 64


def with_value(table: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy in which the key is so."""
    copy: dict[str, Any] = json.loads(json.dumps(table))
    *path, last = key.split(".")
    here: Any = copy
    for part in path:
        here = here[int(part)] if part.isdigit() else here.setdefault(part, {})
    here[last] = value
    return copy


def read(key: str, value: Any) -> Any:
    """What the file of this key is, with this value."""
    file, _, rest = key.partition(":")
    kind, table = (
        (Federation, FEDERATION) if file == "federation" else (ParticipantFile, PARTICIPANT)
    )
    return validated(with_value(table, rest, value), kind, Path(f"{file}.toml"))


WORDS = (
    "participant:data.licence",
    "participant:data.consent",
    "participant:hardware.device",
    "federation:base.licence",
)
NAMES = ("participant:name", "federation:name", "federation:participants.0.name")
LISTS = {
    "local_rates": (1e-3, MOST_TRIED),
    "private_rates": (1e-3, MOST_TRIED),
    "alphas": (0.5, MOST_TRIED),
    "mixes": (0.5, MOST_TRIED),
    "ditto": (0.5, MOST_PULLED),
}


@pytest.mark.parametrize("key", WORDS)
def test_words_have_the_bound_of_a_message_and_the_error_names_the_key(key: str) -> None:
    read(key, LONGEST)
    assert TypeAdapter(Text).validate_python(LONGEST) == LONGEST
    with pytest.raises(ConfigError) as refused:
        read(key, LONGEST + "x")
    said = str(refused.value)
    assert key.partition(":")[2] in said
    assert "2049 bytes" in said
    assert "at most 2048" in said


@pytest.mark.parametrize("key", NAMES)
def test_names_are_shorter_than_those_of_messages(key: str) -> None:
    read(key, LONGEST_NAME)
    assert TypeAdapter(Name).validate_python(LONGEST_NAME) == LONGEST_NAME
    with pytest.raises(ConfigError, match=f"{key.partition(':')[2]}: expected a name"):
        read(key, LONGEST_NAME + "n")


@pytest.mark.parametrize("form", [list, dict])
def test_a_label_has_the_bound_of_a_message_and_is_not_quoted(form: type) -> None:
    def labels(long: str) -> Any:
        return {long: "words", "b": "words"} if form is dict else [long, "b"]

    read("federation:task.labels", labels(LONGEST))
    check_text(LONGEST)
    with pytest.raises(ConfigError, match=r"labels: of one, it has 2049 bytes") as refused:
        read("federation:task.labels", labels(LONGEST + "x"))
    assert "éé" not in str(refused.value)


def test_a_currency_of_a_file_is_one_of_a_message() -> None:
    for code in currencies():
        body = personal_outcome("a")
        body["money"]["currency"] = code
        read_personal_outcome(Reply(1, 1, "a", body=json.dumps(body)), {})


@pytest.mark.parametrize("key", LISTS)
def test_lists_of_personal_models_are_bounded_by_name(key: str) -> None:
    value, most = LISTS[key]
    read(f"federation:personal.{key}", [value] * most)
    with pytest.raises(ConfigError, match=f"personal.{key}: expected a list of {most} or fewer"):
        read(f"federation:personal.{key}", [value] * (most + 1))


def test_the_longest_description_of_a_participant_is_read() -> None:
    """As it travels: packed, unpacked, and read by the coordinator's schemas."""
    file = read("participant:data", {"path": "x", "licence": LONGEST, "consent": LONGEST})
    hardware = read("participant:hardware", {"device": LONGEST}).hardware
    said = description("s" * 64)
    said["told"] |= {"name": LONGEST_NAME, "hardware": hardware.model_dump(exclude_none=True)}
    said["told"]["data"] |= {"licence": file.data.licence, "consent": file.data.consent}
    said["told"]["data"]["balance"] = {"train": {LONGEST: 3, "b": 3}}
    reply = Reply(1, 1, LONGEST_NAME, body=json.dumps(said))
    found = unpack_message(pack_message(reply), "a reply", REPLIES)
    assert isinstance(found, Reply)
    profile = ParticipantProfile.of(found.name, read_description(found)["told"])
    assert profile.data["licence"] == LONGEST
    assert profile.hardware.device == LONGEST


def test_the_most_candidates_and_fits_are_read() -> None:
    body = personal_outcome("a")
    score, fit = (
        body["candidates"]["base"],
        body["fits"]["local"] | {"diverged": [1e-3] * MOST_TRIED},
    )
    names = [f"shared + {k / 1e4:g} private" for k in range(MOST_TRIED + 1)]
    names += [f"{1 - k / 1e4:g} shared + {k / 1e4:g} local" for k in range(MOST_TRIED)]
    pulled = [f"ditto {1e-3 + k / 1e9:g}" for k in range(MOST_PULLED)] + [
        f"ditto {k:g}" for k in range(MOST_PULLED)
    ]
    pulled = sorted(set(pulled))[:MOST_PULLED]
    body["candidates"] = dict.fromkeys(["base", "local", "shared", *names, *pulled], score)
    body["fits"] = dict.fromkeys(["local", "private", *pulled], fit)
    found = read_personal_outcome(Reply(1, 1, "a", body=json.dumps(body)), {})
    assert len(found["candidates"]) == 3 + 2 * MOST_TRIED + 1 + MOST_PULLED
    assert len(found["fits"]) == 2 + MOST_PULLED
