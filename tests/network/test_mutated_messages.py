"""Mutated messages and bodies: each is a valid message, or the one named error, and takes little
memory.
"""

from __future__ import annotations

import json
import random
import tracemalloc
from dataclasses import replace

import pytest
import torch

from benchmarks.common.mutations import mutated
from benchmarks.common.replies import SIZES, answered, personal_outcome
from tequio.core.bounds import CUT, TEXT, check_plain, cut_text, read_json
from tequio.core.errors import MessageError
from tequio.core.messages import KINDS, REPLIES, Message, pack_message, unpack_message
from tequio.core.reason import Reason
from tequio.core.replies import read_description, read_personal_outcome, read_reply
from tequio.core.types import (
    DescribeRequest,
    EvaluateRequest,
    Failure,
    PersonaliseRequest,
    Reply,
    Request,
    TrainRequest,
)
from tequio.core.update import Dense, Factored, Update

HELD = Update(
    {"layer": Factored(torch.ones(4, 2), torch.ones(2, 3)), "head.w": Dense(torch.ones(2, 2))},
    "spec",
)
REQUESTS: tuple[Request, ...] = (
    DescribeRequest(1, 1, "site0"),
    TrainRequest(1, 1, "site0", "product", 2, 4, 1e-3, 2**62, HELD),
    EvaluateRequest(1, 1, "site0", HELD),
    PersonaliseRequest(1, 1, "site0", HELD, 2, 4),
)
COUNT, LIMIT = 250, 1 << 24  # of each kind of request; bytes
MEMORY = 64 << 20  # bytes


def used(found: Reply, task: Request) -> str:
    """What the coordinator makes of a reply's body."""
    try:
        if isinstance(task, DescribeRequest):
            check_plain(read_description(found))
        if isinstance(task, PersonaliseRequest):
            check_plain(read_personal_outcome(found, SIZES))
    except MessageError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("task", REQUESTS, ids=lambda task: type(task).__name__)
def test_a_mutated_reply_is_a_reply_or_a_failure_of_its_sender(task: Request) -> None:
    rng, valid, refused = random.Random(type(task).__name__), 0, 0
    good = pack_message(answered(task))
    read = read_reply(good, task, LIMIT)
    assert isinstance(read, Reply)
    assert not used(read, task)
    tracemalloc.start()
    try:
        for _ in range(COUNT):
            data = mutated(good, rng)
            found = read_reply(data, task, LIMIT)
            assert (found.round, found.index, found.name) == (task.round, task.index, task.name)
            reason = found.message if isinstance(found, Failure) else used(found, task)
            assert len(reason.encode()) < TEXT
            assert "words words" not in reason
            valid, refused = valid + (not reason), refused + bool(reason)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused > COUNT // 2
    assert peak < MEMORY, f"{peak} bytes"


@pytest.mark.parametrize("task", REQUESTS, ids=lambda task: type(task).__name__)
def test_a_mutated_request_is_a_message_or_the_named_error(task: Request) -> None:
    rng, good, refused = random.Random(1), pack_message(task), 0
    for _ in range(COUNT):
        try:
            assert isinstance(unpack_message(mutated(good, rng), "a task", KINDS), Message)
        except MessageError:
            refused += 1
    assert refused > COUNT // 2


@pytest.mark.parametrize(
    "text",
    ['{"a": NaN}', '{"a": 1e999}', '{"a": 9007199254740993}', '{"a": "\\ud800"}', "[1]", "", "{"],
)
def test_json_that_no_record_could_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(a number|a text|it is)"):
        read_json(text)


@pytest.mark.parametrize("levels", [33, 1000, 40_000])
def test_deep_json_is_refused_by_name(levels: int) -> None:
    with pytest.raises(ValueError, match="more than 32 levels"):
        read_json("[" * levels + "]" * levels)
    with pytest.raises(ValueError, match="more than 32 levels"):
        read_json('{"a":' * levels + "1" + "}" * levels)


def test_numbers_and_texts_at_their_bounds_are_taken() -> None:
    table = {"a": 2**53, "b": -(2.0**53), "c": "é" * (TEXT // 2), "d": {"e": [True, None]}}
    check_plain(table)
    with pytest.raises(ValueError, match="more than 2048 bytes"):
        check_plain({"c": "é" * (TEXT // 2) + "x"})


def test_words_are_cut_where_they_are_sent() -> None:
    long = Failure(1, 1, "site0", "TrainingError", "é\ud800" * 5000)
    read = unpack_message(pack_message(long), "x", REPLIES)
    assert isinstance(read, Failure)
    assert read.message.startswith("é?é?")
    assert read.message.endswith(CUT)
    assert len(read.message.encode()) <= TEXT
    assert cut_text("é" * 9, 8) == "éé" + CUT


@pytest.mark.parametrize("split", ["validation", "test"])
def test_more_examples_than_a_participant_joined_with_are_refused(split: str) -> None:
    counts = {"tests": 16, "validation": 16} | {"tests" if split == "test" else split: 17}
    task = PersonaliseRequest(1, 1, "site0", HELD, 2, 4)
    reply = answered(task)
    more = replace(reply, body=json.dumps(personal_outcome("site0", **counts)))
    assert read_personal_outcome(more, {})["name"] == "site0", "nothing to compare with"
    with pytest.raises(MessageError) as caught:
        read_personal_outcome(more, SIZES)
    assert caught.value.reason == Reason(
        "too-many-examples", {"examples": 17, "split": split, "joined": 16}
    )
