"""Connections at the gateway: how many there may be, how many of one address, and until when each
one has to say something.

A connection on which no participant has shown its key is a stranger's. Where there are too many,
one of those is closed at random, so that a newcomer always has a chance and a crowd of idle
connections holds no place for long. Connections of participants are never closed for a newcomer.
"""

import asyncio
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from tequio.runtimes.flower.descriptors import descriptor_limit
from tequio.runtimes.flower.traffic import Peer

PREFIX = 64  # bits of an IPv6 address that name a network: whoever has one has all of its addresses


@dataclass(frozen=True)
class PortLimits:
    """Limits of the public port. Times are seconds, sizes are bytes.

    total: connections at most; less where the process may not have that many descriptors.
    per_address: connections of one address on which no participant has shown its key.
    per_key: connections that count as one participant's; more of it are treated as strangers'.
    greeting: for TLS and the header of the first request.
    body, rate: for a body or an answer; a participant gets a second more for each `rate` bytes.
    idle: after an answer, until the header of the next request.
    bodies, key_bodies: bodies that travel or wait for their turn, in all and of one key.
    reserve: descriptors that stay free for the ledger and for SuperLink.
    """

    total: int = 4096
    per_address: int = 64
    per_key: int = 16
    greeting: float = 15.0
    body: float = 20.0
    rate: int = 2048
    idle: float = 30.0
    bodies: int = 256 << 20
    key_bodies: int = 32 << 20
    reserve: int = 128


@dataclass(eq=False)
class Visit:
    """One connection. deadline: when it is closed (monotonic); None while it waits for us.

    slow: a deadline that passes is a fault of the other side; a connection that rests is none.
    key: of the participant that it is counted as, if there is one. where: its place among
        strangers.
    """

    peer: Peer
    origin: str
    own: socket.socket
    deadline: float | None
    transport: asyncio.Transport | None = None
    slow: bool = True
    key: str = ""
    where: int = -1
    over: bool = False

    def end(self) -> None:
        """Close it, whatever it is at; nothing more is sent."""
        self.over = True
        if self.transport is not None:
            self.transport.abort()
        else:
            with suppress(OSError):
                self.own.shutdown(socket.SHUT_RDWR)


class Visits:
    """All connections of a gateway. Used by the gateway's loop alone."""

    def __init__(self, limits: PortLimits, clock: Callable[[], float] = time.monotonic) -> None:
        descriptors = descriptor_limit()
        reserve = min(limits.reserve, descriptors // 4)
        self.limits, self._clock = limits, clock
        self._ceiling = descriptors - reserve  # the first number that is not for connections
        self._total = max(1, min(limits.total, self._ceiling - reserve))
        self._open: set[Visit] = set()
        self._strangers: list[Visit] = []
        self._of_origin: dict[str, list[Visit]] = {}
        self._of_key: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, own: socket.socket, peer: Peer) -> tuple[Visit | None, Visit | None]:
        """Return (the new connection, or None where there is no room; the one closed in its favour,
        if any).

        The system gives the lowest free number to a descriptor, so a high one shows that few are
        left.
        """
        origin = origin_of(peer[0])
        crowd, evicted = self._of_origin.get(origin, []), None
        full = len(self._open) >= self._total or own.fileno() >= self._ceiling
        if len(crowd) >= self.limits.per_address:
            evicted = random.choice(crowd)
        elif full and not self._strangers:
            own.close()
            return None, None
        elif full:
            evicted = random.choice(self._strangers)
        if evicted is not None:
            self._known(evicted)
            evicted.end()
        visit = Visit(peer, origin, own, self._clock() + self.limits.greeting)
        self._open.add(visit)
        visit.where = len(self._strangers)
        self._strangers.append(visit)
        self._of_origin.setdefault(origin, []).append(visit)
        return visit, evicted

    def prove(self, visit: Visit, key: str) -> None:
        """A participant signed a request on it."""
        if visit.key or visit.over or self._of_key.get(key, 0) >= self.limits.per_key:
            return
        self._known(visit)
        visit.key = key
        self._of_key[key] = self._of_key.get(key, 0) + 1

    def closed(self, visit: Visit) -> None:
        """It is over."""
        if visit not in self._open:
            return
        self._open.discard(visit)
        self._known(visit)
        visit.over = True
        if visit.key:
            self._of_key[visit.key] -= 1
            if not self._of_key[visit.key]:
                del self._of_key[visit.key]

    def expired(self) -> Iterator[Visit]:
        """Close each connection whose time is up."""
        now = self._clock()
        for visit in list(self._open):
            if visit.deadline is not None and visit.deadline < now and not visit.over:
                yield visit
                visit.end()

    def everybody(self) -> list[Visit]:
        """All that are open."""
        return list(self._open)

    def _known(self, visit: Visit) -> None:
        """It is no stranger's any more."""
        if visit.where < 0:
            return
        last = self._strangers.pop()
        if last is not visit:
            self._strangers[visit.where], last.where = last, visit.where
        visit.where = -1
        crowd = self._of_origin[visit.origin]
        crowd.remove(visit)
        if not crowd:
            del self._of_origin[visit.origin]


def origin_of(address: str) -> str:
    """Return what counts as one address: of IPv6 its network."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(IPv6Address(int(found) >> (128 - PREFIX) << (128 - PREFIX)))
