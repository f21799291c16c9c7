"""A question for work is held until there is work; an answer wakes who waits for it; bytes are
counted once.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Timer

import pytest

pytest.importorskip("flwr")

from tequio.runtimes.flower.long_poll import LongPoll, Question
from tequio.runtimes.flower.traffic import Peer, Traffic, size

LONG, SHORT = 60.0, 0.05


def question(long_poll: LongPoll, node: int, seconds: float) -> Question:
    return asyncio.run(asyncio.wait_for(long_poll.due(node, seconds), 30))


def due(long_poll: LongPoll, node: int, seconds: float) -> int:
    return question(long_poll, node, seconds).sent


def asked(long_poll: LongPoll, node: int) -> None:
    """As the door does: the server had nothing."""
    long_poll.fetched(question(long_poll, node, LONG), False)


def test_the_first_question_goes_through_and_the_next_is_held_for_as_long_as_was_said() -> None:
    long_poll = LongPoll()
    asked(long_poll, 1)
    began = time.monotonic()
    assert due(long_poll, 1, 0.3) == 0
    assert time.monotonic() - began >= 0.3


def test_a_task_wakes_the_question_of_its_node_and_no_other() -> None:
    long_poll = LongPoll()
    asked(long_poll, 1)
    asked(long_poll, 2)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(due, long_poll, 1, LONG), pool.submit(due, long_poll, 2, 3.0)
        time.sleep(0.2)
        long_poll.task(1)
        assert one.result(20) == 1
        assert not other.done()
        assert other.result(20) == 0


def test_a_task_that_came_before_the_question_is_not_slept_over() -> None:
    long_poll = LongPoll()
    asked(long_poll, 1)
    long_poll.task(1)
    long_poll.task(1)
    for _ in range(2):
        one = question(long_poll, 1, LONG)
        assert one.sent == 2
        long_poll.fetched(one, True)
    assert due(long_poll, 1, SHORT) == 2  # held: there is none left
    long_poll.task(1)
    asked(long_poll, 1)  # the server had it no more
    assert due(long_poll, 1, SHORT) == 3


def test_everybody_is_woken_in_the_end() -> None:
    long_poll = LongPoll()
    asked(long_poll, 1)
    asked(long_poll, 2)
    Timer(0.2, long_poll.everybody).start()
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(due, long_poll, node, LONG) for node in (1, 2)]
        assert [one.result(20) for one in held] == [0, 0]


def test_answers_are_reported_once_and_waited_for() -> None:
    long_poll = LongPoll()
    assert long_poll.answers(SHORT) == set()
    long_poll.answered(3)
    long_poll.answered(4)
    assert long_poll.answers(LONG) == {3, 4}
    Timer(0.1, long_poll.answered, [5]).start()
    assert long_poll.answers(LONG) == {5}
    assert long_poll.answers(SHORT) == set()


@contextmanager
def connection() -> Iterator[tuple[socket.socket, socket.socket, Peer]]:
    """A participant's end, the door's, and how the door calls it."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as far,
    ):
        near, peer = listener.accept()
        with near:
            yield far, near, peer


def moved(one: socket.socket, other: socket.socket, size: int) -> None:
    one.sendall(bytes(size))
    left = size
    while left:
        left -= len(other.recv(left))


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the kernel does not count elsewhere"
)
def test_the_kernel_counts_a_connection_with_its_packets_headers() -> None:
    traffic = Traffic()
    with connection() as (far, near, peer):
        traffic.opened(peer, near)
        moved(far, near, 30_000)  # before it is known whose it is
        assert traffic.belongs(peer, 7)
        moved(near, far, 50_000)
        first = traffic.take(7)
        assert 30_000 + 52 <= first["up"] < 33_000
        assert 50_000 + 52 <= first["down"] < 53_000
        assert traffic.take(7) == {"down": 0, "up": 0}
        moved(far, near, 1_000)
        traffic.closed(peer)
        assert 1_052 <= traffic.take(7)["up"] < 2_000
        assert not traffic.belongs(peer, 7)  # there is none any more: requests are counted


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the kernel does not count elsewhere"
)
def test_a_connection_of_several_is_counted_request_by_request() -> None:
    traffic = Traffic()
    with connection() as (far, near, peer):
        traffic.opened(peer, near)
        assert traffic.belongs(peer, 7)
        moved(far, near, 10_000)
        assert not traffic.belongs(peer, 8)
        assert not traffic.belongs(peer, 7)
        moved(far, near, 10_000)
        assert 10_000 < traffic.take(7)["up"] < 11_000
        assert traffic.take(8)["up"] == 0
        traffic.closed(peer)


def test_traffic_is_taken_once_by_node() -> None:
    traffic = Traffic()
    traffic.count(1, 10, 20)
    traffic.count(1, 1, 2)
    traffic.count(2, 5, 0)
    assert traffic.take(1) == {"down": 22, "up": 11}
    assert traffic.take(1) == {"down": 0, "up": 0}
    assert traffic.take(2) == {"down": 0, "up": 5}
    assert size([(b"name", b"value")], b"body") - size([], b"") == len("name: value\r\n") + 4
