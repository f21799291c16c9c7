"""A coordinator's folder whose gateway listens with nothing behind it, and a participant that is
ready to join it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")


from builders import free_port
from tequio.app.network.hub.folder import (
    changing,
    check_enrolment,
    init_coordinator_folder,
    open_coordinator_folder,
    withdrawn,
    write_enrolment,
    write_leave,
)
from tequio.app.network.participant.join import Ready, prepare
from tequio.core.events import ignore_events
from tequio.runtimes.flower.gateway import Gateway, claimed, open_gateway
from tequio.runtimes.flower.superlink import Server


@contextmanager
def opened(make_federation: Any, root: Path, **sections: Any) -> Iterator[tuple[Path, Path]]:
    """(a coordinator's folder whose door is open, the participants' files); nothing is behind the
    door.
    """
    toml = make_federation(**({"participants": 2} | sections))
    init_coordinator_folder(root / "hub", toml, f"127.0.0.1:{free_port()}")
    with reopened(root / "hub"):
        yield root / "hub", toml.parent / "participants"


@contextmanager
def reopened(hub: Path) -> Iterator[None]:
    """Its door, open."""
    number = int(open_coordinator_folder(hub).address.rpartition(":")[2])
    files = [
        hub / name for name in ("tls/server.pem", "tls/server.key", "tls/authority.pem", "secret")
    ]
    server = Server(free_port(), hub, *files)

    def enrol(name: str, token: str, public_key: str) -> int:
        with changing(hub):
            check_enrolment(hub, name, token, public_key)
            node = 7 + len(withdrawn(hub))
            write_enrolment(hub, name, public_key, node)
            return node

    gateway = Gateway(files[0], files[1], server)
    with (
        claimed("127.0.0.1", number) as own,
        open_gateway(gateway, own, enrol, lambda wanted: write_leave(hub, wanted), ignore_events),
    ):
        yield


def asked(hub: Path, people: Path, name: str = "site0") -> Ready:
    return prepare(hub / "invitations" / f"{name}.json", people / f"{name}.toml")
