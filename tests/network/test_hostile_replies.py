"""What arrives in place of a reply: hostile, damaged, or of another round, it is a failure of that
participant alone.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("flwr")

from live_server import Live

from tequio.core.canonical import pack_tensors, unpack_tensors
from tequio.core.errors import UpdateError
from tequio.core.messages import REPLIES, pack_message, unpack_message
from tequio.core.reason import Reason
from tequio.core.texts.words import sent_reason
from tequio.core.types import DescribeRequest, Failure, Reply
from tequio.runtimes.flower.envelope import seal

FLOWERS = "ignore:GitWildMatchPattern:DeprecationWarning"  # Flower's own use of a library
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings(FLOWERS)]


TASK = DescribeRequest(4, 1, "north")


def came(hub: Live, data: bytes, limit: int = 1 << 20) -> Reply | Failure:
    """What the exchange makes of these bytes as the reply to TASK."""
    return hub.net(1, limit=limit).read(seal(data, 1, 1, 2, "4", 60.0, "x").message, TASK)


# what arrives: hostile, damaged, of another round


@pytest.mark.parametrize(
    "reply",
    [
        Reply(3, 1, "north"),
        Reply(5, 1, "north"),
        Reply(4, 2, "north"),
        Reply(4, 1, "south"),
        Failure(3, 1, "north", "TrainingError", "why"),
    ],
)
def test_a_reply_for_another_round_or_of_another_participant_is_a_failure(
    hub: Live, reply: Reply | Failure
) -> None:
    got = came(hub, pack_message(reply))
    assert isinstance(got, Failure)
    assert got.message == "its reply is of another round or participant"
    assert (got.round, got.index, got.name) == (4, 1, "north")


def test_the_right_reply_is_taken(hub: Live) -> None:
    assert came(hub, pack_message(Reply(4, 1, "north", examples=7))) == Reply(
        4, 1, "north", examples=7
    )


def test_a_task_in_place_of_a_reply_is_refused(hub: Live) -> None:
    got = came(hub, pack_message(TASK))
    assert isinstance(got, Failure)
    assert sent_reason(got.message).code == "message-of-other-kind"


def test_an_oversized_reply_is_refused_unread(hub: Live) -> None:
    got = came(hub, b"\x00" * 2000, limit=1000)
    assert isinstance(got, Failure)
    assert sent_reason(got.message) == Reason("message-too-large", {"size": 2000, "most": 1000})


@given(st.binary(max_size=300))
def test_noise_is_a_failure_of_that_participant_alone(hub: Live, data: bytes) -> None:
    assert isinstance(came(hub, data), Failure)


@given(position=st.integers(0, 10_000), data=st.binary(min_size=1, max_size=9))
def test_a_damaged_reply_is_a_failure_or_a_reply_to_this_task(
    hub: Live, position: int, data: bytes
) -> None:
    """Never another error, never one for another participant."""
    whole = bytearray(pack_message(Reply(4, 1, "north", examples=3, metrics={"loss": 0.5})))
    at = position % len(whole)
    whole[at : at + len(data)] = data
    got = came(hub, bytes(whole))
    assert (got.round, got.index, got.name) == (4, 1, "north")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    field=st.sampled_from(
        ["round", "index", "name", "update", "payload", "parts", "metrics", "energy"]
    ),
    value=JSON,
)
def test_a_field_of_any_content_is_refused_or_of_its_type(field: str, value: Any) -> None:
    tensors, header = unpack_tensors(pack_message(Reply(4, 1, "north")), "x")
    header["fields"] = {**header["fields"], field: value}
    try:
        data = pack_tensors(tensors, header)
    except ValueError:
        return  # NaN: no JSON, so nobody can send it so
    try:
        found = unpack_message(data, "x", REPLIES)
    except UpdateError:
        return
    assert isinstance(found, Reply)
    assert isinstance(found.round, int)
    assert isinstance(found.name, str)
