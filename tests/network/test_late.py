"""A participant that is late, cut off or killed: nothing is lost silently, and an unanswered
request is sent again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

pytest.importorskip("flwr")

from live_server import Killed, Live, Relay, at_work, echo, resident
from network_processes import until

from tequio.core.messages import pack_message
from tequio.core.reason import Reason
from tequio.core.texts.words import sent_reason
from tequio.core.types import DescribeRequest, Failure, Reply
from tequio.ledger.folder import open_to_others

FLOWERS = "ignore:GitWildMatchPattern:DeprecationWarning"  # Flower's own use of a library
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings(FLOWERS)]


def asked(round_: int = 1, index: int = 1, name: str = "north") -> DescribeRequest:
    return DescribeRequest(round_, index, name)


def test_a_late_reply_is_reported_with_its_delay_and_its_sender_is_free_again(hub: Live) -> None:
    node, go, done = hub.enrol(), Event(), list[int]()

    def slow(data: bytes) -> bytes:
        go.wait(120)
        done.append(1)
        return echo(data)

    net = hub.net(node, deadline=1.0)
    with at_work(one := resident(hub, node, slow)):
        until(lambda: 1 in net.connections())
        (late,) = net.exchange([asked(1)])
        assert isinstance(late, Failure)
        assert sent_reason(late.message) == Reason("late-reply", {"seconds": 1.0})
        (busy,) = net.exchange([asked(2)])
        assert isinstance(busy, Failure)
        assert sent_reason(busy.message) == Reason(
            "still-at-work", {"round": 1}
        )  # and it was not waited for
        assert "late" not in net.carried()
        go.set()

        def free() -> bool:
            net.settle()
            return not net.pending

        until(free)
        (row,) = net.carried()["late"]
        assert (row["name"], row["sent"], row["reason"]["code"]) == ("north", 1, "round-over")
        assert row["late_seconds"] > 0.0
        net.deadline = 60.0
        (reply,) = net.exchange([asked(3)])
        assert isinstance(reply, Reply)
    assert len(done) == 2  # round 2 was not asked of it
    assert one.ended == []


def test_the_record_says_what_went_over_the_wire(hub: Live) -> None:
    node = hub.enrol()
    net = hub.net(node)
    with at_work(resident(hub, node, echo)):
        until(lambda: 1 in net.connections())
        (reply,) = net.exchange([asked(1)])
    assert isinstance(reply, Reply)
    ways = net.carried()["wire"]["north"]
    for way, message in (("down", asked(1)), ("up", reply)):
        size = len(pack_message(message))
        assert (
            size < ways[way] < size + 20_000
        )  # with handshakes, questions for work, heartbeats and headers
    assert net.carried()["wire"]["north"]["up"] < 5_000  # its goodbye


def test_the_database_through_which_all_passes_is_closed_to_others(hub: Live) -> None:
    """The folder was there before, and open."""
    assert (hub.folder / "superlink/superlink.sqlite").exists()
    assert not open_to_others(hub.folder / "superlink")


def test_who_is_not_connected_is_not_waited_for(hub: Live) -> None:
    net = hub.net(hub.enrol(), deadline=600.0)
    (away,) = net.exchange([asked(1)])
    assert isinstance(away, Failure)
    assert sent_reason(away.message) == Reason("not-connected")


def test_killed_with_a_task_in_hand_and_started_again_it_answers_in_the_same_round(
    hub: Live,
) -> None:
    """A message is delivered once; who comes back without having answered is sent the task
    again.
    """
    node, taken = hub.enrol(), Event()

    def dies(data: bytes) -> bytes:
        taken.set()
        raise Killed

    net = hub.net(node, deadline=120.0)
    first = resident(hub, node, dies)
    until(lambda: 1 in net.connections())

    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(lambda: list(net.exchange([asked(1)])))
        assert taken.wait(120)
        until(lambda: "killed" in first.log_lines)
        with at_work(resident(hub, node, echo)):
            (reply,) = got.result(timeout=200)
    assert isinstance(reply, Reply), reply


def test_an_answer_that_the_network_would_not_take_is_sent_when_it_is_back(hub: Live) -> None:
    node, relay, done = hub.enrol(), Relay(hub.port), list[int]()

    def cut(data: bytes) -> bytes:
        done.append(1)
        if len(done) == 1:
            relay.cut()
        return echo(data)

    net = hub.net(node, deadline=120.0)
    one = resident(hub, node, cut, f"127.0.0.1:{relay.port}")
    with at_work(one):
        until(lambda: 1 in net.connections())
        with ThreadPoolExecutor(1) as pool:
            got = pool.submit(lambda: list(net.exchange([asked(1)])))
            until(lambda: any("no connection" in line for line in one.log_lines))
            relay.mend()
            (reply,) = got.result(timeout=200)
        relay.close()
    assert isinstance(reply, Reply), reply
    assert any("sent" in line for line in one.log_lines)


def test_a_window_hands_over_what_has_come_and_the_next_one_the_rest(hub: Live) -> None:
    fast, slow, go = hub.enrol(), hub.enrol(), Event()

    def waits(data: bytes) -> bytes:
        go.wait(120)
        return echo(data)

    net = hub.net(fast, slow, deadline=120.0)
    with at_work(resident(hub, fast, echo), resident(hub, slow, waits)):
        until(lambda: net.connections().keys() == {1, 2})
        first = list(net.window([asked(1, 1, "fast"), asked(1, 2, "slow")], 5.0))
        assert [(r.name, r.round) for r in first] == [("fast", 1)]
        assert net.working() == {2}
        go.set()
        second = list(net.window([asked(2, 1, "fast")], 100.0))
        assert sorted((r.name, r.round) for r in second) == [("fast", 2), ("slow", 1)]
        assert all(isinstance(r, Reply) for r in (*first, *second))
        assert net.working() == set()
        net.deadline = 0.0
        go.clear()
        (given_up,) = net.window([asked(3, 2, "slow")], 1.0)
        assert isinstance(given_up, Failure)
        go.set()
        until(lambda: "late" in net.carried())
