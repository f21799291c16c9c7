"""A question for work is held until there is work; an answer wakes who waits for it; bytes are counted once."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Timer

import pytest

pytest.importorskip("flwr")

from tequio.runtimes.flower.bell import Bell
from tequio.runtimes.flower.traffic import Traffic, size

LONG, SHORT = 60.0, 0.05


def due(bell: Bell, node: int, seconds: float) -> int:
    return asyncio.run(asyncio.wait_for(bell.due(node, seconds), 30))


def asked(bell: Bell, node: int) -> None:
    """As the door does: the server had nothing."""
    bell.fetched(node, due(bell, node, LONG), False)


def test_the_first_question_goes_through_and_the_next_is_held_for_as_long_as_was_said() -> None:
    bell = Bell()
    asked(bell, 1)
    began = time.monotonic()
    assert due(bell, 1, 0.3) == 0
    assert time.monotonic() - began >= 0.3


def test_a_task_wakes_the_question_of_its_node_and_no_other() -> None:
    bell = Bell()
    asked(bell, 1)
    asked(bell, 2)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(due, bell, 1, LONG), pool.submit(due, bell, 2, 3.0)
        time.sleep(0.2)
        bell.task(1)
        assert one.result(20) == 1
        assert not other.done()
        assert other.result(20) == 0


def test_a_task_that_came_before_the_question_is_not_slept_over() -> None:
    bell = Bell()
    asked(bell, 1)
    bell.task(1)
    bell.task(1)
    assert due(bell, 1, LONG) == 2
    bell.fetched(1, 2, True)  # one of the two
    assert due(bell, 1, LONG) == 2
    bell.fetched(1, 2, True)
    assert due(bell, 1, SHORT) == 2  # held: there is none left
    bell.task(1)
    bell.fetched(1, 3, False)  # the server had it no more
    assert due(bell, 1, SHORT) == 3


def test_everybody_is_woken_in_the_end() -> None:
    bell = Bell()
    asked(bell, 1)
    asked(bell, 2)
    Timer(0.2, bell.everybody).start()
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(due, bell, node, LONG) for node in (1, 2)]
        assert [one.result(20) for one in held] == [0, 0]


def test_answers_are_told_once_and_waited_for() -> None:
    bell = Bell()
    assert bell.answers(SHORT) == set()
    bell.answered(3)
    bell.answered(4)
    assert bell.answers(LONG) == {3, 4}
    Timer(0.1, bell.answered, [5]).start()
    assert bell.answers(LONG) == {5}
    assert bell.answers(SHORT) == set()


def test_traffic_is_taken_once_by_node() -> None:
    traffic = Traffic()
    traffic.count(1, 10, 20)
    traffic.count(1, 1, 2)
    traffic.count(2, 5, 0)
    assert traffic.take(1) == {"down": 22, "up": 11}
    assert traffic.take(1) == {"down": 0, "up": 0}
    assert traffic.take(2) == {"down": 0, "up": 5}
    assert size([(b"name", b"value")], b"body") - size([], b"") == len("name: value\r\n") + 4
