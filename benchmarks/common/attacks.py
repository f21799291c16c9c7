"""What a stranger without a key can do to a coordinator's port on loopback: for tests, and for a
soak of a real coordinator.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from tequio.runtimes.flower.descriptors import descriptor_limit

HOST = "127.0.0.1"
GONE = "closed"
FLEET = (
    "activate-node",
    "send-node-heartbeat",
    "pull-messages",
    "pull-object",
    "push-messages",
    "push-object",
)
PATHS = (
    *(f"/v1/fleet/{name}" for name in FLEET),
    *(
        "/tequio/join",
        "/tequio/leave",
        "/tequio/health",
        "/",
        "/metrics",
        "/v1/control/x",
        "/flwr.proto.Control/StartRun",
    ),
    *(
        "/v1/fleet/../control",
        "/v1/fleet/%2e%2e/x",
        "//",
        "/%C3%A9%1b[2J%0d%0a",
        "/" + "a" * 5000,
        "*",
    ),
)
METHODS = (
    "GET",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "HEAD",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "FOO",
    "PRI",
)
LONG = "A" * 8000
BODIES = (
    *(
        b"",
        b"{}",
        b"[]",
        b"null",
        b'{"name":1}',
        b"\xff" * 100,
        b"[" * 16000,
        b"[" * 50000,
        b"9" * 15000,
    ),
    b'{"name":"a","token":"\\ud800","public_key":"x"}',
    b'{"name":"a","token":"x","public_key":"\\ud800"}',
    b'{"name":"\\ud800","token":"x","public_key":"x"}',
    b'{"name":' + b"[" * 7000 + b"]" * 7000 + b',"token":"x","public_key":"x"}',
    b'{"name":' + b"9" * 15000 + b',"token":"x","public_key":"x"}',
    b'{"name":"ana","node":"\\ud800","time":"nan","signature":"\\ud800"}',
    b'{"name":"ana","node":"1","time":"1e999","signature":"zz"}',
    b'{"name":["ana"],"node":{},"time":null,"signature":7}',
    b'{"name":"\\u001b[2Jx\\n{\\"event\\":\\"round\\"}","token":"x","public_key":"y"}',
    json.dumps({"name": LONG, "token": "x", "public_key": "x"}).encode(),
)
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"content-type": "application/x-protobuf"},
    {"flwr-public-key": "x"},
    {
        "flwr-public-key": "eA==",
        "flwr-signature": "AAAA",
        "flwr-timestamp": "2026-11-30T00:00:00+00:00",
    },
    {"flwr-public-key": "eA==", "flwr-signature": "AAAA", "flwr-timestamp": "9999-99-99"},
    {"flwr-timestamp": "\u00b2"},
    {"content-length": "-5"},
    {"content-length": "99999999999999"},
    {"transfer-encoding": "chunked"},
    {"host": "["},
    {"host": "a b"},
    {"tequio-session": "s" * 3000},
    {"upgrade": "websocket", "connection": "upgrade"},
)
RAW = (
    (True, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    (True, b"\x00\x01 garbage\r\n\r\n"),
    (True, b"GET / HTTP/1.1\r\n" + b"X: " + b"a" * 200_000 + b"\r\n\r\n"),
    (
        True,
        b"POST /tequio/join HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
        b"chunked\r\n\r\nffffffffffffffff\r\nabc",
    ),
    (
        True,
        b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
        b"chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
    ),
    (
        True,
        b"POST /tequio/join HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: "
        b"7\r\n\r\nabcdefg",
    ),
    (False, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    (False, b"\x16\x03\x01\xff\xff" + b"z" * 3000),
    (False, b"random" * 80),
)


@cache
def open_context() -> ssl.SSLContext:
    """TLS that accepts any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def connect(port: int, tls: bool = True, seconds: float = 20.0) -> socket.socket:
    """One connection. Raises OSError."""
    raw = socket.create_connection((HOST, port), seconds)
    if not tls:
        return raw
    try:
        return open_context().wrap_socket(raw)
    except OSError:
        raw.close()
        raise


def many(count: int, one: Callable[[int], socket.socket]) -> list[socket.socket]:
    """Open up to `count` connections; leave out those that the server refused."""

    def tried(k: int) -> socket.socket | None:
        try:
            return one(k)
        except OSError:
            return None

    with ThreadPoolExecutor(8) as pool:
        return [found for found in pool.map(tried, range(count)) if found is not None]


def idle(port: int, count: int, tls: bool) -> list[socket.socket]:
    """Connections that say nothing."""
    return many(count, lambda _: connect(port, tls))


def slow_headers(port: int, count: int) -> list[socket.socket]:
    """Connections whose header never ends."""

    def one(_: int) -> socket.socket:
        found = connect(port)
        with suppress(OSError):  # it may be closed already
            found.sendall(b"POST /tequio/join HTTP/1.1\r\nHost: x\r\n")
        return found

    return many(count, one)


def unfinished_bodies(
    port: int, count: int, size: int, path: str, headers: str = ""
) -> list[socket.socket]:
    """Connections that announce a body and send all of it but the last bytes."""
    begin = f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {size}\r\n\r\n".encode()

    def one(_: int) -> socket.socket:
        found = connect(port)
        with suppress(OSError):  # it may be closed on the way
            found.sendall(begin + bytes(size - 10))
        return found

    return many(count, one)


def dribble(connections: list[socket.socket], data: bytes = b"X-a: b\r\n") -> None:
    """Send a little more on each."""
    for one in connections:
        with suppress(OSError):
            one.sendall(data)


def still_open(connections: list[socket.socket]) -> int:
    """How many of them the other side has not closed."""
    count = 0
    for one in connections:
        one.settimeout(0.0)
        try:
            while one.recv(1 << 16):
                pass
        except (ssl.SSLWantReadError, BlockingIOError):
            count += 1
        except OSError:
            continue
    return count


@contextmanager
def held(connections: list[socket.socket]) -> Iterator[list[socket.socket]]:
    """Close them in the end."""
    try:
        yield connections
    finally:
        for one in connections:
            one.close()


@dataclass
class Asker:
    """Requests one after another over one connection, which is made again where it was closed."""

    port: int
    _open: http.client.HTTPSConnection | None = None

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> int | str:
        """The status, or the word that there was no answer."""
        self._open = self._open or http.client.HTTPSConnection(
            HOST, self.port, context=open_context(), timeout=10
        )
        try:
            self._open.request(method, path, body, headers or {})
            answer = self._open.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException, UnicodeError, ValueError):
            self.close()
            return GONE
        return answer.status

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None


def raw(port: int, tls: bool, data: bytes) -> int | str:
    """The status that these bytes get."""
    try:
        with connect(port, tls, 5.0) as one:
            with suppress(OSError):
                one.sendall(data)
            words = one.recv(200).split()
    except OSError:
        return GONE
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/") else GONE


def malformed(port: int, count: int, seed: int = 3, threads: int = 16) -> Counter[int | str]:
    """Wrong requests of every kind, in several threads; the statuses that they got."""

    def some(number: int) -> Counter[int | str]:
        draw, statuses, asker = random.Random(f"{seed} {number}"), Counter[int | str](), Asker(port)
        for _ in range(count // threads):
            if draw.random() < 0.8:
                method, path = draw.choice(METHODS), draw.choice(PATHS)
                body = draw.choice((*BODIES, os.urandom(1000)))
                statuses[asker.ask(method, path, body, dict(draw.choice(HEADERS)))] += 1
            else:
                statuses[raw(port, *draw.choice(RAW))] += 1
        asker.close()
        return statuses

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(some, range(threads)), Counter[int | str]())


def broken_joins(port: int, count: int) -> Counter[int | str]:
    """Requests to join and to leave that nobody can read."""
    statuses, asker = Counter[int | str](), Asker(port)
    for k in range(count):
        statuses[
            asker.ask(
                "POST", ("/tequio/join", "/tequio/leave")[k % 2], BODIES[k // 2 % len(BODIES)]
            )
        ] += 1
    asker.close()
    return statuses


def invented_tokens(port: int, name: str, key: str, speaks: str, count: int) -> Counter[int | str]:
    """Tries to join with tokens that nobody gave out, each in the name of another address."""
    statuses, asker = Counter[int | str](), Asker(port)
    for number in range(count):
        headers = {"X-Forwarded-For": f"198.51.100.{number % 256}"}
        body = {"name": name, "token": os.urandom(24).hex(), "public_key": key, "speaks": speaks}
        statuses[asker.ask("POST", "/tequio/join", json.dumps(body).encode(), headers)] += 1
    asker.close()
    return statuses


def parked_bytes(process: int) -> int:
    """Bytes of nameless files that a process has open (Linux)."""
    total = 0
    for path in Path(f"/proc/{process}/fd").iterdir():
        with suppress(OSError):
            found = path.stat()
            if found.st_nlink == 0 and path.readlink().as_posix().startswith("/"):
                total += found.st_size
    return total


def spare_descriptors() -> int:
    """How many more descriptors this process may open, less a few."""
    return descriptor_limit() - descriptors(os.getpid()) - 100


def descriptors(process: int) -> int:
    """How many descriptors a process has open."""
    return int(psutil.Process(process).num_fds())
