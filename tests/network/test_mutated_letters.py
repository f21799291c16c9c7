"""Flower's own messages, damaged: each is opened, or refused by the named error."""

from __future__ import annotations

import random

import pytest

from builders import refused

pytest.importorskip("flwr")

from flwr.proto.message_pb2 import Message as Proto
from google.protobuf.message import DecodeError

from tequio.core.errors import MessageError
from tequio.runtimes.flower.envelope import list_parts, open_message, read_letter, seal

COUNT = 6000  # most of them protobuf refuses itself
LIMIT = 1 << 20  # bytes


def damaged(data: bytes, rng: random.Random) -> bytes:
    """One to three places are others."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at, kind = rng.randrange(len(out)), rng.randrange(3)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at : at + rng.randrange(1, 5)]
        else:
            out[at:at] = rng.randbytes(rng.randrange(1, 4))
    return bytes(out)


def no_part(identity: str) -> bytes:
    raise MessageError("There is no such part.")


def test_a_damaged_letter_is_opened_or_refused_by_name() -> None:
    rng, opened, refused = random.Random(0), 0, 0
    data = seal(b"x" * 300, 1, 3, 2, "1", 60.0, "y" * 64).proto().SerializeToString()
    for _ in range(COUNT):
        proto = Proto()
        try:
            proto.ParseFromString(damaged(data, rng))
        except DecodeError:
            continue
        letter = read_letter(proto)
        list_parts(letter)
        if letter.has_error():
            continue
        try:
            found, _ = open_message(letter, LIMIT, no_part)
            opened += 1
            assert len(found) <= LIMIT
        except MessageError:
            refused += 1
    assert opened > 100
    assert refused > 20


def test_a_letter_that_flower_cannot_read_has_nothing_in_it() -> None:
    proto = seal(b"x", 1, 3, 2, "1", 60.0, "y" * 64).proto()
    proto.metadata.message_type = "!"
    with refused(MessageError, "message-foreign"):
        open_message(read_letter(proto), LIMIT, no_part)
