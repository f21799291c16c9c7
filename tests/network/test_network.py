"""A federation across real processes and a real SuperLink on loopback, with TLS and keys: the same
tensors as in one process.

Everything is typed as a user would: coordinator init, coordinator start, join, participate.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from network_processes import ALONE, background, federation, kinds, ready, tequio, until

from builders import digests, free_port
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.core.canonical import unpack
from tequio.ledger.record import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def test_a_network_gives_the_tensors_of_one_process(make_federation: Any, tmp_path: Path) -> None:
    """And the record has the same losses; every participant's folder works with no network."""
    toml = make_federation(participants=3)
    one = start(load_federation(toml), tmp_path / "one", False).folder
    with federation(tmp_path, toml, f"127.0.0.1:{free_port()}") as folders:
        hub = tmp_path / "hub" / "run"
        site0, site1, site2 = (
            background(tmp_path / f"{n}.log", "participate", folder, *ALONE)
            for n, folder in folders.items()
        )
        with site0, site1, site2:
            until(lambda: (hub / "report.en.html").exists())
    assert digests(hub) == digests(one)
    assert (
        unpack((hub / "shared.safetensors").read_bytes())
        .minus(unpack((one / "shared.safetensors").read_bytes()))
        .norm()
        == 0.0
    )
    assert json.loads(tequio("verify", hub, "--json"))["ok"]
    own = folders["site1"] / "run"
    assert json.loads(tequio("verify", own, "--json"))["ok"]
    answer = json.loads(tequio("predict", own, "site1", "the nurse was kind", "--json"))
    assert answer["predictions"][0]["label"] in ("good", "bad")
    assert "site1" in tequio("export", own, "site1", "--out", tmp_path / "out")
    written = (tmp_path / "coordinator.log").read_text() + (hub / "report.en.html").read_text()
    with Ledger.open(hub / "ledger.sqlite", read_only=True) as ledger:
        written += "".join(json.dumps(dict(entry.body)) for entry in ledger.entries())
    for line in (toml.parent / "data" / "site1.jsonl").read_text().splitlines():
        assert json.loads(line)["text"] not in written
    for secret in (
        "PRIVATE KEY",
        json.loads((tmp_path / "hub/invitations/site1.json").read_text())["token"],
    ):
        assert secret not in written


def test_killed_at_both_ends_it_goes_on_and_ends_the_same(
    make_federation: Any, tmp_path: Path
) -> None:
    """kill -9 of the coordinator, with SuperLink orphaned, after a committed round; and of a
    participant.
    """
    toml = make_federation(participants=2, train={"rounds": 4})
    one = start(load_federation(toml), tmp_path / "one", False).folder
    address, hub = f"127.0.0.1:{free_port()}", tmp_path / "hub"
    ledger = hub / "run" / "ledger.sqlite"
    log = tmp_path / "coordinator.log"
    with federation(tmp_path, toml, address, kill=True) as folders:
        site0, site1 = (
            background(tmp_path / f"{n}.log", "participate", f, *ALONE) for n, f in folders.items()
        )
        with site0, site1 as victim:
            until(lambda: ledger.exists() and "round" in kinds(ledger))
            victim.send_signal(signal.SIGKILL)
            victim.wait()
    # leaving `federation` killed the coordinator; whoever is asked next is told anew
    log.write_text("")
    with background(log, "coordinator", "start", hub, "--wait", "10", *ALONE):
        until(lambda: ready(tmp_path))
        again = (
            background(tmp_path / f"{n}.log", "participate", folder, *ALONE)
            for n, folder in folders.items()
        )
        with next(again), next(again):
            until(lambda: (hub / "run" / "report.en.html").exists())
    assert digests(hub / "run") == digests(one)
    assert json.loads(tequio("verify", hub / "run", "--json"))["ok"]


def test_strangers_are_refused_and_it_is_logged(make_federation: Any, tmp_path: Path) -> None:
    """On every path: without a key, with an unknown key, with another's token, over plain HTTP,
    with a foreign certificate.
    """
    import httpx
    from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
    from flwr.proto.node_pb2 import Node
    from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
    from flwr.supernode.fleet_http_client import FleetHttpClient
    from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

    from tequio.runtimes.flower.client import Session
    from tequio.runtimes.flower.versions import SPEAKS
    from tequio.trust.keys import load_key, new_authority, new_key, public_bytes

    toml = make_federation(participants=2)
    address = f"127.0.0.1:{free_port()}"
    log = tmp_path / "coordinator.log"
    with federation(tmp_path, toml, address) as folders:
        authority = (tmp_path / "hub" / "tls" / "authority.pem").read_bytes()
        numbers = {
            n: int(json.loads((f / "identity.json").read_text())["node"])
            for n, f in folders.items()
        }
        context = ssl.create_default_context(cadata=authority.decode())

        def status(method: str, path: str, **options: Any) -> int:
            return httpx.request(
                method, f"https://{address}{path}", verify=context, **options
            ).status_code

        for path in (
            "/v1/control/start-run",
            "/v1/runtime/acquire-task",
            "/v1/fleet/register-node",
            "/v1/fleet/get-fab",
            "/",
        ):
            assert status("POST", path, content=b"") == 404
        assert status("POST", "/v1/fleet/pull-messages", content=b"") in (400, 401, 403, 415)
        assert status("POST", "/tequio/join", content=b"x" * 20_000) == 400
        stolen = {
            "name": "site0",
            "token": "guess",
            "public_key": public_bytes(new_key()).decode(),
            "speaks": SPEAKS,
        }
        assert status("POST", "/tequio/join", json=stolen) == 403
        token = json.loads((tmp_path / "hub" / "invitations" / "site0.json").read_text())["token"]
        assert (
            status("POST", "/tequio/join", json={**stolen, "token": token}) == 403
        )  # another key joined with it
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://{address}/tequio/health")

        def client(key: Any) -> FleetHttpClient:
            sign = NodeAuthHttpInterceptor(key, key.public_key())
            version = RuntimeVersionHttpInterceptor(component_name="SuperNode")
            return FleetHttpClient.from_server_address(
                address, False, authority, [version, sign, Session("x", address)]
            )

        unknown, own = new_key(), load_key(folders["site0"] / "key.pem")
        with client(unknown) as stranger, pytest.raises(httpx.HTTPStatusError) as refused:
            stranger.ActivateNode(
                ActivateNodeRequest(public_key=public_bytes(unknown), heartbeat_interval=10)
            )
        assert refused.value.response.status_code in (401, 403, 412)
        with (
            client(own) as insider,
            pytest.raises(httpx.HTTPStatusError),
        ):  # a participant in another's name
            insider.PullMessages(PullMessagesRequest(node=Node(node_id=numbers["site1"])))
        foreign = tmp_path / "foreign.json"
        invitation = json.loads((tmp_path / "hub" / "invitations" / "site1.json").read_text())
        invitation["authority"] = new_authority("foreign", 1)[0].decode()
        foreign.write_text(json.dumps(invitation))
        said = tequio(
            "join",
            foreign,
            toml.parent / "participants" / "site1.toml",
            "--out",
            tmp_path / "x",
            "--yes",
            fails=True,
        )
        assert "does not show the certificate of the invitation" in said
        until(lambda: log.read_text().count("refused") >= 8, 10)
    assert not os.path.exists(tmp_path / "x" / "identity.json")
