"""Messages come back to the bit, and nothing but a well-formed message of an allowed kind is
read.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import refused
from tequio.core.canonical import pack_tensors, unpack_tensors
from tequio.core.errors import MessageError, UpdateError
from tequio.core.messages import KINDS, REPLIES, REQUESTS, Message, pack_message, unpack_message
from tequio.core.types import (
    DescribeRequest,
    Energy,
    EvaluateRequest,
    Failure,
    GradientRequest,
    PersonaliseRequest,
    Reply,
    SumRequest,
    TrainRequest,
)
from tequio.core.update import Dense, Factored, Update


def update(seed: int = 0) -> Update:
    g = torch.Generator().manual_seed(seed)
    factored = Factored(torch.randn(4, 2, generator=g), torch.randn(2, 3, generator=g))
    return Update(
        {"layer.0": factored, "head.weight": Dense(torch.randn(2, 2, generator=g))}, "spec"
    )


MESSAGES: list[Message] = [
    TrainRequest(
        1,
        2,
        "north",
        "product",
        4,
        10,
        1e-3,
        2**62,
        update(),
        update(1),
        "quantise",
        {"bits": 4.0},
        "b",
    ),
    EvaluateRequest(0, 1, "north", update()),
    GradientRequest(3, 0, "centre", update(), 8, 2, 7),
    DescribeRequest(0, 1, "north"),
    PersonaliseRequest(9, 1, "north", update(), 4, 12),
    SumRequest(1, 2, "north", "validate", 3, "f0", "share", b"\x00\xff"),
    SumRequest(
        1,
        2,
        "north",
        "validate",
        3,
        "f0",
        "mask",
        b"",
        request=EvaluateRequest(1, 2, "north", update()),
    ),
    Reply(
        1,
        2,
        "north",
        update(),
        b"\x00\xff",
        examples=10,
        metrics={"loss": 0.1},
        slices={"s": (0.5, 1.0)},
        energy=Energy(1.0, 2.0, "rapl", "node", 0.1),
        body="{}",
    ),
    Reply(1, 2, "north"),
    Reply(1, 2, "north", parts=[b"\x01", b""], examples=3),
    Failure(1, 2, "north", "TrainingError", "why"),
]
"""One of every kind, and a reply with nothing in it."""


def same(x: Any, y: Any) -> bool:
    if isinstance(x, Update):
        return (
            x.spec == y.spec and x.minus(y).norm() == 0.0 and x.entries.keys() == y.entries.keys()
        )
    if is_dataclass(x):
        return type(x) is type(y) and all(
            same(getattr(x, f.name), getattr(y, f.name)) for f in fields(x)
        )
    return bool(x == y) and type(x) is type(y)


def test_there_is_a_message_of_every_kind() -> None:
    assert {type(message) for message in MESSAGES} == set(KINDS.values())


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_what_is_packed_comes_back(message: Message) -> None:
    data = pack_message(message)
    assert same(message, unpack_message(data, "x", KINDS))
    assert pack_message(unpack_message(data, "x", KINDS)) == data


def test_a_kind_that_is_not_allowed_is_refused() -> None:
    with refused(MessageError, "message-of-other-kind", request="train", allowed=sorted(REPLIES)):
        unpack_message(pack_message(MESSAGES[0]), "the reply of north", REPLIES)
    with refused(
        MessageError, "message-of-other-kind", request="failure", allowed=sorted(REQUESTS)
    ):
        unpack_message(pack_message(MESSAGES[-1]), "a task", REQUESTS)


def altered(message: Message, **changes: Any) -> bytes:
    """The bytes of a message whose header has other fields."""
    tensors, header = unpack_tensors(pack_message(message), "x")
    header["fields"] = {**header["fields"], **changes}
    return pack_tensors(tensors, header)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"round": "1"}, "field-unfit"),
        ({"round": True}, "field-unfit"),
        ({"rank": 1.5}, "field-unfit"),
        ({"layout": "anything"}, "field-unfit"),
        ({"upload_settings": {"bits": "4"}}, "field-unfit"),
        ({"upload_settings": [4]}, "field-unfit"),
        ({"held": {"spec": 3}}, "field-unfit"),
        ({"held": None}, "field-unfit"),
        ({"code": "import os"}, "fields-unknown"),
    ],
)
def test_a_field_of_another_type_or_name_is_refused(changes: dict[str, Any], code: str) -> None:
    with refused(MessageError, code, source="north's task"):
        unpack_message(altered(MESSAGES[0], **changes), "north's task", REQUESTS)


def test_a_message_that_is_too_long_is_refused_before_it_is_read() -> None:
    with refused(MessageError, "message-too-long", source="x", most=10):
        unpack_message(pack_message(MESSAGES[0]), "x", REQUESTS, limit=10)


@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(UpdateError):
        unpack_message(data, "x", KINDS)


@given(position=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_gives_a_message(position: int, byte: int) -> None:
    """Never another error; whether the content may be believed is for TLS, signatures and admission
    to say.
    """
    data = bytearray(pack_message(MESSAGES[0]))
    data[position % len(data)] = byte
    try:
        unpack_message(bytes(data), "x", REQUESTS)
    except UpdateError:
        return


def test_numbers_that_are_not_finite_are_not_packed() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        pack_message(replace(Reply(1, 2, "north"), metrics={"loss": float("nan")}))
