"""A task or an answer that is lost on the way is sent again within seconds, whatever moment the
connection breaks at.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from threading import Event

import pytest

pytest.importorskip("flwr")

from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from live_server import Live, Resident, at_work, echo, resident
from network_processes import until

from benchmarks.common.proxy import Proxy
from tequio.core.messages import pack_message, unpack_message
from tequio.core.types import DescribeRequest, Failure, Reply, Request
from tequio.runtimes.flower.client import Answer
from tequio.runtimes.flower.long_poll import LongPoll, Question
from tequio.runtimes.flower.runtime import FlowerRuntime

FLOWERS = "ignore:GitWildMatchPattern:DeprecationWarning"  # Flower's own use of a library
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings(FLOWERS)]

DEADLINE = 400.0  # seconds: far more than any exchange here may take
# seconds in which a lost message is made up for, on a slow machine; else the deadline is what ends
# it
SOON = 45.0
LARGE = 30_000  # bytes of an answer by which a chunk of it is known
NAME = (
    "north" * 400
)  # so long that a chunk with a task is known by its length, and as long as a text may be


def task(round_: int) -> DescribeRequest:
    return DescribeRequest(round_, 1, NAME)


class Memory:
    """Answers as a participant does: a task that it just did is answered from memory. done: rounds
    of those that it did.
    """

    def __init__(self, body: str = "") -> None:
        self.done: list[int] = []
        self._body, self._last = body, (b"", b"")

    def __call__(self, data: bytes) -> bytes:
        if self._last[0] == data:
            return self._last[1]
        asked = unpack_message(data, "a task", ["describe"])
        assert isinstance(asked, DescribeRequest)
        self.done.append(asked.round)
        self._last = (
            data,
            pack_message(Reply(asked.round, asked.index, asked.name, body=self._body)),
        )
        return self._last[1]


@contextmanager
def behind_proxy(hub: Live, answer: Answer) -> Iterator[tuple[FlowerRuntime, Proxy, Resident]]:
    """A participant that is connected through a proxy, and the runtime that asks it."""
    node, proxy = hub.enrol(), Proxy(hub.port)
    net = hub.net(node, deadline=DEADLINE)
    try:
        with at_work(one := resident(hub, node, answer, f"127.0.0.1:{proxy.port}")):
            until(lambda: 1 in net.connections())
            yield net, proxy, one
    finally:
        proxy.close()


def ask(net: FlowerRuntime, request: Request) -> float:
    """Seconds until the reply was there."""
    began = time.monotonic()
    (reply,) = net.exchange([request])
    assert isinstance(reply, Reply), reply
    assert reply.round == request.round
    return time.monotonic() - began


# who holds what, as gateway and exchange see it


def question(long_poll: LongPoll, node: int = 1) -> Question:
    return asyncio.run(long_poll.due(node, 0.0))


def took(long_poll: LongPoll) -> None:
    long_poll.fetched(question(long_poll), True)


def test_a_participant_that_asks_while_its_answer_is_awaited_holds_nothing() -> None:
    long_poll = LongPoll()
    long_poll.fetched(question(long_poll), False)
    long_poll.task(1)
    assert not long_poll.holds_nothing(1), "the task waits for it"
    took(long_poll)
    assert not long_poll.holds_nothing(1), "it works"
    question(long_poll)  # the answer with the task was lost
    assert long_poll.holds_nothing(1)
    long_poll.task(1)
    assert not long_poll.holds_nothing(1), "sent again, once"
    took(long_poll)
    assert not long_poll.holds_nothing(1)


def test_an_older_question_that_ends_late_says_nothing_of_the_task_that_a_newer_one_took() -> None:
    long_poll = LongPoll()
    long_poll.fetched(question(long_poll), False)
    stale = question(long_poll)  # held at the gateway, its connection is broken
    newer = question(long_poll)
    long_poll.task(1)
    long_poll.fetched(replace(newer, sent=1), True)
    long_poll.fetched(replace(stale, sent=1), False)
    assert not long_poll.holds_nothing(1)


def test_a_task_that_an_older_question_took_is_lost() -> None:
    """Held at the gateway for a connection that is broken, it fetches the task and tells nobody."""
    long_poll = LongPoll()
    long_poll.fetched(question(long_poll), False)
    stale = question(long_poll)
    newer = question(long_poll)
    long_poll.task(1)
    long_poll.fetched(replace(stale, sent=1), True)
    assert not long_poll.holds_nothing(1), "nobody knows yet"
    long_poll.fetched(replace(newer, sent=1), False)
    assert long_poll.holds_nothing(1)


def test_a_question_that_found_nothing_before_the_task_was_sent_says_nothing() -> None:
    long_poll = LongPoll()
    early = question(long_poll)
    long_poll.task(1)
    long_poll.fetched(early, False)
    assert not long_poll.holds_nothing(1)
    long_poll.fetched(question(long_poll), False)  # the server had it no more
    assert long_poll.holds_nothing(1)


def test_tasks_of_an_earlier_coordinator_do_not_stand_between_a_participant_and_its_task() -> None:
    """The server still has one; were the next question held, the participant would always be one
    task behind.
    """
    long_poll = LongPoll()
    long_poll.task(1)
    took(long_poll)  # the old one
    assert asyncio.run(asyncio.wait_for(long_poll.due(1, 60.0), 5.0)).sent == 1, (
        "not held: there may be more"
    )
    long_poll.fetched(question(long_poll), True)  # the new one
    long_poll.fetched(question(long_poll), False)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(long_poll.due(1, 60.0), 0.2))


# over a real line


def test_a_task_that_is_lost_on_its_way_is_sent_again_within_seconds(hub: Live) -> None:
    """The line breaks as the task passes, twice; the participant does it once."""
    answer, armed = Memory(), Event()

    def cut(chunk: bytes, up: bool) -> bool:
        lost = armed.is_set() and not up and len(chunk) > len(NAME) // 2  # a task is in it
        if lost:
            armed.clear()
        return lost

    with behind_proxy(hub, answer) as (net, proxy, _):
        ask(net, task(1))
        proxy.cut = cut
        for round_ in (2, 3):
            armed.set()
            assert ask(net, task(round_)) < SOON
            assert not armed.is_set(), "nothing was lost"
        assert answer.done == [1, 2, 3]
        assert net.awaited() == []


def test_an_answer_that_is_lost_on_its_way_is_made_up_for_from_memory(hub: Live) -> None:
    """The line breaks as the answer travels, then as the server's word that it has it travels
    back.
    """
    answer, armed, passed = Memory("x" * LARGE), Event(), Event()
    ways = {"answer": True}

    def cut(chunk: bytes, up: bool) -> bool:
        if not armed.is_set():
            return False
        if ways["answer"]:
            lost = up and len(chunk) > LARGE // 4
        else:
            passed.set() if up and len(chunk) > LARGE // 4 else None
            lost = passed.is_set() and not up
        if lost:
            armed.clear()
        return lost

    with behind_proxy(hub, answer) as (net, proxy, _):
        ask(net, task(1))
        proxy.cut = cut
        for round_, way in ((2, True), (3, False)):
            ways["answer"] = way
            armed.set()
            assert ask(net, task(round_)) < SOON
            assert not armed.is_set(), "nothing was lost"
    assert answer.done == [1, 2, 3]


def test_an_answer_that_the_server_gave_out_to_nobody_is_asked_for_again(hub: Live) -> None:
    """As where SuperLink is killed while it hands the answer to the coordinator: it never gives it
    a second time.
    """
    answer = Memory()
    with behind_proxy(hub, answer) as (net, _, _one):
        sent = net.send(task(7), net.connections()[1])
        asked = PullAppMessagesRequest(message_ids=[sent.message])
        until(
            lambda: bool(
                hub.grid.ask(lambda grid: grid._runtime_client.PullMessages(asked)).messages_list
            ),
            60,
        )
        waiting = {1: sent}
        began = time.monotonic()
        (reply,) = net.arrivals(waiting, began + DEADLINE)
        assert isinstance(reply, Reply)
        assert time.monotonic() - began < SOON
    assert answer.done == [7]


def test_resets_at_random_moments_stop_nothing(hub: Live) -> None:
    """Rounds go on while the line breaks again and again, and each ends long before its
    deadline.
    """
    draw, over, answer = random.Random(5), Event(), Memory("x" * LARGE)
    with behind_proxy(hub, answer) as (net, proxy, _), ThreadPoolExecutor(1) as pool:

        def breaking() -> int:
            return sum(proxy.reset() for _ in range(1000) if not over.wait(draw.uniform(0.05, 1.2)))

        broken = pool.submit(breaking)
        end, took, rounds = time.monotonic() + 12.0, list[float](), 0
        try:
            while time.monotonic() < end:
                rounds += 1
                took.append(ask(net, task(rounds)))
        finally:
            over.set()
        assert broken.result(30) >= 5
        assert max(took) < SOON
        assert ask(net, task(rounds + 1)) < SOON
    assert answer.done == sorted(set(answer.done)), "no task was done a second time"


@pytest.mark.slow
def test_a_line_that_swallows_everything_for_a_while_costs_less_than_a_minute(hub: Live) -> None:
    answer = Memory()
    with behind_proxy(hub, answer) as (net, proxy, _), ThreadPoolExecutor(1) as pool:
        ask(net, task(1))
        proxy.stop()
        asking = pool.submit(lambda: list(net.exchange([task(2)])))
        time.sleep(12.0)  # less than what makes the server give the participant up
        proxy.resume()
        resumed = time.monotonic()
        (reply,) = asking.result(DEADLINE)
        assert time.monotonic() - resumed < 60.0
        assert isinstance(reply, Reply)


def test_a_participant_that_refused_its_task_is_asked_less_and_less_often_and_then_is_free(
    hub: Live,
) -> None:
    """The task cannot be read there; it is not sent to it without end, and the next one finds
    it free.
    """
    seen = list[float]()

    def refuses(data: bytes) -> bytes | None:
        asked = unpack_message(data, "a task", ["describe"])
        assert isinstance(asked, DescribeRequest)
        if asked.round == 1:
            seen.append(time.monotonic())
            return None
        return echo(data)

    node = hub.enrol()
    net = hub.net(node, deadline=DEADLINE)
    with at_work(resident(hub, node, refuses)):
        until(lambda: 1 in net.connections())
        (failure,) = net.exchange([task(1)], 16.0)
        assert isinstance(failure, Failure)
        assert 2 <= len(seen) <= 5
        pauses = [after - before for before, after in pairwise(seen)]
        assert pauses == sorted(pauses)
        (reply,) = net.exchange([task(2)])
        assert isinstance(reply, Reply)
        assert [row["reason"]["code"] for row in net.carried()["late"]] == ["task-lost"]


def test_whom_an_exchange_waits_for_can_be_asked_meanwhile(hub: Live) -> None:
    started, go = Event(), Event()

    def waits(data: bytes) -> bytes:
        started.set()
        go.wait(120)
        return echo(data)

    node = hub.enrol()
    net = hub.net(node, deadline=DEADLINE)
    with at_work(resident(hub, node, waits)), ThreadPoolExecutor(1) as pool:
        until(lambda: 1 in net.connections())
        asking = pool.submit(lambda: list(net.exchange([task(1)])))
        assert started.wait(60)
        time.sleep(1.0)
        (one,) = net.awaited()
        assert (one.name, one.kind, one.again) == (NAME, "describe", 0)
        assert 1.0 <= one.seconds < 60.0
        go.set()
        asking.result(60)
        net.expect(["south"])
        assert [(one.name, one.kind) for one in net.awaited()] == [("south", "")]
        net.expect([])
        assert net.awaited() == []
