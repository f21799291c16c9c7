"""The life of a participant: joining, joining anew, leaving, going on alone, pausing; and what is said when something is wrong."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from huggingface_hub import ModelCard

pytest.importorskip("flwr")

from network_processes import ALONE, background, federation, kinds, tequio, until

from builders import free_port
from tequio.app.models.open import open_models
from tequio.app.models.verify import verify_run
from tequio.app.network.coordinator.roster import Roster
from tequio.app.network.coordinator.serve import Times, coordinate
from tequio.app.network.hub.folder import (
    check_enrolment,
    enrolled,
    init_coordinator_folder,
    invite,
    node_numbers,
    open_coordinator_folder,
    withdrawn,
    write_enrolment,
    write_leave,
)
from tequio.app.network.monitoring.health import FILE as HEALTH
from tequio.app.network.monitoring.health import Health, read_health
from tequio.app.network.monitoring.status import read_status
from tequio.app.network.participant.join import (
    Ready,
    join_federation,
    prepare,
    read_authority,
    read_identity,
)
from tequio.app.network.participant.leave import leave_federation
from tequio.app.network.participant.offline import personalise_offline
from tequio.app.network.participant.serve import Ending, ParticipantService, open_participant, serve_participant
from tequio.app.simulation.run import resume
from tequio.config import load_federation, load_participant
from tequio.core.canonical import digest_update
from tequio.core.errors import ConfigError, DataError, NetworkError, RunBusy, RunError, UpdateError
from tequio.core.events import ignore_events
from tequio.core.messages import REPLIES, pack_message, unpack_message
from tequio.core.types import PersonaliseRequest, Reply, TrainRequest
from tequio.core.update import Update, zero
from tequio.ledger.folder import RunFolder, open_to_others
from tequio.ledger.record import Ledger
from tequio.participant.accounts import read_account_books
from tequio.participant.residual import Residual
from tequio.report.write import write_report
from tequio.runtimes.flower.client import Identity, serve
from tequio.runtimes.flower.enrolment_client import reach, take_leave
from tequio.runtimes.flower.gateway import Gateway, claimed, open_gateway
from tequio.runtimes.flower.superlink import Server
from tequio.trust.invitation import read_invitation
from tequio.trust.keys import load_key, new_authority, new_key, new_server, public_bytes
from tequio.trust.leave_request import leave_request


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


def unwatched(*_: Any) -> None:
    """Nobody looks."""


def test_a_foreign_certificate_has_its_own_sentence(tmp_path: Path) -> None:
    expected = new_authority("ours", 1)[0]
    stop, lines = Event(), list[str]()
    with somebody(tmp_path) as address:
        with pytest.raises(NetworkError, match="does not show the certificate of the invitation"):
            reach(address, expected.decode())
        identity = Identity(address, expected, new_key(), 1)
        node = Thread(
            target=serve,
            args=(identity, lambda _: None, stop, lambda words, *_, **__: lines.append(words)),
            daemon=True,
        )
        node.start()
        until(lambda: bool(lines), 60)
        stop.set()
        node.join(60)
    assert "does not show the certificate of the invitation" in lines[0]
    assert "next try" in lines[0]


def test_nobody_there_and_a_damaged_certificate_are_other_sentences() -> None:
    with pytest.raises(NetworkError, match="cannot be reached"):
        reach(f"127.0.0.1:{free_port()}", new_authority("ours", 1)[0].decode())
    for damaged in ("", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(NetworkError, match="certificate in the invitation cannot be read"):
            reach(f"127.0.0.1:{free_port()}", damaged)
    with pytest.raises(NetworkError, match="no address"):
        reach("127.0.0.1:port", new_authority("ours", 1)[0].decode())


def test_a_taken_port_is_reported_before_a_base_is_evaluated_for(make_federation: Any, tmp_path: Path) -> None:
    toml = make_federation(base={"model": str(tmp_path / "nowhere")})
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        tequio("coordinator", "init", tmp_path / "hub", toml, "--address", address)
        said = tequio("coordinator", "start", tmp_path / "hub", fails=True)
    assert said.startswith(f"Error: {address} cannot be listened on")
    assert "Errno" not in said


@contextmanager
def opened(make_federation: Any, root: Path) -> Iterator[tuple[Path, Path]]:
    """(a coordinator's folder whose door is open, the participants' files); nothing is behind the door."""
    toml = make_federation(participants=2)
    init_coordinator_folder(root / "hub", toml, f"127.0.0.1:{free_port()}")
    with reopened(root / "hub"):
        yield root / "hub", toml.parent / "participants"


@contextmanager
def reopened(hub: Path) -> Iterator[None]:
    """Its door, open."""
    number = int(open_coordinator_folder(hub).address.rpartition(":")[2])
    files = [hub / name for name in ("tls/server.pem", "tls/server.key", "tls/authority.pem", "secret")]
    server = Server(free_port(), hub, *files)

    def enrol(name: str, token: str, public_key: str) -> int:
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


def test_invited_anew_the_old_token_and_the_old_key_count_no_more(make_federation: Any, tmp_path: Path) -> None:
    with opened(make_federation, tmp_path) as (hub, people):
        first = asked(hub, people)
        folder = join_federation(first, tmp_path / "site0")
        old_key = public_bytes(load_key(folder / "key.pem")).decode()
        path = invite(hub, "site0")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert enrolled(hub) == {}
        assert withdrawn(hub) == {old_key: "site0"}
        second = read_invitation(path)
        with pytest.raises(NetworkError, match="counts no more"):
            check_enrolment(hub, "site0", second.token, old_key)
        with pytest.raises(NetworkError, match="token for 'site0' is not right"):
            check_enrolment(hub, "site0", first.invitation.token, public_bytes(new_key()).decode())
        with pytest.raises(ConfigError, match=r"site9.*not on the roster"):
            invite(hub, "site9")
        (folder / "run").mkdir()
        (folder / "run" / "kept").write_text("as it was")
        join_federation(asked(hub, people), folder)  # the same folder, a new key
        assert read_identity(folder)["node"] == "8"
        assert enrolled(hub)["site0"]["invitation"] == "1"
        assert enrolled(hub)["site0"]["public_key"] != old_key
        assert sorted(os.listdir(folder)) == ["authority.pem", "federation.toml", "identity.json", "key-2.pem", "run"]
        assert (folder / "run" / "kept").read_text() == "as it was"
        with pytest.raises(ConfigError, match="has joined already"):
            join_federation(asked(hub, people), folder)
        invite(hub, "site0")
        join_federation(asked(hub, people), folder)
        assert "key.pem" in os.listdir(folder)
        assert "key-2.pem" not in os.listdir(folder)
        with pytest.raises(ConfigError, match="belongs to another participant"):
            join_federation(asked(hub, people, "site1"), folder)


def test_a_refused_join_leaves_nothing_that_blocks_the_next(make_federation: Any, tmp_path: Path) -> None:
    with opened(make_federation, tmp_path) as (hub, people):
        stale = asked(hub, people)
        invite(hub, "site0")
        with pytest.raises(NetworkError, match=r"refused.*token"):
            join_federation(stale, tmp_path / "site0")
        assert not (tmp_path / "site0").exists()
        join_federation(asked(hub, people), tmp_path / "site0")
        with pytest.raises(NetworkError, match=r"joined already.*tell the coordinator"):  # a thief of the invitation
            join_federation(asked(hub, people), tmp_path / "thief")
        assert not (tmp_path / "thief").exists()


def test_an_invitation_is_not_spent_on_data_that_cannot_be_used(make_federation: Any, tmp_path: Path) -> None:
    """Its file is not there, cannot be read, or has another column; then it is mended, and the same invitation joins."""
    with opened(make_federation, tmp_path) as (hub, people):
        own, data = people / "site0.toml", people.parent / "data" / "site0.jsonl"
        whole = data.read_bytes()
        data.unlink()
        with pytest.raises(DataError, match=r"site0\.jsonl"):
            asked(hub, people)
        data.mkdir()
        with pytest.raises(DataError, match=r"site0\.jsonl"):
            asked(hub, people)
        data.rmdir()
        data.write_bytes(whole.replace(b'"label"', b'"mark"'))
        with pytest.raises(DataError, match="label"):
            asked(hub, people)
        assert "label" in tequio("join", hub / "invitations/site0.json", own, "--yes", fails=True)
        assert enrolled(hub) == {}
        own.rename(own.with_suffix(".away"))
        with pytest.raises(
            ConfigError, match=r'There is no file .*site0\.toml.* It says where your data are.*name = "site0"'
        ):
            asked(hub, people)
        own.with_suffix(".away").rename(own)
        data.write_bytes(whole)
        join_federation(asked(hub, people), tmp_path / "site0")
        assert set(enrolled(hub)) == {"site0"}


def test_init_with_its_arguments_swapped_says_how_it_goes(make_federation: Any, tmp_path: Path) -> None:
    toml = make_federation()
    with pytest.raises(ConfigError, match="The new folder comes first") as caught:
        init_coordinator_folder(toml, tmp_path / "hub", "127.0.0.1:9443")
    assert f"tequio coordinator init {tmp_path / 'hub'} {toml} --address 127.0.0.1:9443" in str(caught.value)


def test_a_taken_metrics_port_is_reported_before_a_base_is_evaluated_for(make_federation: Any, tmp_path: Path) -> None:
    """By participant and coordinator; nothing else is said to be wrong then."""
    toml = make_federation(participants=1, base={"model": str(tmp_path / "nowhere")})
    init_coordinator_folder(tmp_path / "hub", toml, f"127.0.0.1:{free_port()}")
    with reopened(tmp_path / "hub"):
        folder = join_federation(asked(tmp_path / "hub", toml.parent / "participants"), tmp_path / "site0")
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        where = ("127.0.0.1", int(other.getsockname()[1]))
        with pytest.raises(NetworkError, match="cannot be listened on for metrics"):
            serve_participant(folder, Health("participant", ignore_events, where))
        with pytest.raises(NetworkError, match="cannot be listened on for metrics"):
            coordinate(
                tmp_path / "hub",
                "127.0.0.1",
                None,
                Times(1.0, 1.0),
                Health("coordinator", ignore_events, where),
                unwatched,
            )


def test_only_its_own_key_can_say_that_one_leaves_and_only_now(make_federation: Any, tmp_path: Path) -> None:
    with opened(make_federation, tmp_path) as (hub, people):
        folder = join_federation(asked(hub, people), tmp_path / "site0")
        other = join_federation(asked(hub, people, "site1"), tmp_path / "site1")
        key, node = load_key(folder / "key.pem"), read_identity(folder)["node"]
        address, authority = read_identity(folder)["address"], (folder / "authority.pem").read_text()
        good = leave_request(key, "site0", node)
        wrong = [
            {**good, "name": "site1"},
            {**good, "node": "8"},
            {**good, "time": str(float(good["time"]) - 1)},
            {**good, "time": "nan"},
            {**good, "signature": "00"},
            {**good, "signature": "x"},
            leave_request(load_key(other / "key.pem"), "site0", node),
            leave_request(key, "nobody", node),
        ]
        for request in wrong:
            assert "Nobody leaves in the name of" in take_leave(address, authority, request)
        assert "Expected name, node" in take_leave(address, authority, {"name": "site0"})
        assert set(node_numbers(hub)) == {"site0", "site1"}
        assert take_leave(address, authority, good) == ""
        assert take_leave(address, authority, good) == ""  # the answer to the first may have been lost
        assert set(node_numbers(hub)) == {"site1"}
        assert list(withdrawn(hub).values()) == ["site0"]
        invite(hub, "site0")  # it may come back
        join_federation(asked(hub, people), folder)
        assert set(node_numbers(hub)) == {"site0", "site1"}
        assert "Nobody leaves" in take_leave(address, authority, good)  # said by the key before


OFFLINE = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise SystemExit("it asked for a network")

sys.addaudithook(refuse)
from tequio.cli.main import main
main()
"""


def offline(*arguments: str | Path) -> dict[str, Any]:
    """A command in a process that ends if it asks for any connection; its JSON."""
    command = [sys.executable, "-c", OFFLINE, *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def trained(resident: ParticipantService, round_: int, held: Update) -> Update:
    """What the participant makes of a training task."""
    task = TrainRequest(round_, 1, "site0", "product", rank=2, steps=3, learning_rate=5e-3, seed=round_, held=held)
    reply = unpack_message(resident.answer(pack_message(task)), "a reply", REPLIES)
    assert isinstance(reply, Reply)
    assert reply.update is not None
    return reply.update


@pytest.mark.parametrize("length", [0, 80])
def test_a_damaged_authority_is_named_with_the_way_out(make_federation: Any, tmp_path: Path, length: int) -> None:
    """Joining anew is one."""
    with opened(make_federation, tmp_path) as (hub, people):
        folder = join_federation(asked(hub, people), tmp_path / "site0")
        path = folder / "authority.pem"
        path.write_bytes(path.read_bytes()[:length])
        said = tequio("participate", folder, fails=True)
        assert said.startswith(f"Error: {path} holds no certificate.")
        assert "new invitation" in said
        assert str(path) in leave_federation(folder, None)["why"]
        invite(hub, "site0")
        join_federation(asked(hub, people), folder)
    assert read_authority(folder) == (hub / "tls/authority.pem").read_text()


def test_on_an_offline_it_goes_on_from_the_last_shared_model(make_federation: Any, tmp_path: Path) -> None:
    """With no network: from the base where nothing is known, then from what came last; then predict, export, verify and report."""
    with opened(make_federation, tmp_path) as (hub, people):
        folder = join_federation(asked(hub, people), tmp_path / "site0")
    run, file = folder / "run", load_participant(people / "site0.toml")
    nothing = offline("island", folder)
    assert nothing["from"]["round"] == 0
    with open_participant(folder, file, lambda _: None) as resident:
        one = trained(resident, 1, zero(resident.node.adapted.spec))
        assert resident.ledger.last("received") is None  # the base is kept anyway
        two = trained(resident, 2, one)
        trained(resident, 3, one.plus(two))
        trained(resident, 4, one.plus(two))  # the gate refused round 3
        written_to = [(e.body["round"], e.body["digest"]) for e in resident.ledger.entries("received")]
    assert written_to == [(1, digest_update(one)), (2, digest_update(one.plus(two)))]
    assert [path.name for path in (run / "participants" / "site0").glob("received-*")] == ["received-2.safetensors"]
    made = personalise_offline(folder, lambda _: None)
    assert made["from"] == {"round": 2, "digest": digest_update(one.plus(two))}
    before = verify_run(run)
    assert before["ok"]
    assert personalise_offline(folder, lambda _: None) == made
    assert verify_run(run)["entries"] == before["entries"]
    for place in (run, folder / ".." / "site0" / "run"):
        with pytest.raises(RunError, match=r"site0's own record\..*Go on with: tequio participate .*site0$"):
            resume(place)
    assert offline("predict", run, "site0", "the nurse was kind")["predictions"][0]["label"] in ("good", "bad")
    assert {model.name for model in open_models(run, None)} == {"site0", "shared"}
    stands = read_status(folder)
    assert (stands["state"], stands["personal"], stands["alone"]) == ("alone", None, made["chosen"])
    assert stands["next"] == f'tequio predict {run} site0 "a text"'
    rows = offline("export", run, "--out", tmp_path / "out")["exported"]
    assert {row["name"] for row in rows} == {"site0", "shared"}
    assert write_report(run, "es", None)[0].exists()
    (run / "participants" / "site0" / "received-2.safetensors").write_bytes(b"damaged")
    assert not verify_run(run)["ok"]


def test_a_coordinators_budget_bounds_the_personal_model_at_home(make_federation: Any, tmp_path: Path) -> None:
    """What the task says it may take of the federation's budget is kept to; asked again, the first outcome is told."""
    with opened(make_federation, tmp_path) as (hub, people):
        folder = join_federation(asked(hub, people), tmp_path / "site0")
    with open_participant(folder, load_participant(people / "site0.toml"), lambda _: None) as resident:
        shared = trained(resident, 1, zero(resident.node.adapted.spec))
        task = PersonaliseRequest(1, 1, "site0", shared, 2, 3, {"kwh": 1e-12})
        said = [resident.answer(pack_message(replace(task, budget=budget))) for budget in (task.budget, {})]
    bodies = [unpack_message(data, "a reply", REPLIES) for data in said]
    assert bodies[0] == bodies[1]
    assert isinstance(bodies[0], Reply)
    body = json.loads(bodies[0].body)
    assert body["chosen"] == "shared"
    assert "no more fit the budget of energy" in body["cut"]


def test_a_model_of_which_the_coordinator_has_not_heard_is_not_the_end(make_federation: Any, tmp_path: Path) -> None:
    """Killed before it was heard of: to be told by `participate`. Over all the same, where the coordinator says so."""
    with opened(make_federation, tmp_path) as (hub, people):
        folder = join_federation(asked(hub, people), tmp_path / "site0")
    health = Health("participant", ignore_events)
    with open_participant(folder, load_participant(people / "site0.toml"), ignore_events) as resident:
        shared = trained(resident, 1, zero(resident.node.adapted.spec))
        resident.answer(pack_message(PersonaliseRequest(1, 1, "site0", shared, 2, 3)))
        stands = read_status(folder)
        assert (stands["state"], stands["next"]) == ("not running", f"tequio participate {folder}")
        assert stands["personal"] is not None
        assert "has not heard of the personal model" in tequio("status", folder)
        with health.written_to(folder):
            until(lambda: read_health(folder) is not None, 60)
            stands = read_status(folder)
            assert "has not heard" in stands["note"]
            assert stands["next"] is None, "it tries on"
        used = f'tequio predict {folder / "run"} site0 "a text"'
        facts = json.loads((folder / HEALTH).read_text()) | {"started": 0.0}  # its process is gone
        for stage, state, following in (
            ("ended", "finished", used),
            ("not connected", "killed", f"tequio participate {folder}"),
        ):
            (folder / HEALTH).write_text(json.dumps(facts | {"stage": stage}))
            stands = read_status(folder)
            assert (stands["state"], stands["next"]) == (state, following)
        Ending(resident.ledger, Event(), ignore_events, linger=600.0).tell("sent 9 bytes", "sent")
    stands = read_status(folder)
    assert (stands["state"], stands["note"], stands["next"]) == ("finished", None, used)


def test_who_leaves_takes_along_what_is_its_own_and_no_secret(make_federation: Any, tmp_path: Path) -> None:
    """Without a network at first: it is said, and the bundle is whole; then the coordinator is told."""
    with opened(make_federation, tmp_path) as (hub, people):
        file = people / "site0.toml"
        file.write_text(file.read_text() + '\n[energy]\ncountry = "DE"\n')
        folder = join_federation(asked(hub, people), tmp_path / "site0")
        token = read_invitation(hub / "invitations" / "site0.json").token
    with open_participant(folder, load_participant(people / "site0.toml"), lambda _: None) as resident:
        one = trained(resident, 1, zero(resident.node.adapted.spec))
        trained(resident, 2, one)
        with pytest.raises(RunBusy):
            leave_federation(folder, None)
    personalise_offline(folder, lambda _: None)
    lines = read_account_books(folder / "run")["site0"]
    assert {line["work"] for line in lines} == {"train", "local", "personal"}
    tequio("export", folder / "run", "site0", "--out", tmp_path / "export")
    card = ModelCard.load(tmp_path / "export" / "site0" / "adapter" / "README.md")
    grams = 380.95 * sum(line["joules"] for line in lines) / 3.6e6  # Germany; its rounds with it
    assert card.data.co2_eq_emissions["emissions"] == pytest.approx(grams)
    assert "site0's personal model and rounds; coordinator and other participants are not in it" in card.text
    said = tequio("leave", folder, "--yes")
    assert "was not told" in said
    stands = read_status(folder)
    assert (stands["state"], stands["left"]) == ("left", read_identity(folder)["left"])
    assert (stands["bundle"], stands["next"]) == (
        str(folder / "bundle"),
        f'tequio predict {folder / "bundle"} site0 "a text"',
    )
    assert "was not told: leave again" in stands["note"]
    assert "site0 left the federation on" in tequio("status", folder)
    assert "will see you as away" in said
    bundle = folder / "bundle"
    assert [path for path in (folder, folder / "run", bundle) if open_to_others(path)] == []
    assert verify_run(bundle) == verify_run(folder / "run")
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert {"README.md", "federation.toml", "report.en.html", "report.es.html", "ledger.sqlite"} <= files
    assert {
        "adapters/site0/adapter/adapter_model.safetensors",
        "adapters/shared/adapter/adapter_model.safetensors",
    } <= files
    for name in ("site0", "shared"):
        taken = ModelCard.load(bundle / "adapters" / name / "adapter" / "README.md")
        assert taken.data.co2_eq_emissions["emissions"] == pytest.approx(grams)
    tequio("export", bundle, "site0", "--out", tmp_path / "later")  # where the book is not
    later = ModelCard.load(tmp_path / "later" / "site0" / "adapter" / "README.md")
    assert 0 < later.data.co2_eq_emissions["emissions"] < grams
    assert "site0's personal model, without its rounds;" in later.text
    assert not any("salt" in file or "key" in file or "memory" in file for file in files)
    whole = b"".join((bundle / file).read_bytes() for file in files)
    secrets = [token, "PRIVATE KEY", (folder / "run/participants/site0/salt").read_text()]
    texts = [json.loads(line)["text"] for line in (people.parent / "data/site0.jsonl").read_text().splitlines()]
    assert [secret for secret in (*secrets, *texts) if secret.encode() in whole] == []
    assert offline("predict", bundle, "site0", "the nurse was kind")["predictions"][0]["label"] in ("good", "bad")
    assert 'tequio predict . site0 "' in (bundle / "README.md").read_text()
    with pytest.raises(ConfigError, match="left the federation"):
        serve_participant(folder, Health("participant", ignore_events))
    with pytest.raises(ConfigError, match="is there already"):
        leave_federation(folder, None)
    with reopened(hub):
        assert leave_federation(folder, tmp_path / "second")["told"]
    stands = read_status(folder)
    assert stands["bundle"] == str(tmp_path / "second")
    assert "the coordinator was told" in stands["note"]
    assert node_numbers(hub) == {}


def test_outside_its_hours_it_is_disconnected_and_says_until_when(make_federation: Any, tmp_path: Path) -> None:
    """The same folder at two local times: three hours before the window, where it does not even try; and within."""
    with opened(make_federation, tmp_path) as (hub, people):
        folder = join_federation(asked(hub, people), tmp_path / "site0")
    own, now = people / "site0.toml", datetime.now(UTC)
    opens, closes = ((now + timedelta(hours=hours)).strftime("%H:%M") for hours in (3, 4))
    own.write_text(own.read_text() + f'\n[schedule]\nhours = "{opens}-{closes}"\n')
    log = tmp_path / "log"
    with background(log, "participate", folder, *ALONE, env={"TZ": "UTC0"}):
        until(lambda: "disconnected until" in log.read_text(), 300)
    assert f"{opens}, local time" in log.read_text()
    assert "no connection" not in log.read_text()
    with background(log, "participate", folder, *ALONE, env={"TZ": "THERE-03:30"}):  # that far east of Greenwich
        until(lambda: "no connection" in log.read_text(), 300)  # it tried: nobody is there
    assert log.read_text().count("disconnected until") == 1


def test_another_salt_is_taken_only_from_who_was_invited_anew(make_federation: Any, tmp_path: Path) -> None:
    with opened(make_federation, tmp_path) as (hub, people):
        config = load_federation(people.parent / "federation.toml")
        join_federation(asked(hub, people), tmp_path / "site0")
        unused: Any = None  # nobody is asked anything
        lines: list[str] = []
        batches = {"train": 9, "validation": 9, "test": 9}
        row = {"name": "site0", "rank": 2, "steps": 3, "data": {"rows": 27}, "batches": batches}
        with Ledger.create(tmp_path / "ledger.sqlite", {"name": "x"}) as ledger:
            roster = Roster(
                hub, config, unused, unused, 1.0, lambda words, *_, **__: lines.append(words), ledger=ledger
            )
            roster.register(1, row, "first salt")
            log_lines = {"batches": batches, "mean_tokens": 5.0, "speed": None, "hardware": {}, "data": {"rows": 28}}
            roster._verify({1: {"told": log_lines, "commitment": "first salt"}}, 3)
            assert "are not those with which it joined" in roster.barred.pop(1)
            log_lines["data"] = {"rows": 27}
            roster._verify({1: {"told": log_lines, "commitment": "second salt"}}, 3)
            assert "are not those with which it joined" in roster.barred.pop(1)
            invite(hub, "site0")
            roster._verify({1: {"told": log_lines, "commitment": "second salt"}}, 3)
            assert roster.barred.pop(1)  # invited, but it joined before that
            join_federation(asked(hub, people), tmp_path / "site0")
            log_lines["data"] = {"rows": 28}
            roster._verify({1: {"told": log_lines, "commitment": "second salt"}}, 3)
            assert roster.barred == {}
            roster._verify({1: {"told": log_lines, "commitment": "third salt"}}, 4)
            assert roster.barred.pop(1)  # once for an invitation
            (entry,) = ledger.entries("joined")
        assert (entry.body["commitment"], entry.body["invitation"], entry.body["round"]) == ("second salt", 1, 3)
        assert (entry.body["participant"]["rank"], entry.body["participant"]["data"]) == (2, {"rows": 28})


def test_a_memory_of_rounds_before_ones_time_is_nothing_and_a_lost_one_is_an_error(tmp_path: Path) -> None:
    memory = Residual(RunFolder(tmp_path), "participants/site0", since=3)
    assert memory.load(3, "spec", "site0").entries == {}
    with pytest.raises(UpdateError, match=r"memory .* cannot be read"):
        memory.load(4, "spec", "site0")


def test_a_word_of_a_minute_ago_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    import tequio.trust.leave_request as module

    key = new_key()
    request = leave_request(key, "site0", "7")
    assert module.is_leave_request(public_bytes(key), request)
    monkeypatch.setattr(module, "FRESH", 0.0)
    assert not module.is_leave_request(public_bytes(key), request)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_one_loses_its_folder_and_comes_back_another_leaves_and_the_run_ends_well(
    make_federation: Any, tmp_path: Path
) -> None:
    """With error feedback, whose memory was lost too; the coordinator is stopped and started in between."""
    coded = {"reduce": "rolora", "upload": "topk", "upload_settings": {"density": 0.5, "bits": 8.0}, "feedback": 1.0}
    toml = make_federation(participants=3, train={"rounds": 5, "patience": 99}, algorithm=coded)
    hub, log, people = tmp_path / "hub", tmp_path / "coordinator.log", toml.parent / "participants"
    record = hub / "run" / "ledger.sqlite"
    with ExitStack() as running:
        with federation(tmp_path, toml, f"127.0.0.1:{free_port()}") as folders:
            staying, leaving_, losing = (
                running.enter_context(background(tmp_path / f"{name}.log", "participate", folder, *ALONE))
                for name, folder in folders.items()
            )
            until(lambda: record.exists() and kinds(record).count("round") >= 2)
        for process in (leaving_, losing):
            process.kill()
            process.wait()
        made = kinds(record).count("round")
        folders["site2"].rename(tmp_path / "thief")
        tequio("coordinator", "invite", hub, "site2")
        assert "was not told" in tequio("leave", folders["site1"], "--yes")
        log.write_text("")
        running.enter_context(background(log, "coordinator", "start", hub, "--wait", "10", *ALONE))
        until(lambda: "Waiting for" in log.read_text())
        assert "The key with which site2 joined counts no more." in log.read_text()
        assert "refused this participant" in tequio("participate", tmp_path / "thief", fails=True)
        assert "was told" in tequio("leave", folders["site1"], "--yes", "--out", tmp_path / "bundle")
        tequio("join", hub / "invitations" / "site2.json", people / "site2.toml", "--out", folders["site2"], "--yes")
        running.enter_context(background(tmp_path / "again.log", "participate", folders["site2"], *ALONE))
        until(lambda: (hub / "run" / "report.en.html").exists())
        assert staying.wait(120) == 0
    assert "federation is over" in (tmp_path / "site0.log").read_text()
    with Ledger.open(record, read_only=True) as ledger:
        (back,) = (e.body for e in ledger.entries("joined"))
        (gone,) = (e.body for e in ledger.entries("left"))
        rounds = [e.body for e in ledger.entries("round")]
        personal = {e.body["name"] for e in ledger.entries("personal")}
        began = ledger.last("run")
    assert began is not None
    assert (back["participant"]["name"], back["invitation"]) == ("site2", 1)
    assert back["commitment"] != began.body["commitment"]["site2"]
    assert gone == {"name": "site1", "round": made, "invitation": 0}
    for body in rounds[made:]:
        assert {a["name"]: a["status"] for a in body["admissions"]} == {
            "centre": "admitted",
            "site0": "admitted",
            "site2": "admitted",
        }
    assert personal == {"site0", "site2"}
    for folder in (hub / "run", folders["site0"] / "run", folders["site2"] / "run", tmp_path / "bundle"):
        assert json.loads(tequio("verify", folder, "--json"))["ok"]
    assert {model.name for model in open_models(tmp_path / "bundle", None)} == {"shared"}
    assert 'tequio predict . shared "' in (tmp_path / "bundle" / "README.md").read_text()
