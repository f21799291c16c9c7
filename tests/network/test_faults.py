"""The fault table of docs/network.md: each fault ends in a named error or a recovered exchange;
nothing is lost, no secret is written.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import psutil
import pytest

pytest.importorskip("flwr")

from live_server import Live, at_work, echo, resident
from network_processes import until

from builders import build_setup
from tequio.app.assembly.context import build_model_context
from tequio.app.network.coordinator.roster import Roster
from tequio.config import MAIN, load_federation
from tequio.coordinator.checkpoint import pack_state
from tequio.coordinator.federate import federate, star
from tequio.core.errors import NetworkError, ResourceError, RunError
from tequio.core.messages import pack_message, unpack_message
from tequio.core.types import DescribeRequest, Failure, Reply
from tequio.ledger.record import Ledger, verify
from tequio.measure.energy import open_meter
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.envelope import seal
from tequio.runtimes.flower.runtime import post
from tequio.trust.keys import key_bytes, new_authority, new_key

FLOWERS = "ignore:GitWildMatchPattern:DeprecationWarning"  # Flower's own use of a library
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings(FLOWERS)]


TASK = DescribeRequest(4, 1, "north")


def test_a_replayed_reply_answers_no_other_task(hub: Live) -> None:
    """The participant sends its first answer again in place of every later one."""
    node, retained = hub.enrol(), list[bytes]()

    def same(data: bytes) -> bytes:
        retained.append(retained[0] if retained else echo(data))
        return retained[-1]

    net = hub.net(node, deadline=60.0)
    with at_work(resident(hub, node, same)):
        until(lambda: 1 in net.connections())
        (first,) = net.exchange([DescribeRequest(1, 1, "north")])
        (second,) = net.exchange([DescribeRequest(2, 1, "north")])
    assert isinstance(first, Reply)
    assert isinstance(second, Failure)
    assert second.message == "its reply is of another round or participant"


# at the door and in the node loop


def test_of_two_copied_folders_the_last_works_the_other_says_why(hub: Live) -> None:
    node, by = hub.enrol(), list[str]()

    def first(data: bytes) -> bytes:
        by.append("first")
        return echo(data)

    def second(data: bytes) -> bytes:
        by.append("second")
        return echo(data)

    net = hub.net(node, deadline=60.0)
    with at_work(one := resident(hub, node, first)):
        until(lambda: 1 in net.connections())
        with at_work(two := resident(hub, node, second)):
            until(lambda: bool(one.ended))
            (error,) = one.ended
            assert isinstance(error, NetworkError)
            assert error.what == "Another process took this participant's place."
            until(lambda: 1 in net.connections())
            (reply,) = net.exchange([TASK])
            assert isinstance(reply, Reply)
            assert by == ["second"]
            assert two.ended == []
    assert any("another process took this participant's place" in line for line in hub.log_lines)


def test_an_unknown_key_is_refused_by_name_and_reported(hub: Live) -> None:
    with at_work(one := resident(hub, hub.enrol(), echo, key=new_key())):
        until(lambda: bool(one.ended))
    assert "refused this participant" in one.ended[0].what
    assert any("unknown key or wrong signature" in line for line in hub.log_lines)


@pytest.mark.parametrize("days", [1, -1])
def test_a_clock_a_day_off_is_refused_and_named(
    hub: Live, days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's clock itself: the time that it signs and sends."""
    from flwr.supernode import node_auth_http_interceptor as signing

    right = signing.now
    monkeypatch.setattr(signing, "now", lambda: right() + timedelta(days=days))
    with at_work(one := resident(hub, hub.enrol(), echo)):
        until(lambda: bool(one.ended))
    assert "refused this participant" in one.ended[0].what
    assert "clock" in one.ended[0].why


def test_what_is_no_task_is_refused_by_the_node_which_lives_on(hub: Live) -> None:
    node = hub.enrol()
    net = hub.net(node, deadline=60.0)
    with at_work(one := resident(hub, node, echo)):
        until(lambda: 1 in net.connections())
        for hostile in (b"noise", pack_message(Reply(1, 1, "north"))[:-3], b""):
            grid = hub.grid.grid
            post(grid, seal(hostile, grid.run.run_id, grid.node.node_id, node, "1", 60.0))
            net.long_poll.task(node)
        until(lambda: sum("refused a message" in line for line in one.log_lines) == 3)
        (reply,) = net.exchange([TASK])
    assert isinstance(reply, Reply)


def test_a_too_long_body_is_refused_at_the_gateway_and_reported(hub: Live) -> None:
    body = b"\x00" * ((16 << 20) + 1)
    with httpx.Client(verify=hub.context()) as client:
        answer = client.post(
            f"https://{hub.address}/v1/fleet/push-messages", content=body, timeout=120.0
        )
    assert answer.status_code == 413
    assert any("more than 16 MiB" in line for line in hub.log_lines)


# the server


def superlink(hub: Live) -> int:
    return int((hub.folder / "superlink" / "superlink.pid").read_text())


def test_superlink_killed_with_a_task_in_hand_loses_no_reply(hub: Live) -> None:
    node, taken, go = hub.enrol(), Event(), Event()

    def waits(data: bytes) -> bytes:
        taken.set()
        go.wait(300)
        return echo(data)

    net = hub.net(node, deadline=300.0, back=200.0)
    before = len(hub.log_lines)
    with at_work(one := resident(hub, node, waits)):
        until(lambda: 1 in net.connections())
        with ThreadPoolExecutor(1) as pool:
            got = pool.submit(lambda: list(net.exchange([TASK])))
            assert taken.wait(120)
            victim = superlink(hub)
            os.kill(victim, signal.SIGKILL)
            until(lambda: any("starts it again" in line for line in hub.log_lines[before:]))
            until(lambda: superlink(hub) != victim)
            go.set()
            (reply,) = got.result(timeout=400)
    assert isinstance(reply, Reply), reply
    assert one.ended == []


def give_up(hub: Live) -> None:
    """As if the machine had slept: the server has not heard of its tasks' holders in time."""
    with (
        closing(
            sqlite3.connect(hub.folder / "superlink" / "superlink.sqlite", timeout=60.0)
        ) as database,
        database,
    ):
        changed = database.execute(
            "UPDATE task SET active_until = '2000-01-01 00:00:00' WHERE active_until IS NOT NULL"
        )
        assert changed.rowcount == 1


def test_a_place_given_up_is_taken_again_and_its_task_sent_again(hub: Live) -> None:
    """Nobody is interrupted; one that had answered before answers again, one that had not has its
    task sent anew.
    """
    quick, slow, taken, go = hub.enrol(), hub.enrol(), Event(), Event()

    def waits(data: bytes) -> bytes:
        taken.set()
        go.wait(300)
        return echo(data)

    net, before = hub.net(quick, slow, deadline=120.0), hub.grid.run
    with at_work(resident(hub, quick, echo), other := resident(hub, slow, waits)):
        until(lambda: set(net.connections()) == {1, 2})
        with ThreadPoolExecutor(1) as pool:
            got = pool.submit(lambda: list(net.exchange([TASK, DescribeRequest(4, 2, "south")])))
            assert taken.wait(60)
            give_up(hub)
            until(lambda: hub.grid.run != before)
            go.set()
            replies = got.result(timeout=200)
        assert {reply.name for reply in replies if isinstance(reply, Reply)} == {
            "north",
            "south",
        }, replies
        assert other.ended == []
        give_up(hub)  # with nothing on its way
        (reply,) = net.exchange([TASK])
    assert isinstance(reply, Reply), reply
    assert sum("takes a new one" in line for line in hub.log_lines) == 2


def test_a_server_that_hangs_for_a_while_loses_nothing(hub: Live) -> None:
    node = hub.enrol()
    net = hub.net(node, deadline=120.0)
    with at_work(resident(hub, node, echo)):
        until(lambda: 1 in net.connections())
        process = psutil.Process(superlink(hub))
        with ThreadPoolExecutor(1) as pool:
            process.suspend()
            try:
                got = pool.submit(lambda: list(net.exchange([TASK])))
                time.sleep(3.0)
                assert not got.done()
            finally:
                process.resume()
            (reply,) = got.result(timeout=200)
    assert isinstance(reply, Reply), reply


def test_an_expired_certificate_is_refused_and_nothing_is_sent(hub: Live, tmp_path: Path) -> None:
    authority, cert, key = expired()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for name, data in (("cert", cert), ("key", key)):
        (tmp_path / name).write_bytes(data)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    heard: list[bytes] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    caller, _ = listener.accept()
                    with (
                        closing(caller),
                        suppress(OSError),
                        context.wrap_socket(caller, server_side=True) as inner,
                    ):
                        heard.append(inner.recv(100))

        Thread(target=answer, daemon=True).start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with at_work(one := resident(hub, hub.enrol(), echo, address, authority=authority)):
            until(lambda: bool(one.log_lines))
    assert "expired" in one.log_lines[0]
    assert [data for data in heard if data] == []


def expired() -> tuple[bytes, bytes, bytes]:
    """An authority, and a server's certificate by it that ran out yesterday, and its key; PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    authority, authority_key = new_authority("late", 1)
    signer, key = load_pem_private_key(authority_key, None), new_key()
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    today = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "coordinator")])
    issuer = x509.load_pem_x509_certificate(authority).subject
    certificate = (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - timedelta(days=30))
        .not_valid_after(today - timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    return authority, certificate.public_bytes(Encoding.PEM), key_bytes(key)


# the coordinator


def make_roster(
    hub: Live, config: Any, context: Any, folder: Path, nodes: dict[str, int], said: list[str]
) -> Roster:
    folder.mkdir(exist_ok=True)
    rows = {name: {"public_key": "", "node": str(node)} for name, node in nodes.items()}
    (folder / "enrolled.json").write_text(json.dumps(rows))

    def say(words: str, event: str = "", level: str = "info", **fields: Any) -> None:
        said.append(words)

    return Roster(folder, config, {MAIN: context}, hub.net(deadline=60.0), 60.0, say)


def says(spec: str, rows: int = 48) -> Any:
    """A participant that says this of itself."""
    log_lines = {
        "hardware": {},
        "batches": {"train": rows, "validation": 16, "test": 16},
        "mean_tokens": 6.0,
        "data": {"rows": rows},
        "speed": None,
    }
    body = json.dumps({"spec": spec, "told": log_lines, "commitment": "c"})

    def answer(data: bytes) -> bytes:
        task = unpack_message(data, "a task", ["describe"])
        assert isinstance(task, DescribeRequest)
        return pack_message(Reply(task.round, task.index, task.name, body=body))

    return answer


def test_another_base_or_version_is_named_and_left_out(
    hub: Live, make_federation: Any, tmp_path: Path
) -> None:
    """With a quorum the others begin without it; without one nobody does, and the error says who
    and why.
    """
    one, two, three, said = hub.enrol(), hub.enrol(), hub.enrol(), list[str]()
    nodes = {"site0": one, "site1": two, "site2": three}
    whole = load_federation(make_federation(participants=3))
    context = build_model_context(whole, {})
    spec = context.adapted.spec
    garbled = says(spec, rows=0)
    with at_work(
        resident(hub, one, says(spec)),
        resident(hub, two, says("another")),
        resident(hub, three, garbled),
    ):
        strict = make_roster(hub, whole, context, tmp_path / "a", nodes, said)
        with pytest.raises(NetworkError, match=r"site1 cannot take part.*base model.*version"):
            strict.start()
        few = load_federation(make_federation(participants=3, folder="few", train={"quorum": 1}))
        lenient = make_roster(hub, few, context, tmp_path / "b", nodes, said)
        until(lambda: len(lenient.here()) == 3)
        assert lenient.start().keys() == {1}
        assert lenient.barred.keys() == {2, 3}
        assert lenient.barred[3].code == "foreign-profile"
        assert any("site1 cannot take part" in line for line in said)


def test_one_back_with_other_data_is_barred_and_the_run_stops(
    hub: Live, make_federation: Any, tmp_path: Path
) -> None:
    node, said = hub.enrol(), list[str]()
    config = load_federation(make_federation(participants=1))
    context = build_model_context(config, {})
    with at_work(resident(hub, node, says(context.adapted.spec, rows=50))):
        again = make_roster(hub, config, context, tmp_path / "a", {"site0": node}, said)
        row = {"name": "site0", "rank": 2, "steps": 4, "data": {"rows": 48}}
        row["batches"] = {"train": 48, "validation": 16, "test": 16}
        header = {"participants": [row], "commitment": {"site0": "c"}}
        changed = pytest.raises(RunError, match="site0: its data")
        with Ledger.create(tmp_path / "ledger.sqlite", header) as ledger, changed:
            again.restore(header, ledger)


def test_a_full_disk_is_named_and_the_run_resumes_afterwards(
    make_federation: Any, tmp_path: Path
) -> None:
    """SQLite may not have another page after round 1; with room again the run ends as an
    unbroken one.
    """
    w = build_setup(make_federation(participants=2, train={"rounds": 3}))
    runtime, path = Embedded(w.nodes), tmp_path / "ledger.sqlite"
    with Ledger.create(tmp_path / "whole.sqlite", {"name": "whole"}) as ledger:
        *_, (expected, _) = federate(star(w.run_spec, runtime), ledger, open_meter())

    def filling(ledger: Ledger) -> None:
        for state, _ in federate(star(w.run_spec, runtime), ledger, open_meter()):
            if state.round == 1:
                pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
                ledger._connection.execute(f"PRAGMA max_page_count = {pages}")

    with Ledger.create(path, {"name": "full"}) as ledger:
        with pytest.raises(ResourceError, match="disk is full") as caught:
            filling(ledger)
        assert "Free space" in caught.value.fix
    assert verify(path).ok
    with Ledger.open(path) as ledger:
        assert [entry.body["round"] for entry in ledger.entries("round")] == [1]
        *_, (last, _) = federate(star(w.run_spec, runtime), ledger, open_meter())
    assert pack_state(last) == pack_state(expected)


def test_no_secret_is_in_a_log(hub: Live) -> None:
    """After all of the above: what door, node and server wrote holds no key, no shared secret, no
    task token.
    """
    log = (hub.folder / "superlink" / "superlink.log").read_bytes()
    written = "\n".join(hub.log_lines).encode() + log
    assert log
    assert b"PRIVATE KEY" not in written
    assert (hub.folder / "secret").read_bytes() not in written
    assert hub.grid.grid._token.encode() not in written
