"""A participant that was away when its personal model was confirmed is waited for; a coordinator
that is started again tells it.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

pytest.importorskip("flwr")

from live_server import Relay, live
from network_processes import ALONE, background, federation, kinds, until

from benchmarks.common.replies import answered
from builders import free_port
from tequio.app.network.coordinator.confirmations import note_heard, note_unheard, unheard
from tequio.app.network.coordinator.personal_models import PersonalPhase
from tequio.app.network.coordinator.serve import Times, coordinate
from tequio.app.network.hub.folder import UNCONFIRMED
from tequio.app.network.monitoring.health import Health
from tequio.app.network.participant.join import read_authority, read_identity
from tequio.core.events import Level, Value, ignore_events
from tequio.core.messages import REQUESTS, pack_message, unpack_message
from tequio.core.types import PersonaliseRequest
from tequio.core.update import Update
from tequio.ledger.record import Ledger
from tequio.runtimes.flower.client import Identity, serve
from tequio.runtimes.flower.long_poll import LongPoll
from tequio.trust.keys import load_key

FLOWERS = "ignore:GitWildMatchPattern:DeprecationWarning"  # Flower's own use of a library
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings(FLOWERS)]


def made(data: bytes) -> bytes:
    """What a participant answers that made its personal model."""
    task = unpack_message(data, "a task", REQUESTS)
    assert isinstance(task, PersonaliseRequest)
    return pack_message(answered(task))


def test_an_answer_was_read_when_its_node_asks_again() -> None:
    """An answer may be lost on the way; the last one counts at once, for nothing is asked after
    it.
    """
    long_poll = LongPoll()
    long_poll.acknowledge(1)
    assert long_poll.serve(1) == ""
    long_poll.confirm(1, "ab")
    long_poll.acknowledge(1)
    assert not long_poll.heard(1, "ab"), "it asks again, but no answer named the digest"
    assert long_poll.serve(1) == "ab"
    assert not long_poll.heard(1, "ab")
    long_poll.acknowledge(1)
    assert long_poll.heard(1, "ab")
    assert not long_poll.heard(1, "cd"), "another model"
    long_poll.confirm(2, "ef")
    assert long_poll.serve(2, last=True) == "ef"
    assert long_poll.heard(2, "ef")


def test_only_models_on_record_are_waited_for(tmp_path: Path) -> None:
    """A name is noted before the record has the model; a participant that left hears nothing."""
    rows = {
        name: {"public_key": name, "node": str(n)}
        for n, name in enumerate(("north", "south", "west"), 1)
    }
    rows["west"]["left"] = "2026-03-01"
    (tmp_path / "enrolled.json").write_text(json.dumps(rows))
    assert unheard(tmp_path, tmp_path) == {}, "a run of before, which has no such file"
    for name in ("north", "south", "west"):
        note_unheard(tmp_path, name, "ab")
    with Ledger.create(tmp_path / "ledger.sqlite", {"name": "x"}) as ledger:
        ledger.append("personal", {"name": "north", "digest": "ab"})
        ledger.append("personal", {"name": "west", "digest": "ab"})
    assert unheard(tmp_path, tmp_path) == {"north": "ab"}
    note_heard(tmp_path, ["north"])
    assert unheard(tmp_path, tmp_path) == {}


def test_a_participant_that_is_cut_off_when_it_is_confirmed_hears_of_it_later(
    tmp_path: Path,
) -> None:
    said, heard, stop = list[str](), list[Value](), Event()

    def say(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        said.append(event)

    with live(tmp_path / "live") as hub, ThreadPoolExecutor(1) as pool:
        node, relay = hub.enrol(), Relay(hub.port)
        net = hub.net(node)
        (tmp_path / "enrolled.json").write_text(
            json.dumps({"north": {"public_key": "key", "node": str(node)}})
        )

        def log(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
            if event == "sent":
                relay.cut()  # before it asks again, so that it cannot hear anything
            if event == "recorded":
                heard.append(fields["digest"])

        identity = Identity(f"127.0.0.1:{relay.port}", hub.authority, hub.keys[node], node)
        participant = Thread(target=serve, args=(identity, made, stop, log), daemon=True)
        participant.start()
        until(lambda: 1 in net.connections(), 60)
        phase = PersonalPhase(tmp_path, net, net.connections, 4.0, say)
        with Ledger.create(tmp_path / "ledger.sqlite", {"name": "x"}) as ledger:
            phase.ask(ledger, [PersonaliseRequest(5, 1, "north", Update({}, "spec"), 2, 3)])
            entry = ledger.last("personal")
            assert entry is not None
            phase.await_heard(tmp_path)
            assert said.count("waiting") == 1
            assert heard == []
            digest = entry.body["digest"]
            assert unheard(tmp_path, tmp_path) == {"north": digest}
            later = PersonalPhase(
                tmp_path, net, net.connections, 120.0, say
            )  # of a coordinator that is started again
            later.ask(ledger, [])
            waits = pool.submit(later.await_heard, tmp_path)
            assert not waits.done()
            relay.mend()
            waits.result(100)
        assert heard == [digest]
        assert unheard(tmp_path, tmp_path) == {}
        stop.set()
        participant.join(60)
        relay.close()


@pytest.mark.slow
def test_a_run_that_is_over_is_opened_for_a_participant_that_did_not_hear(
    make_federation: Any, tmp_path: Path
) -> None:
    toml, hub = make_federation(participants=2, train={"rounds": 1}), tmp_path / "hub"
    record, address = hub / "run" / "ledger.sqlite", f"127.0.0.1:{free_port()}"
    with federation(tmp_path, toml, address) as folders:
        people = [
            background(tmp_path / f"{name}.log", "participate", folders[name], *ALONE)
            for name in folders
        ]
        with people[0] as one, people[1] as other:
            until(lambda: record.exists() and "end" in kinds(record))
            assert (one.wait(120), other.wait(120)) == (0, 0)
        until(lambda: (hub / "run" / "report.en.html").exists() and unheard(hub, hub / "run") == {})
    assert (hub / UNCONFIRMED).exists()
    with Ledger.open(record, read_only=True) as ledger:
        digests = {entry.body["name"]: entry.body["digest"] for entry in ledger.entries("personal")}
    note_unheard(
        hub, "site1", digests["site1"]
    )  # as where the answer with the confirmation was lost
    before, own = record.read_bytes(), read_identity(folders["site1"])
    heard, stop = list[Value](), Event()

    def log(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        if event in ("recorded", "over"):
            heard.append(fields.get("digest", event))

    def again(grace: float) -> Any:
        health = Health("coordinator", ignore_events)
        return coordinate(hub, "127.0.0.1", None, Times(5.0, 60.0, grace), health, lambda *_: None)

    with ThreadPoolExecutor(1) as pool:
        assert again(0.0).end, "nothing is opened"
        assert unheard(hub, hub / "run") == {"site1": digests["site1"]}
        opened = pool.submit(again, 300.0)
        key, node = load_key(folders["site1"] / "key.pem"), int(own["node"])
        identity = Identity(own["address"], read_authority(folders["site1"]).encode(), key, node)
        participant = Thread(target=serve, args=(identity, lambda _: None, stop, log), daemon=True)
        participant.start()
        assert opened.result(200).end
        stop.set()
        participant.join(60)
    assert heard[0] == digests["site1"]
    assert unheard(hub, hub / "run") == {}
    assert record.read_bytes() == before, "the record has none of it"
