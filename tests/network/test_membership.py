"""How a participant joins, joins again and comes back; and what is said when something is wrong on
the way.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

pytest.importorskip("flwr")

from network_processes import ALONE, background, federation, kinds, tequio, until
from open_gateway import asked, opened, reopened

from builders import free_port, refused
from tequio.app.assembly.context import build_model_context
from tequio.app.models.open import open_models
from tequio.app.network.coordinator.roster import Roster
from tequio.app.network.coordinator.serve import Times, coordinate
from tequio.app.network.hub.folder import (
    check_enrolment,
    enrolled,
    init_coordinator_folder,
    invite,
    withdrawn,
)
from tequio.app.network.monitoring.health import Health
from tequio.app.network.participant.join import join_federation, read_authority, read_identity
from tequio.app.network.participant.leave import leave_federation
from tequio.app.network.participant.serve import serve_participant
from tequio.config import MAIN, load_federation
from tequio.core.errors import ConfigError, DataError, NetworkError
from tequio.core.events import ignore_events
from tequio.ledger.chain import RECORD_VERSION
from tequio.ledger.record import Ledger
from tequio.runtimes.flower.client import Identity, serve
from tequio.runtimes.flower.enrolment_client import reach
from tequio.trust.invitation import read_invitation
from tequio.trust.keys import load_key, new_authority, new_key, new_server, public_bytes


@contextmanager
def somebody(folder: Path) -> Iterator[str]:
    """A TLS server that holds a good certificate of another authority; its address."""
    authority, key = new_authority("elsewhere", 1)
    for name, data in zip(
        ("cert", "key"), new_server(authority, key, ["127.0.0.1"], 1), strict=True
    ):
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


def test_nobody_there_and_a_damaged_certificate_say_different() -> None:
    with refused(NetworkError, "unreachable", next=""):
        reach(f"127.0.0.1:{free_port()}", new_authority("ours", 1)[0].decode())
    for damaged in ("", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        with pytest.raises(NetworkError, match="certificate in the invitation cannot be read"):
            reach(f"127.0.0.1:{free_port()}", damaged)
    with refused(NetworkError, "address-unfit", address="127.0.0.1:port"):
        reach("127.0.0.1:port", new_authority("ours", 1)[0].decode())


@pytest.mark.slow
def test_a_taken_port_is_reported_before_a_base_is_evaluated_for(
    make_federation: Any, tmp_path: Path
) -> None:
    toml = make_federation(base={"model": str(tmp_path / "nowhere")})
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        tequio("coordinator", "init", tmp_path / "hub", toml, "--address", address)
        said = tequio("coordinator", "start", tmp_path / "hub", fails=True)
    assert said.startswith(f"Error: Tequio cannot listen on {address} (")
    assert "Errno" not in said


def test_after_a_new_invitation_old_token_and_key_count_no_more(
    make_federation: Any, tmp_path: Path
) -> None:
    with opened(make_federation, tmp_path) as (hub, people):
        first = asked(hub, people)
        folder = join_federation(first, tmp_path / "site0")
        old_key = public_bytes(load_key(folder / "key.pem")).decode()
        path = invite(hub, "site0")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert enrolled(hub) == {}
        assert withdrawn(hub) == {old_key: "site0"}
        second = read_invitation(path)
        with pytest.raises(NetworkError, match="no longer valid"):
            check_enrolment(hub, "site0", second.token, old_key)
        with pytest.raises(NetworkError, match="token for 'site0' is not right"):
            check_enrolment(hub, "site0", first.invitation.token, public_bytes(new_key()).decode())
        with refused(ConfigError, "not-on-roster", name="site9"):
            invite(hub, "site9")
        (folder / "run").mkdir()
        (folder / "run" / "kept").write_text("as it was")
        join_federation(asked(hub, people), folder)  # the same folder, a new key
        assert read_identity(folder)["node"] == "8"
        assert enrolled(hub)["site0"]["invitation"] == "1"
        assert enrolled(hub)["site0"]["public_key"] != old_key
        assert sorted(os.listdir(folder)) == [
            "authority.pem",
            "federation.toml",
            "files.json",
            "identity.json",
            "key-2.pem",
            "run",
        ]
        assert (folder / "run" / "kept").read_text() == "as it was"
        with refused(ConfigError, "joined-already", folder=str(folder)):
            join_federation(asked(hub, people), folder)
        invite(hub, "site0")
        join_federation(asked(hub, people), folder)
        assert "key.pem" in os.listdir(folder)
        assert "key-2.pem" not in os.listdir(folder)
        with refused(ConfigError, "folder-of-another", name="site0"):
            join_federation(asked(hub, people, "site1"), folder)


def test_a_refused_join_leaves_nothing_that_blocks_the_next(
    make_federation: Any, tmp_path: Path
) -> None:
    with opened(make_federation, tmp_path) as (hub, people):
        stale = asked(hub, people)
        invite(hub, "site0")
        with pytest.raises(NetworkError, match=r"refused.*token"):
            join_federation(stale, tmp_path / "site0")
        assert not (tmp_path / "site0").exists()
        join_federation(asked(hub, people), tmp_path / "site0")
        with pytest.raises(
            NetworkError, match=r"joined already.*tell the coordinator"
        ):  # a thief of the invitation
            join_federation(asked(hub, people), tmp_path / "thief")
        assert not (tmp_path / "thief").exists()


@pytest.mark.slow
def test_an_invitation_is_not_spent_on_data_that_cannot_be_used(
    make_federation: Any, tmp_path: Path
) -> None:
    """Its file is not there, is a folder without data, or has an unknown label; then it is mended,
    and the same invitation joins.
    """
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
        data.write_bytes(whole.replace(b'"label": "good"', b'"label": "fine"'))
        with pytest.raises(DataError, match="label"):
            asked(hub, people)
        assert "label" in tequio("join", hub / "invitations/site0.json", own, "--yes", fails=True)
        assert enrolled(hub) == {}
        own.rename(own.with_suffix(".away"))
        with refused(ConfigError, "participant-file-missing", path=str(own), name="site0"):
            asked(hub, people)
        own.with_suffix(".away").rename(own)
        data.write_bytes(whole)
        join_federation(asked(hub, people), tmp_path / "site0")
        assert set(enrolled(hub)) == {"site0"}


def test_init_with_its_arguments_swapped_says_how_it_goes(
    make_federation: Any, tmp_path: Path
) -> None:
    toml = make_federation()
    with pytest.raises(ConfigError, match="The new folder comes first") as caught:
        init_coordinator_folder(toml, tmp_path / "hub", "127.0.0.1:9443")
    assert f"tequio coordinator init {tmp_path / 'hub'} {toml} --address 127.0.0.1:9443" in str(
        caught.value
    )


def test_a_taken_metrics_port_is_reported_before_an_evaluation(
    make_federation: Any, tmp_path: Path
) -> None:
    """By participant and coordinator; nothing else is said to be wrong then."""
    toml = make_federation(participants=1, base={"model": str(tmp_path / "nowhere")})
    init_coordinator_folder(tmp_path / "hub", toml, f"127.0.0.1:{free_port()}")
    with reopened(tmp_path / "hub"):
        folder = join_federation(
            asked(tmp_path / "hub", toml.parent / "participants"), tmp_path / "site0"
        )
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        where = ("127.0.0.1", int(other.getsockname()[1]))
        with refused(NetworkError, "cannot-listen", address="{}:{}".format(*where)):
            serve_participant(folder, Health("participant", ignore_events, where))
        with refused(NetworkError, "cannot-listen", address="{}:{}".format(*where)):
            coordinate(
                tmp_path / "hub",
                "127.0.0.1",
                None,
                Times(1.0, 1.0),
                Health("coordinator", ignore_events, where),
                unwatched,
            )


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, 80])
def test_a_damaged_authority_is_named_with_the_way_out(
    make_federation: Any, tmp_path: Path, length: int
) -> None:
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


def test_another_salt_is_taken_only_from_who_was_invited_anew(
    make_federation: Any, tmp_path: Path
) -> None:
    with opened(make_federation, tmp_path) as (hub, people):
        config = load_federation(people.parent / "federation.toml")
        join_federation(asked(hub, people), tmp_path / "site0")
        unused: Any = None  # nobody is asked anything
        lines: list[str] = []
        contexts = {MAIN: build_model_context(config, {})}
        batches = {"train": 9, "validation": 9, "test": 9}
        row = {"name": "site0", "rank": 2, "steps": 3, "data": {"rows": 27}, "batches": batches}
        with Ledger.create(tmp_path / "ledger.sqlite", {"name": "x"}) as ledger:
            roster = Roster(
                hub,
                config,
                contexts,
                unused,
                1.0,
                lambda words, *_, **__: lines.append(words),
                ledger=ledger,
            )
            roster.register(1, row, "first salt")
            log_lines = {
                "batches": batches,
                "mean_tokens": 5.0,
                "speed": None,
                "hardware": {},
                "data": {"rows": 28},
            }
            roster._verify({1: {"told": log_lines, "commitment": "first salt"}}, 3)
            assert roster.barred.pop(1).code == "other-data"
            log_lines["data"] = {"rows": 27}
            roster._verify({1: {"told": log_lines, "commitment": "second salt"}}, 3)
            assert roster.barred.pop(1).code == "other-data"
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
        assert (entry.body["commitment"], entry.body["invitation"], entry.body["round"]) == (
            "second salt",
            1,
            3,
        )
        part = entry.body["participant"]
        assert (part["rank"], part["data"]) == (2, {"rows": 28})
        assert part["steps"] == 2, (
            "9 texts in batches of 8: the three steps of before would be refused now"
        )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_ends_well_though_one_returns_and_one_leaves(
    make_federation: Any, tmp_path: Path
) -> None:
    """With error feedback, whose memory was lost too; the coordinator is stopped and started in
    between.
    """
    coded = {
        "reduce": "rolora",
        "upload": "topk",
        "upload_settings": {"density": 0.5, "bits": 8.0},
        "feedback": 1.0,
    }
    toml = make_federation(participants=3, train={"rounds": 5, "patience": 99}, algorithm=coded)
    hub, log, people = tmp_path / "hub", tmp_path / "coordinator.log", toml.parent / "participants"
    record = hub / "run" / "ledger.sqlite"
    with ExitStack() as running:
        with federation(tmp_path, toml, f"127.0.0.1:{free_port()}") as folders:
            staying, leaving_, losing = (
                running.enter_context(
                    background(tmp_path / f"{name}.log", "participate", folder, *ALONE)
                )
                for name, folder in folders.items()
            )
            until(lambda: record.exists() and kinds(record).count("round") >= 2)
        for process in (leaving_, losing):
            process.kill()
            process.wait()
        made = kinds(record).count("round")
        folders["site2"].rename(tmp_path / "thief")
        tequio("coordinator", "invite", hub, "site2")
        assert "was not notified" in tequio("leave", folders["site1"], "--yes")
        log.write_text("")
        running.enter_context(background(log, "coordinator", "start", hub, "--wait", "10", *ALONE))
        until(lambda: "Waiting for" in log.read_text())
        assert "The key with which site2 joined is no longer valid." in log.read_text()
        assert "refused this participant" in tequio("participate", tmp_path / "thief", fails=True)
        assert "was notified" in tequio(
            "leave", folders["site1"], "--yes", "--out", tmp_path / "bundle"
        )
        tequio(
            "join",
            hub / "invitations" / "site2.json",
            people / "site2.toml",
            "--out",
            folders["site2"],
            "--yes",
        )
        running.enter_context(
            background(tmp_path / "again.log", "participate", folders["site2"], *ALONE)
        )
        until(lambda: (hub / "run" / "report.en.html").exists())
        assert staying.wait(120) == 0
    assert "federation has ended" in (tmp_path / "site0.log").read_text()
    with Ledger.open(record, read_only=True) as ledger:
        (back,) = (e.body for e in ledger.entries("joined"))
        (gone,) = (e.body for e in ledger.entries("left"))
        rounds = [e.body for e in ledger.entries("round")]
        personal = {e.body["name"] for e in ledger.entries("personal")}
        began = ledger.last("run")
    assert began is not None
    assert (back["participant"]["name"], back["invitation"]) == ("site2", 1)
    assert back["commitment"] != began.body["commitment"]["site2"]
    assert gone == {
        "name": "site1",
        "round": made,
        "invitation": 0,
        "record_version": RECORD_VERSION,
    }
    for body in rounds[made:]:
        assert {a["name"]: a["status"] for a in body["admissions"]} == {
            "centre": "admitted",
            "site0": "admitted",
            "site2": "admitted",
        }
    assert personal == {"site0", "site2"}
    for folder in (
        hub / "run",
        folders["site0"] / "run",
        folders["site2"] / "run",
        tmp_path / "bundle",
    ):
        assert json.loads(tequio("verify", folder, "--json"))["ok"]
    assert {model.name for model in open_models(tmp_path / "bundle", None)} == {"shared"}
    assert 'tequio predict . shared "' in (tmp_path / "bundle" / "README.md").read_text()
