"""Large messages travel in parts: each once, in the order of the roster, and on from where they
were when the network comes back.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from builders import refused

pytest.importorskip("flwr")

from flwr.supercore.inflatable.inflatable_object import get_object_id
from live_server import Live, Relay, at_work, resident
from network_processes import until

from tequio.core.canonical import pack_tensors
from tequio.core.errors import UpdateError
from tequio.core.messages import REQUESTS, pack_message, unpack_message
from tequio.core.types import Reply, TrainRequest
from tequio.core.update import Dense, Update
from tequio.runtimes.flower import envelope
from tequio.runtimes.flower.envelope import find_part, list_parts, open_message, remaining, seal

FLOWERS = "ignore:GitWildMatchPattern:DeprecationWarning"  # Flower's own use of a library
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings(FLOWERS)]
NAMES = ("north", "south", "a-hospital-with-a-long-name")
LARGE = Update(
    {"w": Dense(torch.arange(3_000_000, dtype=torch.float32))}, "s" * 64
)  # 12 MB: three parts


def task(index: int, round_: int = 1) -> TrainRequest:
    return TrainRequest(round_, index, NAMES[index - 1], "product", 2, 1, 1e-3, 1, LARGE)


def trained(asked: TrainRequest, payload: bytes, examples: int = 1) -> bytes:
    metrics = {"loss_first": 1.0, "loss_last": 1.0}
    reply = Reply(
        asked.round,
        asked.index,
        asked.name,
        payload=payload,
        examples=examples,
        steps=1,
        metrics=metrics,
    )
    return pack_message(reply)


def returns(data: bytes) -> bytes:
    """What came, sent back as one's own update."""
    asked = unpack_message(data, "a task", REQUESTS)
    assert isinstance(asked, TrainRequest)
    return trained(asked, pack_message(asked))


def small(data: bytes) -> bytes:
    asked = unpack_message(data, "a task", REQUESTS)
    assert isinstance(asked, TrainRequest)
    value = asked.held.entries["w"]
    assert isinstance(value, Dense)
    return trained(asked, b"small", 1 + int(value.value.sum() % 1000))


@given(st.integers(0, 3), st.integers(-2, 2), st.booleans())
def test_a_message_of_any_length_is_opened_as_it_was_sealed(
    parts: int, more: int, answer: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelope, "TASK", 400)
        patch.setattr(envelope, "ANSWER", 600)
        patch.setattr(envelope, "PART", 1000)
        data = pack_tensors(
            {"w": torch.arange(max(0, 1000 * parts + more), dtype=torch.int32).to(torch.uint8)}, {}
        )
        letter = seal(data, 1, 2, 3, "1", 60.0, "x" * 64 if answer else "")
        content = dict(letter.wanted(list(letter.places)))
        asked: list[str] = []

        def pull(identity: str) -> bytes:
            asked.append(identity)
            return find_part(content[identity], identity)

        again, places = open_message(letter.message, len(data), pull)
        assert bytes(again) == data
        assert (
            asked == list_parts(letter.message) == [node.object_id for node in letter.tree.children]
        )
        assert places == letter.places
        with refused(UpdateError, "message-too-large", size=len(data), most=len(data) - 1):
            open_message(letter.message, len(data) - 1, pull)
        if parts > 1:
            with refused(UpdateError, "message-damaged"):
                open_message(letter.message, len(data), lambda i: find_part(content[i] + b"x", i))
            with refused(UpdateError, "message-damaged"):
                open_message(letter.message, len(data), lambda i: b"")


def slowly(content: bytes) -> str:
    time.sleep(1.0)
    return str(get_object_id(content))


def test_an_answer_lives_no_longer_than_its_task_however_long_it_takes_to_cut() -> None:
    """SuperLink drops an answer that says it would, and tells nobody."""
    asked = seal(b"", 1, 2, 3, "1", 60.0).message
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelope, "get_object_id", slowly)
        meta = seal(
            pack_message(task(1)), 1, 3, 2, "1", remaining(asked), asked.metadata.message_id
        ).message.metadata
    assert meta.created_at + meta.ttl <= asked.metadata.created_at + asked.metadata.ttl


def test_equal_tensors_for_several_are_equal_parts_whatever_else_the_tasks_say() -> None:
    one, other = (
        seal(pack_message(task(i, round_)), 1, 2, i, "1", 60.0) for i, round_ in ((1, 1), (3, 20))
    )
    assert len(one.places) == 3
    assert one.places.keys() == other.places.keys()
    assert one.identity != other.identity


def test_tensors_that_a_participant_has_do_not_travel_again(hub: Live) -> None:
    node, size = hub.enrol(), len(pack_message(task(1)))
    net = hub.net(node, deadline=120.0)
    with at_work(resident(hub, node, small)):
        until(lambda: 1 in net.connections())
        (first,) = net.exchange([task(1)])
        down = net.carried()["wire"]["north"]["down"]
        (second,) = net.exchange([task(1, 2)])
        again = net.carried()["wire"]["north"]["down"]
    assert isinstance(first, Reply)
    assert isinstance(second, Reply)
    assert first.examples == second.examples
    assert size < down < 1.01 * size
    assert again < 0.01 * size


def test_large_answers_wait_at_the_server_for_their_turn(hub: Live) -> None:
    """The second participant is ready first; the first one's answer is handed over before it all
    the same.
    """
    one, two, go = hub.enrol(), hub.enrol(), Event()
    net = hub.net(one, two, deadline=200.0)

    def slowly(data: bytes) -> bytes:
        go.wait(120)
        return returns(data)

    with at_work(resident(hub, one, slowly), fast := resident(hub, two, returns)):
        until(lambda: net.connections().keys() == {1, 2})
        with ThreadPoolExecutor(1) as pool:
            got = pool.submit(
                lambda: [(reply.index, reply) for reply in net.exchange([task(1), task(2)])]
            )
            until(lambda: any("sent 12" in line for line in fast.log_lines))
            assert not got.done()
            go.set()
            replies = got.result(timeout=200)
    assert [index for index, _ in replies] == [1, 2]
    for index, reply in replies:
        assert isinstance(reply, Reply), reply
        assert reply.payload is not None
        assert bytes(reply.payload) == pack_message(task(index))


def test_a_large_answer_that_was_there_counts_though_another_never_came(hub: Live) -> None:
    one, two, go = hub.enrol(), hub.enrol(), Event()
    net = hub.net(one, two, deadline=6.0)

    def never(data: bytes) -> bytes:
        go.wait(120)
        return small(data)

    with at_work(resident(hub, one, never), resident(hub, two, returns)):
        until(lambda: net.connections().keys() == {1, 2})
        missing, there = net.exchange([task(1), task(2)])
        go.set()
    assert "no reply within 6 s" in getattr(missing, "message", "")
    assert isinstance(there, Reply), there


def test_a_large_answer_goes_on_where_it_was_when_the_network_is_back(hub: Live) -> None:
    node, relay = hub.enrol(), Relay(hub.port)
    net = hub.net(node, deadline=200.0)
    worked: list[int] = []

    def once(data: bytes) -> bytes:
        worked.append(1)
        return returns(data)

    def cut() -> None:
        """As soon as the first part of the answer has passed."""
        until(lambda: bool(worked))
        until(lambda: relay.up > 7_000_000)  # of 12 MB
        relay.cut()
        time.sleep(1.0)
        relay.mend()

    with at_work(one := resident(hub, node, once, f"127.0.0.1:{relay.port}")):
        until(lambda: 1 in net.connections())
        with ThreadPoolExecutor(2) as pool:
            got = pool.submit(lambda: list(net.exchange([task(1)])))
            pool.submit(cut).result(timeout=200)
            (reply,) = got.result(timeout=200)
    relay.close()
    assert isinstance(reply, Reply), reply
    assert reply.payload is not None
    assert bytes(reply.payload) == pack_message(task(1))
    assert len(worked) == 1
    assert any("no connection" in line for line in one.log_lines)
