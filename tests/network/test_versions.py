"""A coordinator and a participant of different versions refuse each other by name; a coordinator
that starts again checks what it has.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from builders import refused

pytest.importorskip("flwr")

from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from live_server import Live, at_work, echo, live, resident
from network_processes import until

from tequio.app.assembly.algorithm import resolve_algorithm
from tequio.app.assembly.public_data import read_public
from tequio.app.network.coordinator.roster import Roster
from tequio.app.network.coordinator.rounds import _ledger, build_seats
from tequio.config import Federation, load_federation
from tequio.core.canonical import pack_tensors
from tequio.core.errors import MessageError, NetworkError, RunError
from tequio.core.messages import FORMAT, REQUESTS, pack_message, unpack_message
from tequio.core.reason import Reason
from tequio.core.types import DescribeRequest, Failure, Reply
from tequio.ledger.record import Ledger
from tequio.runtimes.flower import client, gateway
from tequio.runtimes.flower.enrolment_client import reach
from tequio.runtimes.flower.versions import SPEAKS
from tequio.trust.keys import public_bytes

FLOWERS = "ignore:GitWildMatchPattern:DeprecationWarning"  # Flower's own use of a library
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings(FLOWERS)]
OTHER = "tequio-message-7, tequio-record-9"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("versions") / "hub") as found:
        yield found


def both_named(said: str, other: str = OTHER) -> bool:
    return SPEAKS in said and other in said


def test_a_participant_of_another_version_ends_and_the_coordinator_logs_both(
    hub: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "SPEAKS", OTHER)
    number = hub.enrol()
    one = resident(hub, number, echo)
    one.thread.join(60)
    (error,) = one.ended
    assert isinstance(error, NetworkError)
    assert error.reason == Reason(
        "versions-differ", {"side": "coordinator", "stated": SPEAKS, "own": SPEAKS}
    )
    assert any(
        line.startswith("refused: A participant has version") and both_named(line)
        for line in hub.log_lines
    )
    assert hub.net(number).connections() == {}


def test_a_participant_of_before_versions_were_stated_is_refused(hub: Live) -> None:
    """As an earlier Tequio connects: with a key that counts, and no word of its version."""
    number = hub.enrol()
    key = hub.keys[number]
    signed = NodeAuthHttpInterceptor(key, key.public_key())
    plain = [RuntimeVersionHttpInterceptor(component_name="SuperNode"), signed]
    opened = FleetHttpClient.from_server_address(hub.address, False, hub.authority, plain)
    with opened as client, pytest.raises(httpx.HTTPStatusError) as caught:
        client.ActivateNode(
            ActivateNodeRequest(public_key=public_bytes(key), heartbeat_interval=10)
        )
    assert caught.value.response.status_code == 426
    assert any("A participant has version 'tequio-record-1'" in line for line in hub.log_lines)
    assert hub.net(number).connections() == {}


@pytest.mark.parametrize(("stated", "named"), [({}, "tequio-record-1"), ({"speaks": OTHER}, OTHER)])
def test_joining_with_another_version_is_refused_before_the_token_is_spent(
    hub: Live, stated: dict[str, str], named: str
) -> None:
    """`live` has nobody who may enrol: the token is not even looked at."""
    body = {"name": "north", "token": "t", "public_key": "k", **stated}
    answer = httpx.post(f"https://{hub.address}/tequio/join", json=body, verify=hub.context())
    assert answer.status_code == 426
    assert both_named(answer.json()["error"], named)


@pytest.mark.parametrize(("speaks", "named"), [("", "tequio-record-1"), (OTHER, OTHER)])
def test_a_coordinator_of_another_version_ends_the_participant(
    hub: Live, monkeypatch: pytest.MonkeyPatch, speaks: str, named: str
) -> None:
    monkeypatch.setattr(gateway, "SPEAKS", speaks)
    one = resident(hub, hub.enrol(), echo)
    one.thread.join(60)
    (error,) = one.ended
    assert both_named(str(error), named)
    with refused(NetworkError, "versions-differ", side="coordinator") as caught:
        reach(hub.address, hub.authority.decode())
    assert both_named(str(caught.value), named)


def test_the_same_version_connects(hub: Live) -> None:
    reach(hub.address, hub.authority.decode())
    number = hub.enrol()
    net = hub.net(number)
    with at_work(resident(hub, number, echo)):
        until(lambda: bool(net.connections()), 60)
        assert isinstance(next(iter(net.exchange([DescribeRequest(0, 1, "north")]))), Reply)


def test_a_message_of_another_format_is_refused_with_both() -> None:
    data = pack_tensors({}, {"format": "tequio-message-9", "kind": "describe", "fields": {}})
    with refused(MessageError, "message-of-other-version", found="tequio-message-9", format=FORMAT):
        unpack_message(data, "a task", REQUESTS)


# a coordinator that starts again


def says(spec: str) -> Any:
    """A participant that says this of itself."""
    batches = {"train": 48, "validation": 16, "test": 16}
    reported = {
        "hardware": {},
        "batches": batches,
        "mean_tokens": 6.0,
        "data": {"rows": 80},
        "speed": None,
    }
    body = json.dumps({"spec": spec, "told": reported, "commitment": "c"})

    def answer(data: bytes) -> bytes:
        task = unpack_message(data, "a task", ["describe"])
        assert not isinstance(task, Reply | Failure)
        return pack_message(Reply(task.round, task.index, task.name, body=body))

    return answer


def started(
    hub: Live, folder: Path, number: int, config: Federation, other: Federation | None = None
) -> list[str]:
    """Start on the run as a coordinator does, up to the first round; the kinds of its records.
    other: the bases are its.
    """
    (folder / "enrolled.json").write_text(
        json.dumps({"site0": {"public_key": "", "node": str(number)}})
    )
    public = read_public(config)
    seats = build_seats(other or config, resolve_algorithm(config), public, folder / "run")
    contexts = {seat.name: seat.context for seat in seats}
    roster = Roster(folder, config, contexts, hub.net(number), 60.0, lambda *_, **__: None)
    with (
        at_work(resident(hub, number, says(seats[0].context.adapted.spec))),
        _ledger(folder / "run", roster, seats, public) as (_, ledger),
    ):
        return [entry.kind for entry in ledger.entries()]


def test_a_coordinator_that_starts_again_checks_public_data_precision_and_configuration(
    hub: Live, make_federation: Any, tmp_path: Path
) -> None:
    config, number = load_federation(make_federation(participants=1)), hub.enrol()
    assert started(hub, tmp_path, number, config) == ["run"]
    assert started(hub, tmp_path, number, config) == ["run"]
    assert config.centre is not None
    for name, file in (
        ("slice public", config.gate.slices["public"]),
        ("centre", config.centre.data),
    ):
        text = file.read_text()
        file.write_text("".join(text.splitlines(keepends=True)[:-1]))
        with pytest.raises(RunError) as caught:
            started(hub, tmp_path, number, config)
        assert f"the public data of {name} in {file} (expected digest " in caught.value.why
        assert "Put back what changed" in caught.value.fix
        file.write_text(text)
    coarse = config.model_copy(
        update={"base": config.base.model_copy(update={"dtype": "bfloat16"})}
    )
    precise = (
        r'\[base\] dtype = "auto" gives on this machine \(expected float32, found bfloat16\)\.'
    )
    with pytest.raises(RunError, match=precise) as only:
        started(hub, tmp_path, number, config, coarse)
    assert only.value.why.count("expected") == 1
    longer = config.model_copy(update={"train": config.train.model_copy(update={"rounds": 7})})
    with pytest.raises(
        RunError, match=r"train\.rounds of federation\.toml \(expected 2, found 7\)"
    ):
        started(hub, tmp_path, number, longer)
    assert started(hub, tmp_path, number, config) == ["run"]
    with Ledger.open(tmp_path / "run" / "ledger.sqlite", read_only=True) as ledger:
        assert next(ledger.entries()).body["public_data"].keys() == {"centre", "slice public"}
