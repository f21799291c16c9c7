"""What one side may make the other wait for, read or print: trickling parts, unreadable letters, a
word against a record, escapes.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from threading import Event
from typing import Any

import pytest

pytest.importorskip("flwr")

from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse

from benchmarks.common.replies import personal_outcome
from tequio.app.network.coordinator.personal_models import PersonalPhase
from tequio.app.network.participant.agreement import departure
from tequio.core.errors import MessageError
from tequio.core.events import Level, Value, ignore_events
from tequio.core.messages import LIMIT, pack_message
from tequio.core.reason import Reason
from tequio.core.replies import read_personal_outcome, read_reply
from tequio.core.types import Failure, Reply, TrainRequest
from tequio.core.update import zero
from tequio.ledger.record import Ledger
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower import envelope, runtime
from tequio.runtimes.flower.client import ClientState, Identity, _work
from tequio.runtimes.flower.envelope import seal
from tequio.runtimes.flower.long_poll import LongPoll
from tequio.runtimes.flower.runtime import FlowerRuntime
from tequio.runtimes.flower.traffic import Traffic
from tequio.trust.keys import new_key

EACH, PATIENCE = 0.2, 0.5  # seconds that each part takes, and that all may take
TASK = TrainRequest(1, 1, "north", "product", 2, 1, 1e-3, 1, zero("spec"))


class Trickle(FlowerRuntime):
    """A runtime whose server has each part only some time after it was first asked for it."""

    parts: dict[str, bytes]
    seen: dict[str, float]
    each: float

    def _content(self, identity: str) -> bytes | None:
        first = self.seen.setdefault(identity, time.monotonic())
        return self.parts[identity] if time.monotonic() - first >= self.each else None


def trickle(each: float) -> tuple[Trickle, Any]:
    place: Any = None
    net = Trickle(place, {1: 7}, Embedded({}), 30.0, LongPoll(), Traffic())
    metrics = {"loss_first": 1.0, "loss_last": 1.0}
    reply = Reply(
        1,
        1,
        "north",
        payload=random.Random(0).randbytes(20_000),
        examples=1,
        steps=1,
        metrics=metrics,
    )
    letter = seal(pack_message(reply), 1, 3, 2, "1", 60.0, "y" * 64)
    net.parts, net.seen, net.each = dict(letter.wanted(list(letter.places))), {}, each
    assert len(net.parts) >= 20
    return net, letter.message


def test_parts_that_trickle_in_hold_the_coordinator_once_and_not_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(envelope, "ANSWER", 1000)
    monkeypatch.setattr(envelope, "PART", 1000)
    monkeypatch.setattr(runtime, "PART", (0.01, PATIENCE))
    net, message = trickle(0.0)
    assert isinstance(net.read(message, TASK), Reply)
    net, message = trickle(EACH)
    begun = time.monotonic()
    found = net.read(message, TASK)
    assert isinstance(found, Failure)
    assert "[part-gone {}]" in found.message
    assert time.monotonic() - begun < len(net.parts) * EACH / 2


class Unreadable:
    """A coordinator whose one message is none of Flower's."""

    def __init__(self, stop: Event) -> None:
        self._stop, self.asked = stop, 0

    def PullMessages(self, request: PullMessagesRequest) -> PullMessagesResponse:
        self.asked += 1
        if self.asked > 1:
            self._stop.set()
            return PullMessagesResponse()
        proto = seal(b"x", 1, 3, 2, "1", 60.0).proto()
        proto.metadata.message_type = "!"
        return PullMessagesResponse(messages_list=[proto])


def test_a_message_that_flower_cannot_read_is_refused_and_the_participant_works_on() -> None:
    stop, said = Event(), list[str]()

    def log(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        said.append(f"{event}: {words}")

    client: Any = Unreadable(stop)
    identity = Identity("127.0.0.1:1", b"", new_key(), 7)
    _work(client, identity, ClientState(lambda data: data, log), stop, lambda: "")
    assert client.asked == 2
    assert len(said) == 1
    assert said[0].startswith(
        "message-refused: refused a message: A received message is not one of Tequio's."
    )


def test_who_has_a_personal_model_on_record_is_not_missing(tmp_path: Path) -> None:
    """Barred after it was recorded: the record stands."""
    place: Any = None
    net = FlowerRuntime(place, {}, Embedded({}), 30.0, LongPoll(), Traffic())
    phase = PersonalPhase(tmp_path, net, dict, 0.0, ignore_events)
    with Ledger.create(tmp_path / "ledger.sqlite", {"name": "x"}) as ledger:
        ledger.append("personal", {"name": "north", "digest": "ab"})
        phase.ask(ledger, [], {"north": Reason("other-data")})
        assert ledger.last("missing") is None
        phase.ask(ledger, [], {"north": Reason("other-data"), "south": Reason("other-data")})
        (missing,) = [entry.body for entry in ledger.entries("missing")]
    assert [row["name"] for row in missing["participants"]] == ["south"]


ESCAPES = "\x1b[2J\x1b]0;owned\x07 fine\r\nround 9 accepted\u202e"


def test_no_words_of_one_side_are_obeyed_by_the_terminal_of_the_other() -> None:
    failed = read_reply(pack_message(Failure(1, 1, "north", "TrainingError", ESCAPES)), TASK, LIMIT)
    assert isinstance(failed, Failure)
    metrics = {"loss_first": 1.0, "loss_last": 1.0}
    reply = Reply(1, 1, "north", payload=b"x", examples=1, steps=1, metrics=metrics, note=ESCAPES)
    made = read_reply(pack_message(reply), TASK, LIMIT)
    assert isinstance(made, Reply)
    for words in (failed.message, made.note, departure("train.upload", ESCAPES, "plain").what):
        assert words.isprintable()
        assert "fine round 9 accepted" in words
    body = json.dumps(personal_outcome("north", 3, 3) | {"chosen": "\x1b[2J", "candidates": {}})
    with pytest.raises(MessageError, match="field 'chosen' is refused"):
        read_personal_outcome(Reply(1, 1, "north", body=body), {})
