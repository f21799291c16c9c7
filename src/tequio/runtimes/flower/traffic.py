"""Bytes on the wire between the gateway and each participant, whatever they are about.

Where the kernel counts those of a connection (Linux), all of them: TLS, what was sent again,
acknowledgements, and the headers of IP and TCP with each packet; also what passed before it was
known whose connection it is. Elsewhere, and where several participants share a connection (behind a
proxy): bodies and headers of requests and answers.
"""

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock

Header = tuple[bytes, bytes]
Peer = tuple[str, int]
LINE = 26  # bytes: a request's or an answer's first line, about
INFO = struct.Struct(
    "=128xQII56xQ"
)  # of Linux's tcp_info: bytes received, packets out, packets in, bytes sent (again too)
PACKET = {
    socket.AF_INET: 52,
    socket.AF_INET6: 72,
}  # bytes of a packet's headers: IP, TCP and its timestamps


def size(headers: Iterable[Header], body: bytes) -> int:
    """Bytes of a request or an answer, HTTP/1.1."""
    return LINE + sum(len(name) + len(value) + 4 for name, value in headers) + len(body)


@dataclass
class Connection:
    """One: what was read of it so far (up, down), and whose it is (0: not known yet, None:
    several).

    It has no descriptor of its own, so it has to be read while it is open.
    """

    own: socket.socket
    node: int | None = 0
    seen: tuple[int, int] = (0, 0)

    def counted(self) -> tuple[int, int]:
        """Bytes up and down since it was made.

        Raises OSError, struct.error or AttributeError where the kernel does not say.
        """
        info = self.own.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, INFO.size)
        received, out, in_, sent = INFO.unpack(info)
        each = PACKET.get(self.own.family, 0)
        return received + each * in_, sent + each * out

    def more(self) -> tuple[int, int]:
        """Bytes up and down since this was last asked. Raises as `counted`."""
        before, self.seen = self.seen, self.counted()
        return self.seen[0] - before[0], self.seen[1] - before[1]


@dataclass
class Traffic:
    """By node number; gateway and exchange share it."""

    _lock: Lock = field(default_factory=Lock)
    _ways: dict[int, dict[str, int]] = field(default_factory=dict)
    _open: dict[Peer, Connection] = field(default_factory=dict)

    def opened(self, peer: Peer, theirs: socket.socket) -> None:
        """A connection was made; nothing where the kernel does not count its bytes."""
        one = Connection(theirs)
        try:
            one.counted()
        except (OSError, struct.error, AttributeError):  # another system than Linux, or an old one
            return
        with self._lock:
            self._open[peer] = one

    def closed(self, peer: Peer) -> None:
        """It is over."""
        with self._lock:
            if (one := self._open.pop(peer, None)) is not None:
                self._settle(one)

    def seen(self, peer: Peer) -> None:
        """Read what passed on a connection so far, while it is open."""
        with self._lock:
            if (one := self._open.get(peer)) is not None:
                self._settle(one)

    def see_all(self) -> None:
        """Read all connections."""
        with self._lock:
            for one in self._open.values():
                self._settle(one)

    def belongs(self, peer: Peer, node: int) -> bool:
        """A connection is this node's.

        Whether its bytes are counted; else each request has to be (`count`).
        """
        with self._lock:
            one = self._open.get(peer)
            if one is None or one.node is None:
                return False
            if one.node not in (0, node):
                self._settle(one)
                one.node = None
                return False
            one.node = node
            return True

    def count(self, node: int, up: int, down: int) -> None:
        """So many bytes came from a node and went to it."""
        with self._lock:
            self._add(node, up, down)

    def take(self, node: int) -> dict[str, int]:
        """Since this was last asked for the node."""
        with self._lock:
            for one in self._open.values():
                if one.node == node:
                    self._settle(one)
            return self._ways.pop(node, {"down": 0, "up": 0})

    def _settle(self, one: Connection) -> None:
        if one.node == 0:
            return  # its bytes are read once it is known whose they are
        with suppress(OSError, struct.error):
            up, down = one.more()
            if one.node:
                self._add(one.node, up, down)

    def _add(self, node: int, up: int, down: int) -> None:
        ways = self._ways.setdefault(node, {"down": 0, "up": 0})
        ways["up"] += up
        ways["down"] += down
