"""A coordinator that listens, for many tests: a real SuperLink, a real door, and participants that
are real node loops in threads.
"""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx

from builders import free_port
from tequio.app.network.hub.folder import AUTHORITY, CERTIFICATE, KEY
from tequio.core.errors import TequioError
from tequio.core.messages import REQUESTS, pack_message, unpack_message
from tequio.core.types import Failure, Reply
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.client import Identity, serve
from tequio.runtimes.flower.gateway import Gateway, claimed, open_gateway
from tequio.runtimes.flower.grid import CoordinatorGrid, open_grid
from tequio.runtimes.flower.runtime import FlowerRuntime
from tequio.runtimes.flower.superlink import Server, register, running
from tequio.trust.keys import (
    PrivateKey,
    new_authority,
    new_key,
    new_server,
    public_bytes,
    write_secret,
)


@dataclass
class Live:
    """What a test talks to. told: what door and server said."""

    folder: Path
    port: int
    server: Server
    grid: CoordinatorGrid
    log_lines: list[str]
    gateway: Gateway
    keys: dict[int, PrivateKey] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def authority(self) -> bytes:
        return self.server.authority.read_bytes()

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.authority.decode())

    def enrol(self) -> int:
        """A new participant's number."""
        key = new_key()
        node = register(self.server, public_bytes(key))
        self.keys[node] = key
        return node

    def net(self, *nodes: int, deadline: float = 30.0, **options: Any) -> FlowerRuntime:
        """A runtime over these participants, by index from 1."""
        return FlowerRuntime(
            self.grid,
            dict(enumerate(nodes, 1)),
            Embedded({}),
            deadline,
            self.gateway.long_poll,
            self.gateway.traffic,
            **options,
        )


@contextmanager
def live(folder: Path) -> Iterator[Live]:
    """Everything up, until the block ends."""
    authority, authority_key = new_authority("live", 1)
    certificate, key = new_server(authority, authority_key, ["127.0.0.1", "localhost"], 1)
    (folder / "tls").mkdir(parents=True)
    (folder / "superlink").mkdir()
    (folder / AUTHORITY).write_bytes(authority)
    (folder / CERTIFICATE).write_bytes(certificate)
    for name, data in ((KEY, key), ("secret", b"s" * 32)):
        write_secret(folder / name, data)
    files = [folder / name for name in (CERTIFICATE, KEY, AUTHORITY, "secret")]
    server = Server(free_port(), folder / "superlink", *files)
    log_lines: list[str] = []
    gateway = Gateway(folder / CERTIFICATE, folder / KEY, server, hold=0.5)

    def nobody(name: str, token: str, public_key: str) -> int:
        raise AssertionError("nobody joins here")

    def no_word(wanted: dict[str, str]) -> None:
        raise AssertionError("nobody leaves here")

    with claimed("127.0.0.1", 0) as own:
        port = int(own.getsockname()[1])
        with (
            running(server, log_lines.append),
            open_gateway(
                gateway, own, nobody, no_word, lambda words, *_, **__: log_lines.append(words)
            ),
            open_grid(server, log_lines.append) as own_place,
        ):
            yield Live(folder, port, server, own_place, log_lines, gateway)
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Resident:
    """A node loop in a thread: what it said, and the error with which it ended."""

    stop: Event
    thread: Thread
    log_lines: list[str]
    ended: list[TequioError]

    def end(self) -> None:
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


class Killed(BaseException):
    """The end of a participant's process, as a thread can have it: nothing is said, nothing is
    sent.
    """


def resident(
    hub: Live,
    node: int,
    answer: Callable[[bytes], bytes | None],
    address: str = "",
    key: PrivateKey | None = None,
    authority: bytes = b"",
) -> Resident:
    """Start one."""
    stop, log_lines, ended = Event(), list[str](), list[TequioError]()
    who = Identity(address or hub.address, authority or hub.authority, key or hub.keys[node], node)

    def work() -> None:
        try:
            serve(who, answer, stop, lambda words, *_, **__: log_lines.append(words))
        except TequioError as error:
            ended.append(error)
        except Killed:
            log_lines.append("killed")

    thread = Thread(target=work, daemon=True)
    thread.start()
    return Resident(stop, thread, log_lines, ended)


@contextmanager
def at_work(*started: Resident) -> Iterator[None]:
    try:
        yield
    finally:
        for one in started:
            one.end()


def echo(data: bytes) -> bytes:
    """The reply to a task: who was asked, and for which round."""
    task = unpack_message(data, "a task", REQUESTS)
    assert not isinstance(task, Reply | Failure)
    return pack_message(Reply(task.round, task.index, task.name, examples=task.index))


class Relay:
    """A network between a participant and the door, that can be cut:

    TCP, byte for byte. up: bytes that went to the door.
    """

    def __init__(self, target: int) -> None:
        self.port, self.open, self._target = free_port(), Event(), target
        self._pairs: list[socket.socket] = []
        self.up = 0
        self._over = Event()
        self.open.set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listener.settimeout(0.1)
        Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Every connection breaks, and none is made any more."""
        self.open.clear()
        for one in self._pairs:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._pairs.clear()

    def mend(self) -> None:
        self.open.set()

    def close(self) -> None:
        self._over.set()
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                inner, _ = self._listener.accept()
            except OSError:
                continue
            if not self.open.is_set():
                inner.close()
                continue
            outer = socket.create_connection(("127.0.0.1", self._target))
            self._pairs += [inner, outer]
            for source, sink, up in ((inner, outer, True), (outer, inner, False)):
                Thread(target=self._pump, args=(source, sink, up), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
                self.up += len(data) if up else 0
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


def health(hub: Live) -> bool:
    try:
        return (
            httpx.get(f"https://{hub.address}/tequio/health", verify=hub.context()).status_code
            == 200
        )
    except httpx.HTTPError:
        return False
