"""The parts of the public port one by one: whom a newcomer displaces, room for bodies, words of a
request, tries in vain, descriptors.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("flwr")

from tequio.runtimes.flower.intake import Full, Intake, Tries, read_words
from tequio.runtimes.flower.visits import PortLimits, Visit, Visits

LIMITS = PortLimits(total=8, per_address=4, per_key=2, greeting=15.0, reserve=16)


@contextmanager
def sockets() -> Iterator[list[socket.socket]]:
    """Pairs of connected sockets, ours first; more are made as the list is asked for."""
    made: list[socket.socket] = []
    try:
        yield made
    finally:
        for one in made:
            one.close()


def come(
    visits: Visits, made: list[socket.socket], address: str, number: int
) -> tuple[Visit | None, Visit | None]:
    near, far = socket.socketpair()
    made += [near, far]
    return visits.admit(near, (address, number))


def test_a_newcomer_displaces_a_stranger_of_its_address_and_no_participant() -> None:
    visits = Visits(LIMITS)
    with sockets() as made:
        used = [come(visits, made, "198.51.100.1", k)[0] for k in range(4)]
        assert used[0] is not None
        visits.prove(used[0], "key")
        assert come(visits, made, "198.51.100.1", 4)[1] is None, "three strangers were left"
        for k in range(5, 30):
            new, evicted = come(visits, made, "198.51.100.1", k)
            assert new is not None
            assert evicted is not None
            assert evicted is not used[0]
            assert evicted.over
            visits.closed(evicted)
        assert len(visits) == 5
        assert come(visits, made, "198.51.100.2", 1)[1] is None, "another address has its own"


def test_where_all_places_are_participants_a_newcomer_is_refused() -> None:
    visits = Visits(LIMITS)
    with sockets() as made:
        for k in range(8):
            visit, evicted = come(visits, made, f"198.51.100.{k // 2}", k)
            assert visit is not None
            assert evicted is None
            visits.prove(visit, f"key {k // 2}")
        assert come(visits, made, "203.0.113.1", 1) == (None, None)
        visits.closed(visits.everybody()[0])
        new, _ = come(visits, made, "203.0.113.1", 2)
        assert new is not None
        other, evicted = come(visits, made, "203.0.113.2", 3)
        assert other is not None
        assert evicted is new, "the only stranger"


def test_a_key_counts_for_few_connections() -> None:
    visits = Visits(LIMITS)
    with sockets() as made:
        for k in range(4):
            visit, _ = come(visits, made, "198.51.100.1", k)
            assert visit is not None
            visits.prove(visit, "key")
        assert sorted(visit.key for visit in visits.everybody()) == ["", "", "key", "key"]


def test_few_free_descriptors_count_as_full() -> None:
    code = """
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))
from tequio.runtimes.flower.visits import PortLimits, Visits
visits = Visits(PortLimits(per_address=1000))
listener = socket.create_server(("127.0.0.1", 0))
files, pairs = [open("/dev/null") for _ in range(40)], {}
for number in range(40):
    far = socket.create_connection(listener.getsockname())
    near, peer = listener.accept()
    visit, evicted = visits.admit(near, peer)
    pairs[visit] = far
    if evicted:
        visits.closed(evicted)
        evicted.own.close()
        pairs.pop(evicted).close()
print(len(visits))
with open("/dev/null"), socket.socket(): pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 10 <= int(done.stdout) <= 40


def test_the_soft_limit_is_raised_to_the_hard_one_and_never_lowered() -> None:
    code = """
import json, resource
from tequio.runtimes.flower.descriptors import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 900))
print(json.dumps([raise_descriptor_limit(500), raise_descriptor_limit(), raise_descriptor_limit(300)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [500, 900, 900]


def test_time_is_up_once_and_waiting_for_us_has_no_end() -> None:
    clock = [0.0]
    visits = Visits(LIMITS, lambda: clock[0])
    with sockets() as made:
        idle, busy = (come(visits, made, "198.51.100.1", k)[0] for k in range(2))
        assert idle is not None
        assert busy is not None
        busy.deadline = None
        assert list(visits.expired()) == []
        clock[0] = 15.1
        assert list(visits.expired()) == [idle]
        assert list(visits.expired()) == []
        assert made[1].recv(1) == b"", "it is closed for the other side"


def test_addresses_of_one_network_count_as_one() -> None:
    visits = Visits(LIMITS)
    with sockets() as made:
        addresses = [
            *(f"2001:db8::{k}" for k in range(4)),
            "2001:db8::ffff:1%eth0",
            "2001:db8:0:1::1",
        ]
        evicted = [come(visits, made, address, k)[1] for k, address in enumerate(addresses)]
        assert [one is not None for one in evicted] == [False, False, False, False, True, False]
        mapped = [
            come(visits, made, address, 9)[0] for address in ("::ffff:192.0.2.1", "192.0.2.1")
        ]
        assert [visit.origin for visit in mapped if visit] == ["192.0.2.1", "192.0.2.1"]


def test_bodies_wait_for_room_and_give_up() -> None:
    async def work() -> list[str]:
        room, events = Intake(100, 60, 0.2), list[str]()

        async def one(key: str, size: int, seconds: float) -> None:
            try:
                async with room.room(key, size):
                    events.append(f"{key} in")
                    await asyncio.sleep(seconds)
                    events.append(f"{key} out")
            except Full:
                events.append(f"{key} full")

        await asyncio.gather(
            one("a", 60, 0.1), one("b", 60, 0.01), one("a", 1, 0.0), one("c", 0, 0.0)
        )
        await asyncio.gather(one("f", 0, 0.0), one("f", 0, 0.05))
        await asyncio.gather(one("a", 60, 0.5), one("d", 50, 0.0))
        async with room.room("e", 100 - 40):
            return events

    events = asyncio.run(work())
    assert events[:4] == ["a in", "c in", "c out", "a out"], "b and the second of a wait"
    assert set(events[4:8]) == {"a in", "a out", "b in", "b out"}
    assert events[8:12] == ["f in", "f in", "f out", "f out"]
    assert events[12:] == ["a in", "d full", "a out"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"name":1}',
        b'{"name":null}',
        b'{"name":["a"]}',
        b'{"name":"\\ud800"}',
        b'{"name":"a","speaks":7}',
        b'{"name":"' + b"a" * 5000 + b'"}',
        b'{"name":' + b"9" * 9000 + b"}",
        b"[" * 16000,
        b'{"name":' + b"[" * 7000 + b"]" * 7000 + b"}",
        b"\xff\xfe",
    ],
)
def test_words_that_cannot_be_read_are_one_kind_of_error(body: bytes) -> None:
    assert read_words(b'{"name":"a","more":[1]}', ("name",), ("speaks",)) == {
        "name": "a",
        "speaks": "",
    }
    with pytest.raises(ValueError):
        read_words(body, ("name",), ("speaks",))


def test_tries_in_vain_are_counted_by_address_and_the_table_is_bounded() -> None:
    clock = [0.0]
    tries = Tries(most=3, each=10.0, addresses=100, clock=lambda: clock[0])
    assert tries.wait("a") == 0.0
    for _ in range(3):
        tries.failed("a")
    assert tries.wait("a") == 10.0
    assert tries.wait("b") == 0.0
    clock[0] = 4.0
    assert tries.wait("a") == 6.0
    clock[0] = 10.0
    assert tries.wait("a") == 0.0
    tries.failed("a")
    assert tries.wait("a") == 10.0
    clock[0] = 1000.0
    assert tries.wait("a") == 0.0
    for k in range(500):
        tries.failed(f"address {k}")
    assert len(tries) == 100


def test_tries_in_vain_of_one_network_count_together() -> None:
    tries = Tries(most=3, each=10.0, clock=lambda: 0.0)
    for k in range(3):
        tries.failed(f"2001:db8::{k}")
    assert tries.wait("2001:db8::ffff:1") == 10.0
    assert tries.wait("2001:db8:0:1::1") == 0.0
