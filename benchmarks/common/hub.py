"""A SuperLink behind a door, hardened as `tequio coordinator start` has it, for benchmarks of what
lies between two ends of a network.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tequio.runtimes.flower.superlink import Server, running
from tequio.trust.keys import new_authority, new_server, write_secret


def nobody(*_: object) -> int:
    raise SystemExit("nobody joins here")


def no_word(*_: object) -> None:
    raise SystemExit("nobody leaves here")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server_in(folder: Path) -> Iterator[Server]:
    """A server on loopback, its certificates and its database in a folder."""
    authority, authority_key = new_authority("benchmark", 1)
    certificate, key = new_server(authority, authority_key, ["127.0.0.1"], 1)
    for name, data in (("ca.pem", authority), ("server.pem", certificate)):
        (folder / name).write_bytes(data)
    for name, data in (("server.secret", key), ("secret", b"s" * 32)):
        write_secret(folder / name, data)
    server = Server(
        free_port(),
        folder,
        *(folder / n for n in ("server.pem", "server.secret", "ca.pem", "secret")),
    )
    with running(server, print):
        yield server
