"""A TCP proxy on loopback that breaks: it resets its connections, lets nothing through for a while,
or drops one at a chosen chunk.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Lock, Thread

RESET = struct.pack("ii", 1, 0)  # close at once, with a reset
CHUNK = 1 << 16  # bytes

Cut = Callable[[bytes, bool], bool]
"""(a chunk that arrived, whether it goes up to the server) -> whether its connection is reset in
place of passing it on.
"""


def pass_all(chunk: bytes, up: bool) -> bool:
    """Cut nothing."""
    return False


class Proxy:
    """Byte for byte to a port of this machine, until something is done to it."""

    def __init__(self, target: int, port: int = 0) -> None:
        self.cut: Cut = pass_all
        self._target, self._over, self._flowing = target, Event(), Event()
        self._lock, self._pairs = Lock(), list[tuple[socket.socket, socket.socket]]()
        self._flowing.set()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        Thread(target=self._accept, daemon=True).start()

    def reset(self) -> int:
        """Reset every connection; returns how many there were."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _reset(*pair)
        return len(pairs)

    def stop(self) -> None:
        """Let nothing through, and close nothing: a black hole."""
        self._flowing.clear()

    def resume(self) -> None:
        """Let everything through again."""
        self._flowing.set()

    def close(self) -> None:
        """End it, with every connection."""
        self._over.set()
        self._flowing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                inner, _ = self._listener.accept()
            except OSError:
                return
            try:
                outer = socket.create_connection(("127.0.0.1", self._target), 5.0)
            except OSError:
                inner.close()
                continue
            outer.settimeout(None)
            with self._lock:
                self._pairs.append((inner, outer))
            for source, sink, up in ((inner, outer, True), (outer, inner, False)):
                Thread(target=self._pump, args=(source, sink, up), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with suppress(OSError):
            while chunk := source.recv(CHUNK):
                self._flowing.wait()
                if self.cut(chunk, up):
                    _reset(source, sink)
                    return
                sink.sendall(chunk)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def _reset(*pair: socket.socket) -> None:
    for one in pair:
        with suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            one.shutdown(socket.SHUT_RDWR)
        one.close()
