"""Bytes that passed the door for each participant: bodies and headers of its requests and of their answers, whatever they are about.

Not seen: TLS, TCP and what is below; a line's own counter says some 2 % more.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

Header = tuple[bytes, bytes]
LINE = 26  # bytes: a request's or an answer's first line, about


def size(headers: Iterable[Header], body: bytes) -> int:
    """Bytes of a request or an answer on the wire, HTTP/1.1."""
    return LINE + sum(len(name) + len(value) + 4 for name, value in headers) + len(body)


class Traffic:
    """By node number; door and exchange share it."""

    def __init__(self) -> None:
        self._lock, self._ways = Lock(), dict[int, dict[str, int]]()

    def count(self, node: int, up: int, down: int) -> None:
        """So many bytes came from a node and went to it."""
        with self._lock:
            ways = self._ways.setdefault(node, {"down": 0, "up": 0})
            ways["up"] += up
            ways["down"] += down

    def take(self, node: int) -> dict[str, int]:
        """Since this was last asked for the node."""
        with self._lock:
            return self._ways.pop(node, {"down": 0, "up": 0})
