"""The end of a federation: who is away is waited for and recorded, and may come when the run is
opened again; who finds nobody is told.
"""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

pytest.importorskip("flwr")

from live_server import Relay, at_work, live, resident
from network_processes import ALONE, background, federation, kinds, ready, tequio, until

from benchmarks.common.replies import answered
from builders import free_port
from tequio.app.network.coordinator.personal_models import PersonalPhase
from tequio.app.network.participant.availability import pointing_out
from tequio.app.network.participant.ending import Ending
from tequio.core.events import Level, Value
from tequio.core.messages import REQUESTS, pack_message, unpack_message
from tequio.core.types import Failure, PersonaliseRequest, Reply
from tequio.core.update import Update
from tequio.ledger.record import Ledger
from tequio.runtimes.flower.client import Identity, serve
from tequio.trust.keys import new_authority, new_key

FLOWERS = "ignore:GitWildMatchPattern:DeprecationWarning"  # Flower builds its bundle with it
pytestmark = pytest.mark.filterwarnings(FLOWERS)


def made(data: bytes) -> bytes:
    """What a participant answers who made its personal model."""
    task = unpack_message(data, "a task", REQUESTS)
    assert isinstance(task, PersonaliseRequest)
    return pack_message(answered(task))


def unable(data: bytes) -> bytes:
    task = unpack_message(data, "a task", REQUESTS)
    assert not isinstance(task, Reply | Failure)
    return pack_message(
        Failure(task.round, task.index, task.name, "TrainingError", "its loss is no number")
    )


def odd(data: bytes) -> bytes:
    """Of a participant that runs something else: no table at all."""
    task = unpack_message(data, "a task", REQUESTS)
    assert not isinstance(task, Reply | Failure)
    return pack_message(Reply(task.round, task.index, task.name, body="[1"))


@pytest.mark.slow
def test_one_away_is_waited_for_and_one_missing_is_recorded(tmp_path: Path) -> None:
    """One is there, one comes when it is waited for, one never, two cannot; those who have no model
    are asked when it is opened again.
    """
    names = {1: "here", 2: "late", 3: "never", 4: "unable", 5: "odd"}
    tasks = [PersonaliseRequest(5, i, name, Update({}, "spec"), 2, 3) for i, name in names.items()]
    said: list[tuple[str, str]] = []
    with live(tmp_path / "hub") as hub, ExitStack() as running:
        nodes = dict(zip(names, (hub.enrol() for _ in names), strict=True))
        net = hub.net(*nodes.values())

        def tell(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
            said.append((event, words))
            if event == "waiting":
                running.enter_context(at_work(resident(hub, nodes[2], made)))

        said_at_once = [
            resident(hub, nodes[i], answer) for i, answer in ((1, made), (4, unable), (5, odd))
        ]
        running.enter_context(at_work(*said_at_once))
        until(lambda: len(net.connections()) == 3, 60)
        personal_phase = PersonalPhase(tmp_path, net, net.connections, 20.0, tell)
        with Ledger.create(tmp_path / "ledger.sqlite", {"name": "x"}) as ledger:
            personal_phase.ask(ledger, tasks)
            personal = [entry.body["name"] for entry in ledger.entries("personal")]
            (missing,) = [entry.body for entry in ledger.entries("missing")]
            assert personal == ["here", "late"]
            assert [row["name"] for row in missing["participants"]] == ["never", "unable", "odd"]
            codes = [row["reason"]["code"] for row in missing["participants"]]
            assert codes == ["not-connected", "failed", "unreadable-outcome"]
            assert missing["participants"][1]["reason"]["facts"]["error"] == "TrainingError"
            assert [words for event, words in said if event == "waiting"] == [
                "Waiting up to 20 s for late, never to fetch the shared model."
            ]
            lines = [words for event, words in said if event == "personal-missing"]
            assert f"start again: tequio coordinator start {tmp_path}" in lines[0]
            running.enter_context(at_work(resident(hub, nodes[3], made)))
            until(lambda: len(net.connections()) == 5, 60)
            personal_phase.ask(ledger, tasks)
            assert [entry.body["name"] for entry in ledger.entries("personal")] == [
                "here",
                "late",
                "never",
            ]
            last = ledger.last("missing")
            assert last is not None
            assert [row["name"] for row in last.body["participants"]] == ["unable", "odd"]
            assert sum(event == "waiting" for event, _ in said) == 1, "everybody was there"


@pytest.mark.slow
def test_one_lost_while_it_makes_its_model_is_asked_again(tmp_path: Path) -> None:
    """A machine that sleeps: its connection is lost, and comes back as the one that it was."""
    taken, go, lost = Event(), Event(), Event()

    def sleeps(data: bytes) -> bytes:
        taken.set()
        go.wait(300)
        return made(data)

    def tell(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        if event == "waiting":
            lost.set()

    def ask(personal_phase: PersonalPhase) -> list[str]:
        with Ledger.create(tmp_path / "ledger.sqlite", {"name": "x"}) as ledger:
            personal_phase.ask(
                ledger, [PersonaliseRequest(5, 1, "north", Update({}, "spec"), 2, 3)]
            )
            return [entry.kind for entry in ledger.entries()]

    with live(tmp_path / "hub") as hub, ThreadPoolExecutor(1) as pool:
        node, relay = hub.enrol(), Relay(hub.port)
        net = hub.net(node, deadline=300.0, back=1.0)
        with at_work(resident(hub, node, sleeps, f"127.0.0.1:{relay.port}")):
            until(lambda: 1 in net.connections(), 60)
            asking = pool.submit(ask, PersonalPhase(tmp_path, net, net.connections, 120.0, tell))
            assert taken.wait(60)
            relay.cut()
            assert lost.wait(120), "nobody noticed"
            relay.mend()
            go.set()
            assert asking.result(200) == ["run", "personal"]
        relay.close()


@pytest.mark.slow
def test_without_a_coordinator_one_hears_once_how_to_continue(tmp_path: Path) -> None:
    """A real node with nobody at the address; a while outside of its own hours is no such while."""
    lines: list[str] = []

    def tell(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        lines.append(words)

    log = pointing_out(tmp_path / "north", tell, 1.0)
    log("Outside of the hours", "disconnected")
    stop, here = (
        Event(),
        Identity(f"127.0.0.1:{free_port()}", new_authority("ours", 1)[0], new_key(), 1),
    )
    node = Thread(target=serve, args=(here, lambda _: None, stop, log), daemon=True)
    node.start()
    until(lambda: sum("next try" in line for line in lines) >= 4, 60)
    stop.set()
    node.join(60)
    (pointed,) = [line for line in lines if "tequio island" in line]
    assert f"tequio island {tmp_path / 'north'}" in pointed
    assert "next try" in lines[1], "it is not said at once"
    assert "no connection (ConnectError); next try" in lines[1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_one_ends_only_when_the_coordinator_heard_of_its_model(tmp_path: Path) -> None:
    said: list[str] = []

    def tell(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        said.append(words)

    with Ledger.create(tmp_path / "ledger.sqlite", {"name": "run"}) as ledger:
        over = Event()
        ending = Ending(ledger, over, tell, linger=0.0)
        ending.tell(
            "the coordinator recorded it", "recorded", digest="ab"
        )  # and nothing is made here
        ledger.append("personal", {"name": "site0", "digest": "ab"})
        ending.tell("sent 9 bytes", "sent")  # what else it answers is no confirmation
        ending.tell(
            "the coordinator recorded it", "recorded", digest="cd"
        )  # nor is that of another model
        ending.tell("no connection", "disconnected", "warning")
        assert not over.wait(0.2)
        assert said[1:] == [
            "sent 9 bytes",
            "the coordinator recorded it",
            "no connection; the personal model is made, but the coordinator has not confirmed it",
        ]
        again = Event()
        Ending(ledger, again, tell, linger=0.0)  # the process was started again
        assert not again.wait(0.2)
        ending.tell("the federation is over", "over")
        assert "did not confirm" in said[-1]
        ending.tell("the coordinator recorded it", "recorded", digest="ab")
        ending.tell("the coordinator recorded it", "recorded", digest="ab")
        assert over.wait(60)
        assert [entry.kind for entry in ledger.entries()] == ["run", "personal", "delivered"]
        Ending(ledger, again, tell, linger=0.0)
        assert again.wait(60)


@pytest.mark.slow
def test_one_that_is_over_opens_again_for_who_was_away(
    make_federation: Any, tmp_path: Path
) -> None:
    """Killed after the first round; the coordinator ends without it, says so, and lets it make its
    model when it is started again.
    """
    toml, hub = (
        make_federation(participants=2, train={"rounds": 8, "patience": 9}),
        tmp_path / "hub",
    )
    record, address = hub / "run" / "ledger.sqlite", f"127.0.0.1:{free_port()}"
    with federation(tmp_path, toml, address, options=["--grace", "0"]) as folders:
        site0 = background(tmp_path / "site0.log", "participate", folders["site0"], *ALONE)
        site1 = background(tmp_path / "site1.log", "participate", folders["site1"], *ALONE)
        with site0, site1 as victim:
            until(lambda: record.exists() and "round" in kinds(record))
            victim.send_signal(signal.SIGKILL)
            victim.wait()
            until(lambda: (hub / "run" / "report.en.html").exists())
    assert "site1 made no personal model" in (tmp_path / "coordinator.log").read_text()
    over = json.loads(tequio("status", hub, "--json"))
    assert (over["state"], list(over["missing"])) == ("finished", ["site1"])
    assert over["next"] == f"tequio coordinator start {hub}"
    assert "Without a personal model: site1 (" in tequio("status", hub)
    tequio("coordinator", "start", hub, "--grace", "0")  # nothing is opened
    (tmp_path / "coordinator.log").write_text("")
    with background(
        tmp_path / "coordinator.log", "coordinator", "start", hub, *ALONE
    ) as coordinator:
        until(lambda: ready(tmp_path))
        with background(tmp_path / "site1.log", "participate", folders["site1"], *ALONE) as back:
            assert coordinator.wait(300) == 0
            assert back.wait(60) == 0
    assert (
        "site1 made no personal model yet. The coordinator stays open for up to 10 min."
        in (tmp_path / "coordinator.log").read_text()
    )
    with Ledger.open(record, read_only=True) as ledger:
        entries = [(entry.kind, entry.body) for entry in ledger.entries()]
    assert [body["name"] for kind, body in entries if kind == "personal"] == ["site0", "site1"]
    assert [kind for kind, _ in entries][-2:] == ["end", "personal"]
    for run in (hub / "run", folders["site1"] / "run"):
        assert json.loads(tequio("verify", run, "--json"))["ok"]
    over = json.loads(tequio("status", hub, "--json"))
    assert (over["state"], over["missing"], over["next"]) == (
        "finished",
        {},
        f"tequio report {hub / 'run'}",
    )
