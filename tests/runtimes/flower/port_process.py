"""A real SuperLink behind a real gateway in a process of its own, with few descriptors: what
test_port attacks.

python port_process.py FOLDER SOFT_LIMIT LIMITS (JSON). It registers the key in
FOLDER/participant.pem and prints its port and number.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

from builders import free_port
from tequio.app.network.monitoring.health import Health
from tequio.cli.log import event_handler
from tequio.core.errors import NetworkError
from tequio.runtimes.flower.gateway import Gateway, claimed, open_gateway
from tequio.runtimes.flower.superlink import Server, register, running
from tequio.runtimes.flower.visits import PortLimits
from tequio.trust.keys import new_authority, new_server, write_secret


def enrol(name: str, token: str, public_key: str) -> int:
    raise NetworkError(f"The token for {name[:64]!r} is not right.")


def leave(wanted: dict[str, str]) -> None:
    raise NetworkError(f"Nobody leaves in the name of {wanted['name'][:64]!r}.")


def main(folder: Path, soft: int, limits: str) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
    authority, authority_key = new_authority("port", 1)
    certificate, key = new_server(authority, authority_key, ["127.0.0.1"], 1)
    files = [folder / name for name in ("server.pem", "server.key", "authority.pem", "secret")]
    for path, data in zip(files, (certificate, key, authority, b"s" * 32), strict=True):
        write_secret(path, data)
    server = Server(free_port(), folder / "superlink", *files)
    health = Health("coordinator", event_handler("json", folder / "log"))
    gateway = Gateway(files[0], files[1], server, hold=0.5, limits=PortLimits(**json.loads(limits)))
    with (
        health.written_to(folder),
        claimed("127.0.0.1", 0) as own,
        running(server, health.tell),
        open_gateway(gateway, own, enrol, leave, health.tell),
    ):
        node = register(server, (folder / "participant.pem").read_bytes())
        print(json.dumps({"port": own.getsockname()[1], "node": node}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
