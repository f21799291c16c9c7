"""A participant without its coordinator: its last model offline, its hours, and what it takes along
when it leaves.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from types import MappingProxyType
from typing import Any

import pytest
from huggingface_hub import ModelCard

from builders import refused

pytest.importorskip("flwr")

from network_processes import ALONE, background, tequio, until
from open_gateway import asked, opened, reopened

from tequio.app.models.open import open_models
from tequio.app.models.verify import verify_run
from tequio.app.network.hub.folder import invite, node_numbers, withdrawn
from tequio.app.network.monitoring.health import FILE as HEALTH
from tequio.app.network.monitoring.health import Health, read_health
from tequio.app.network.monitoring.status import read_status
from tequio.app.network.participant.ending import Ending
from tequio.app.network.participant.join import join_federation, read_identity
from tequio.app.network.participant.leave import leave_federation
from tequio.app.network.participant.offline import personalise_offline
from tequio.app.network.participant.serve import (
    ParticipantService,
    open_participant,
    serve_participant,
)
from tequio.app.simulation.run import resume
from tequio.config import load_participant
from tequio.core.canonical import digest_update
from tequio.core.errors import ConfigError, RunBusy, RunError, UpdateError
from tequio.core.events import ignore_events
from tequio.core.messages import REPLIES, pack_message, unpack_message
from tequio.core.seeds import derive
from tequio.core.types import PersonaliseRequest, Reply, TrainRequest
from tequio.core.update import Update, zero
from tequio.ledger.folder import RunFolder, open_to_others
from tequio.participant.accounts import read_account_books
from tequio.participant.residual import Residual
from tequio.planning.learning_rate import round_rate
from tequio.report.write import write_report
from tequio.runtimes.flower.enrolment_client import take_leave
from tequio.trust.invitation import read_invitation
from tequio.trust.keys import load_key, new_key, public_bytes
from tequio.trust.leave_request import leave_request

FOUR = {"rounds": 4}


def test_only_its_own_key_can_say_that_one_leaves_and_only_now(
    make_federation: Any, tmp_path: Path
) -> None:
    with opened(make_federation, tmp_path, train=FOUR) as (hub, people):
        folder = join_federation(asked(hub, people), tmp_path / "site0")
        other = join_federation(asked(hub, people, "site1"), tmp_path / "site1")
        key, node = load_key(folder / "key.pem"), read_identity(folder)["node"]
        address, authority = (
            read_identity(folder)["address"],
            (folder / "authority.pem").read_text(),
        )
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
            assert "Cannot accept the request to leave for" in take_leave(
                address, authority, request
            )
        assert "Expected name, node" in take_leave(address, authority, {"name": "site0"})
        assert set(node_numbers(hub)) == {"site0", "site1"}
        assert take_leave(address, authority, good) == ""
        assert (
            take_leave(address, authority, good) == ""
        )  # the answer to the first may have been lost
        assert set(node_numbers(hub)) == {"site1"}
        assert list(withdrawn(hub).values()) == ["site0"]
        invite(hub, "site0")  # it may come back
        join_federation(asked(hub, people), folder)
        assert set(node_numbers(hub)) == {"site0", "site1"}
        assert "Cannot accept the request to leave" in take_leave(
            address, authority, good
        )  # said by the key before


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


def trained(
    resident: ParticipantService,
    round_: int,
    held: Update,
    budget: Mapping[str, float] = MappingProxyType({}),
) -> Update:
    """What the participant makes of a training task, as the federation.toml of four rounds has
    it.
    """
    rate, seed = round_rate(round_, 4, 0, 5e-3, 0.3), derive(7, "train", round_, 1)
    task = TrainRequest(round_, 1, "site0", "product", 2, 3, rate, seed, held, budget=budget)
    reply = unpack_message(resident.answer(pack_message(task)), "a reply", REPLIES)
    assert isinstance(reply, Reply)
    assert reply.update is not None
    return reply.update


@pytest.mark.slow
def test_on_an_offline_it_goes_on_from_the_last_shared_model(
    make_federation: Any, tmp_path: Path
) -> None:
    """With no network: from the base where nothing is known, then from what came last; then
    predict, export, verify and report.
    """
    with opened(make_federation, tmp_path, train=FOUR) as (hub, people):
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
        written_to = [
            (e.body["round"], e.body["digest"]) for e in resident.ledger.entries("received")
        ]
    assert written_to == [(1, digest_update(one)), (2, digest_update(one.plus(two)))]
    assert [path.name for path in (run / "participants" / "site0").glob("received-*")] == [
        "received-2.safetensors"
    ]
    made = personalise_offline(folder, lambda _: None)
    assert made["from"] == {"round": 2, "digest": digest_update(one.plus(two))}
    before = verify_run(run)
    assert before["ok"]
    assert personalise_offline(folder, lambda _: None) == made
    assert verify_run(run)["entries"] == before["entries"]
    for place in (run, folder / ".." / "site0" / "run"):
        with refused(RunError, "record-of-network", run=str(place)) as caught:
            resume(place)
        assert re.search(r"tequio participate .*site0$", caught.value.fix)
    assert offline("predict", run, "site0", "the nurse was kind")["predictions"][0]["label"] in (
        "good",
        "bad",
    )
    assert {model.name for model in open_models(run, None)} == {"site0", "shared"}
    stands = read_status(folder)
    assert (stands["state"], stands["personal"], stands["alone"]) == ("alone", None, made["chosen"])
    assert stands["next"] == f'tequio predict {run} site0 "a text"'
    rows = offline("export", run, "--out", tmp_path / "out")["exported"]
    assert {row["name"] for row in rows} == {"site0", "shared"}
    assert write_report(run, "es", None)[0].exists()
    (run / "participants" / "site0" / "received-2.safetensors").write_bytes(b"damaged")
    assert not verify_run(run)["ok"]


def test_a_coordinators_budget_bounds_the_personal_model_at_home(
    make_federation: Any, tmp_path: Path
) -> None:
    """What the task says it may take of the federation's budget is kept to; asked again, the first
    outcome is told.
    """
    with opened(make_federation, tmp_path, train=FOUR, budget={"kwh": 1.0}) as (hub, people):
        folder = join_federation(asked(hub, people), tmp_path / "site0")
    with open_participant(
        folder, load_participant(people / "site0.toml"), lambda _: None
    ) as resident:
        shared = trained(resident, 1, zero(resident.node.adapted.spec), {"kwh": 1.0})
        task = PersonaliseRequest(1, 1, "site0", shared, 2, 3, {"kwh": 1e-12})
        said = [
            resident.answer(pack_message(replace(task, budget=budget)))
            for budget in (task.budget, {"kwh": 1.0})
        ]
    bodies = [unpack_message(data, "a reply", REPLIES) for data in said]
    assert bodies[0] == bodies[1]
    assert isinstance(bodies[0], Reply)
    body = json.loads(bodies[0].body)
    assert body["chosen"] == "shared"
    assert body["cut"]["code"] == "personal-cut"
    assert body["cut"]["facts"]["cut"][0]["code"] == "fit-shortened"


@pytest.mark.slow
def test_a_model_unknown_to_the_coordinator_is_not_the_end(
    make_federation: Any, tmp_path: Path
) -> None:
    """Killed before it was heard of: to be told by `participate`.

    Over all the same, where the coordinator says so.
    """
    with opened(make_federation, tmp_path, train=FOUR) as (hub, people):
        folder = join_federation(asked(hub, people), tmp_path / "site0")
    health = Health("participant", ignore_events)
    with open_participant(
        folder, load_participant(people / "site0.toml"), ignore_events
    ) as resident:
        shared = trained(resident, 1, zero(resident.node.adapted.spec))
        resident.answer(pack_message(PersonaliseRequest(1, 1, "site0", shared, 2, 3)))
        stands = read_status(folder)
        assert (stands["state"], stands["next"]) == ("not running", f"tequio participate {folder}")
        assert stands["personal"] is not None
        assert "has not heard of the personal model" in tequio("status", folder)
        with health.written_to(folder):
            until(lambda: read_health(folder) is not None, 60)
            stands = read_status(folder)
            assert stands["note"]["code"] == "personal-unheard"
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
        made = resident.ledger.last("personal")
        assert made is not None
        ending = Ending(resident.ledger, Event(), ignore_events, linger=600.0)
        ending.tell("sent 9 bytes", "sent")
        assert read_status(folder)["state"] == "killed", "that it was sent is not enough"
        ending.tell("recorded", "recorded", digest=made.body["digest"])
    stands = read_status(folder)
    assert (stands["state"], stands["note"], stands["next"]) == ("finished", None, used)


@pytest.mark.slow
def test_who_leaves_takes_along_what_is_its_own_and_no_secret(
    make_federation: Any, tmp_path: Path
) -> None:
    """Without a network at first: it is said, and the bundle is whole; then the coordinator is
    told.
    """
    with opened(make_federation, tmp_path, train=FOUR) as (hub, people):
        file = people / "site0.toml"
        file.write_text(file.read_text() + '\n[energy]\ncountry = "DE"\n')
        folder = join_federation(asked(hub, people), tmp_path / "site0")
        token = read_invitation(hub / "invitations" / "site0.json").token
    with open_participant(
        folder, load_participant(people / "site0.toml"), lambda _: None
    ) as resident:
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
    assert (
        "site0's personal model and rounds, without the coordinator and the other participants"
        in card.text
    )
    said = tequio("leave", folder, "--yes")
    assert "was not notified" in said
    stands = read_status(folder)
    assert (stands["state"], stands["left"]) == ("left", read_identity(folder)["left"])
    assert (stands["bundle"], stands["next"]) == (
        str(folder / "bundle"),
        f'tequio predict {folder / "bundle"} site0 "a text"',
    )
    assert stands["note"]["code"] == "left-unannounced"
    assert "site0 left the federation on" in tequio("status", folder)
    assert "will see you as offline" in said
    bundle = folder / "bundle"
    assert [path for path in (folder, folder / "run", bundle) if open_to_others(path)] == []
    assert verify_run(bundle) == verify_run(folder / "run")
    files = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    assert {
        "README.md",
        "federation.toml",
        "report.en.html",
        "report.es.html",
        "ledger.sqlite",
    } <= files
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
    assert "site0's personal model without its rounds," in later.text
    assert not any("salt" in file or "key" in file or "memory" in file for file in files)
    whole = b"".join((bundle / file).read_bytes() for file in files)
    secrets = [token, "PRIVATE KEY", (folder / "run/participants/site0/salt").read_text()]
    texts = [
        json.loads(line)["text"]
        for line in (people.parent / "data/site0.jsonl").read_text().splitlines()
    ]
    assert [secret for secret in (*secrets, *texts) if secret.encode() in whole] == []
    assert offline("predict", bundle, "site0", "the nurse was kind")["predictions"][0]["label"] in (
        "good",
        "bad",
    )
    assert 'tequio predict . site0 "' in (bundle / "README.md").read_text()
    with pytest.raises(ConfigError, match="left the federation"):
        serve_participant(folder, Health("participant", ignore_events))
    with refused(ConfigError, "path-exists"):
        leave_federation(folder, None)
    with reopened(hub):
        assert leave_federation(folder, tmp_path / "second")["told"]
    stands = read_status(folder)
    assert stands["bundle"] == str(tmp_path / "second")
    assert stands["note"]["code"] == "left-on"
    assert node_numbers(hub) == {}


@pytest.mark.slow
def test_outside_its_hours_it_disconnects_and_says_until_when(
    make_federation: Any, tmp_path: Path
) -> None:
    """The same folder at two local times: three hours before the window, where it does not even
    try; and within.
    """
    with opened(make_federation, tmp_path, train=FOUR) as (hub, people):
        folder = join_federation(asked(hub, people), tmp_path / "site0")
    own, now = people / "site0.toml", datetime.now(UTC)
    opens, closes = ((now + timedelta(hours=hours)).strftime("%H:%M") for hours in (3, 4))
    own.write_text(own.read_text() + f'\n[schedule]\nhours = "{opens}-{closes}"\n')
    log = tmp_path / "log"
    with background(log, "participate", folder, *ALONE, env={"TZ": "UTC0"}):
        until(lambda: "disconnected until" in log.read_text(), 300)
    assert f"{opens}, local time" in log.read_text()
    assert "no connection" not in log.read_text()
    with background(
        log, "participate", folder, *ALONE, env={"TZ": "THERE-03:30"}
    ):  # that far east of Greenwich
        until(lambda: "no connection" in log.read_text(), 300)  # it tried: nobody is there
    assert log.read_text().count("disconnected until") == 1


def test_an_early_memory_is_nothing_and_a_lost_one_is_an_error(tmp_path: Path) -> None:
    memory = Residual(RunFolder(tmp_path), "participants/site0", since=3)
    assert memory.load(3, "spec", "site0").entries == {}
    with refused(UpdateError, "residual-lost", who="site0", round=4):
        memory.load(4, "spec", "site0")


def test_a_word_of_a_minute_ago_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    import tequio.trust.leave_request as module

    key = new_key()
    request = leave_request(key, "site0", "7")
    assert module.is_leave_request(public_bytes(key), request)
    monkeypatch.setattr(module, "FRESH", 0.0)
    assert not module.is_leave_request(public_bytes(key), request)
