"""Strangers at the coordinator's public port: participants are served all the while, and
descriptors, disk and log stay bounded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("flwr")
pytest.importorskip("resource")

from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import sign_message
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from benchmarks.common import attacks
from tequio.app.network.monitoring.health import read_health
from tequio.runtimes.flower.client import Session
from tequio.runtimes.flower.versions import SPEAKS
from tequio.trust.keys import PrivateKey, new_key, public_bytes

SOFT = 512  # descriptors of the process that is attacked
GREETING, BODY, REST = 3.0, 3.0, 4.0  # seconds
CROWD = 64  # connections of one address that no participant uses
SPARE = 40  # descriptors that come and go: TLS that is ending, SuperLink's connections, files


@dataclass
class Port:
    """The process, and a participant that it knows."""

    folder: Path
    process: int
    port: int
    node: int
    key: PrivateKey
    begun: int  # descriptors before anybody came

    @contextmanager
    def client(self, key: PrivateKey | None = None) -> Iterator[FleetHttpClient]:
        key, address = key or self.key, f"127.0.0.1:{self.port}"
        sign = [
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(key, key.public_key()),
            Session("session", address),
        ]
        authority = (self.folder / "authority.pem").read_bytes()
        with FleetHttpClient.from_server_address(address, False, authority, sign) as client:
            yield client

    def beat(self, client: FleetHttpClient) -> bool:
        """Whether a participant is served on this connection."""
        return bool(
            client.SendNodeHeartbeat(
                SendNodeHeartbeatRequest(node=Node(node_id=self.node), heartbeat_interval=10)
            ).success
        )

    def serves(self) -> bool:
        """Whether a participant is served that connects now."""
        with self.client() as client:
            return self.beat(client)

    def descriptors(self) -> int:
        return attacks.descriptors(self.process)

    def parked(self) -> int:
        return attacks.parked_bytes(self.process)

    def log(self) -> str:
        return (self.folder / "log").read_text() + (self.folder / "output").read_text()

    def refused(self) -> Counter[str]:
        """Refusals by reason, as /metrics has them; written once a second."""
        time.sleep(2.2)
        found = read_health(self.folder)
        assert found is not None
        return Counter(found["refusals"])

    def signed(self) -> str:
        """Headers with the participant's signature, as text of a request."""
        stamp = datetime.now(UTC).isoformat()
        public, signature = public_bytes(self.key), sign_message(self.key, stamp.encode())
        names = {"flwr-public-key": b64encode(public), "flwr-signature": b64encode(signature)}
        lines = [f"{name}: {value.decode()}\r\n" for name, value in names.items()]
        return "".join([*lines, f"flwr-timestamp: {stamp}\r\n"])


TESTS = Path(__file__).parents[2]  # where the process finds what tests share


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    folder, key = tmp_path_factory.mktemp("port"), new_key()
    (folder / "participant.pem").write_bytes(public_bytes(key))
    limits = json.dumps({"greeting": GREETING, "body": BODY, "idle": REST})
    script = Path(__file__).with_name("port_process.py")
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(script), str(folder), str(SOFT), limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(TESTS)},
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (folder / "output").read_text()
        said = json.loads(line)
        found = Port(folder, process.pid, said["port"], said["node"], key, 0)
        with found.client() as client:
            client.ActivateNode(
                ActivateNodeRequest(public_key=public_bytes(key), heartbeat_interval=10)
            )
        found.begun = found.descriptors()
        yield found
    finally:
        process.communicate(timeout=60)
    assert process.returncode == 0


def soon(what: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.1)
    return what()


@pytest.mark.parametrize(("tls", "count"), [(False, 1000), (True, 600)])
def test_a_crowd_of_idle_connections_holds_no_place(port: Port, tls: bool, count: int) -> None:
    with port.client() as client:
        assert port.beat(client)
        with attacks.held(
            attacks.idle(port.port, min(count, attacks.spare_descriptors()), tls)
        ) as crowd:
            assert len(crowd) > 2 * CROWD  # else nothing was tried
            assert port.beat(client), "a participant that was connected before"
            assert port.serves(), "a participant that connects during the attack"
            assert soon(lambda: port.descriptors() <= port.begun + CROWD + SPARE)
            assert soon(lambda: attacks.still_open(crowd) == 0), (
                "the rest is closed when its time is up"
            )
    refusals = port.refused()
    assert refusals["connections"] >= len(crowd) - CROWD
    assert refusals["slow"] > 0


def test_headers_that_never_end_are_not_waited_for(port: Port) -> None:
    with attacks.held(attacks.slow_headers(port.port, 300)) as crowd:
        begun = time.monotonic()
        while attacks.still_open(crowd) and time.monotonic() < begun + 20.0:
            attacks.dribble(crowd)
            assert port.serves()
            time.sleep(0.3)
        assert attacks.still_open(crowd) == 0
        assert time.monotonic() - begun < GREETING + 6.0


def test_a_stranger_parks_no_body(port: Port) -> None:
    size = 16 << 20
    with attacks.held(
        attacks.unfinished_bodies(port.port, 10, size, "/v1/fleet/push-object")
    ) as crowd:
        assert port.parked() < 1 << 20
        assert soon(lambda: attacks.still_open(crowd) == 0), "they are refused before the body"
        assert port.serves()
    with attacks.held(attacks.unfinished_bodies(port.port, 30, 16_000, "/tequio/join")) as crowd:
        assert len(crowd) == 30
        assert port.serves()
        assert soon(lambda: attacks.still_open(crowd) == 0), (
            "a short body that does not end is not waited for"
        )


def test_a_participant_holds_only_so_many_bodies_and_not_for_long(port: Port) -> None:
    """Its own signature, announced 16 MiB each: two are taken at a time, and closed when nothing
    more comes.
    """
    size, path = 16 << 20, "/v1/fleet/push-object"
    begin = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\n{port.signed()}Content-Length: {size}\r\n\r\n".encode()
    )
    crowd = attacks.many(6, lambda _: attacks.connect(port.port))
    with attacks.held(crowd):
        for one in crowd:
            one.sendall(begin + bytes(1 << 20))
        assert soon(lambda: port.parked() > 1 << 20)
        assert port.parked() < 3 << 20
        assert port.serves(), "short requests of the same participant need no room"
    assert soon(lambda: port.parked() == 0)


def test_nothing_malformed_is_an_error_of_ours(port: Port) -> None:
    before, size = port.refused(), len(port.log())
    statuses = attacks.malformed(port.port, 2000, threads=40)
    wrong = {
        status: n
        for status, n in statuses.items()
        if isinstance(status, int) and not 400 <= status < 500
    }
    assert set(wrong) <= {200}, statuses  # /tequio/health is open to everybody
    assert statuses[400] > 50
    assert statuses[401] > 20
    assert statuses[404] > 50
    assert port.serves()
    after, log = port.refused(), port.log()
    assert after["error"] == 0, [line for line in log.splitlines() if '"error"' in line][-5:]
    assert sum((after - before).values()) > 1000
    assert after["http"] > before["http"]
    assert "Traceback" not in log
    assert len(log) - size < 250_000, "60 lines for each reason, and 6 a minute"
    assert (port.folder / "output").read_text() == "", "all goes through our own log"


def test_tries_in_vain_are_slowed_down(port: Port) -> None:
    key = public_bytes(new_key()).decode()
    statuses = attacks.invented_tokens(port.port, "north", key, SPEAKS, 100)
    assert statuses[403] <= 22
    assert statuses[429] >= 78
    assert port.refused()["too-often"] >= 78
    assert port.serves()


def test_a_connection_that_rests_is_closed_and_a_long_question_is_not(port: Port) -> None:
    with attacks.held([attacks.connect(port.port)]) as crowd:
        crowd[0].sendall(b"GET /tequio/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert crowd[0].recv(1 << 16).startswith(b"HTTP/1.1 200")
        begun = time.monotonic()
        assert attacks.still_open(crowd) == 1
        assert soon(lambda: attacks.still_open(crowd) == 0, REST + 5.0)
        assert time.monotonic() - begun > REST / 2
    assert soon(lambda: port.descriptors() <= port.begun + SPARE)
