"""The life of a participant: joining, joining anew, leaving, going on alone, pausing; and what is said when something is wrong."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

pytest.importorskip("flwr")

from wire_helpers import port, tequio, until

from tequio.core.errors import NetworkError
from tequio.runtimes.flower.enrol import reach
from tequio.runtimes.flower.node import Identity, serve
from tequio.trust.keys import new_authority, new_key, new_server


@contextmanager
def somebody(folder: Path) -> Iterator[str]:
    """A TLS server that holds a good certificate of another authority; its address."""
    authority, key = new_authority("elsewhere", 1)
    for name, data in zip(("cert", "key"), new_server(authority, key, ["127.0.0.1"], 1), strict=True):
        (folder / name).write_bytes(data)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def answer() -> None:
            while True:
                try:
                    caller, _ = listener.accept()
                except OSError:
                    return
                with closing(caller):
                    try:
                        context.wrap_socket(caller, server_side=True).close()
                    except OSError:
                        continue

        Thread(target=answer, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_foreign_certificate_has_its_own_sentence(tmp_path: Path) -> None:
    expected = new_authority("ours", 1)[0]
    stop, lines = Event(), list[str]()
    with somebody(tmp_path) as address:
        with pytest.raises(NetworkError, match="does not show the certificate of the invitation"):
            reach(address, expected.decode())
        identity = Identity(address, expected, new_key(), 1)
        node = Thread(target=serve, args=(identity, lambda _: None, stop, lines.append), daemon=True)
        node.start()
        until(lambda: bool(lines), 60)
        stop.set()
        node.join(60)
    assert "does not show the certificate of the invitation" in lines[0]
    assert "next try" in lines[0]


def test_nobody_there_and_a_damaged_certificate_are_other_sentences() -> None:
    with pytest.raises(NetworkError, match="cannot be reached"):
        reach(f"127.0.0.1:{port()}", new_authority("ours", 1)[0].decode())
    for damaged in ("", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(NetworkError, match="certificate in the invitation cannot be read"):
            reach(f"127.0.0.1:{port()}", damaged)
    with pytest.raises(NetworkError, match="no address"):
        reach("127.0.0.1:port", new_authority("ours", 1)[0].decode())


def test_a_taken_port_is_told_before_a_base_is_looked_for(make_federation: Any, tmp_path: Path) -> None:
    toml = make_federation(base={"model": str(tmp_path / "nowhere")})
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        tequio("coordinator", "init", tmp_path / "hub", toml, "--address", address)
        said = tequio("coordinator", "start", tmp_path / "hub", fails=True)
    assert said.startswith(f"Error: {address} cannot be listened on")
    assert "Errno" not in said
