"""A request that a participant cannot read is answered at once, and an answer that it cannot read
does not end it.
"""

from __future__ import annotations

import resource
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

pytest.importorskip("flwr")

from flwr.app.message import ConfigRecord
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from live_server import Live
from network_processes import until
from open_gateway import asked, opened

from tequio.app.network.participant.join import join_federation, read_identity
from tequio.app.network.participant.serve import ParticipantService, open_participant
from tequio.config import load_participant
from tequio.core.bounds import TEXT
from tequio.core.events import Level, Value, ignore_events
from tequio.core.messages import LIMIT, REPLIES, pack_message, unpack_message
from tequio.core.replies import read_reply, unread_request
from tequio.core.types import DescribeRequest, EvaluateRequest, Failure, Reply, Request
from tequio.core.update import zero
from tequio.runtimes.flower import envelope, runtime
from tequio.runtimes.flower.client import ClientState, Identity, _work, serve
from tequio.runtimes.flower.envelope import open_message, read_letter, seal
from tequio.runtimes.flower.versions import SPEAKS, SPOKEN
from tequio.trust.keys import new_authority, new_key, new_server

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]
OURS, THEIRS = b"tequio-message-1", b"tequio-message-9"
SOON = 20.0  # seconds in which a failure comes, on a slow machine; the deadline is far later
ROOM = 128 << 20  # bytes of the largest file
TASK = DescribeRequest(3, 1, "site0")


@pytest.fixture
def service(make_federation: Any, tmp_path: Path) -> Iterator[ParticipantService]:
    """What answers at a participant that joined."""
    with opened(make_federation, tmp_path) as (hub, people):
        folder = join_federation(asked(hub, people), tmp_path / "site0")
    file = load_participant(Path(read_identity(folder)["participant"]))
    with open_participant(folder, file, ignore_events) as found:
        yield found


def other_version(task: Request) -> bytes:
    """The task as a later version of Tequio might write it."""
    return pack_message(task).replace(OURS, THEIRS)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"secret words of nobody", "cannot read the request"),
        (other_version(TASK), "cannot read the request"),
        (pack_message(Reply(3, 1, "site0", body="{}")), "cannot read the request"),
        (pack_message(replace(TASK, name="site9")), "for another participant"),
    ],
    ids=["noise", "version", "reply", "name"],
)
def test_what_cannot_be_read_is_answered_with_a_failure(
    service: ParticipantService, data: bytes, words: str
) -> None:
    """In fixed words, which become the failure of the round that was asked, whatever it was."""
    seen: list[str] = []

    def log(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        seen.append(event)

    answer = service.answer(data, log)
    found = unpack_message(answer, "an answer", REPLIES)
    assert isinstance(found, Failure)
    assert (found.round, found.index, found.name, found.error) == (0, 0, "", "MessageError")
    assert len(found.message.encode()) <= TEXT
    assert "secret" not in found.message
    assert "site9" not in found.message
    assert seen == ["message-refused"]
    read = read_reply(answer, TASK, LIMIT)
    assert isinstance(read, Failure)
    assert (read.round, read.index, read.name, read.error) == (3, 1, "site0", "MessageError")
    assert words in read.message


def test_only_such_a_failure_has_no_round() -> None:
    """A reply without a round, or a failure of another kind or participant, is refused as
    before.
    """
    other = [
        pack_message(Reply(0, 0, "", body="{}")),
        pack_message(unread_request("words", "TrainingError")),
        pack_message(replace(unread_request("words"), name="site9")),
        pack_message(replace(unread_request("words"), index=2)),
    ]
    for data in other:
        found = read_reply(data, TASK, LIMIT)
        assert isinstance(found, Failure)
        assert found.message == "its reply is of another round or participant"


def test_the_round_goes_on_at_once_and_the_participant_does_the_next_task(
    hub: Live, service: ParticipantService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a real server: each is its failure within seconds, is not sent again, and the next legal
    request is done.
    """
    node, stop = hub.enrol(), Event()
    net = hub.net(node, deadline=200.0)
    legal = EvaluateRequest(1, 1, "site0", zero(service.node.adapted.spec))

    def coordinate() -> tuple[list[Reply | Failure], list[float], list[Reply | Failure]]:
        try:
            until(lambda: 1 in net.connections(), 60)
            found, took = list[Reply | Failure](), list[float]()
            for pack, task in ((other_version, TASK), (pack_message, replace(TASK, name="site9"))):
                monkeypatch.setattr(runtime, "pack_message", pack)
                begun = time.monotonic()
                found += net.exchange([task])
                took.append(time.monotonic() - begun)
            return found, took, list(net.exchange([legal]))
        finally:
            stop.set()

    events: list[str] = []

    def log(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        events.append(event)

    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(coordinate)
        who = Identity(hub.address, hub.authority, hub.keys[node], node)
        serve(who, lambda data: service.answer(data, log), stop, ignore_events)
        found, took, done = job.result()
    assert [(one.name, one.error) for one in found if isinstance(one, Failure)] == [
        ("site0", "MessageError"),
        ("site9", "MessageError"),
    ]
    assert max(took) < SOON
    assert events.count("message-refused") == 2
    assert isinstance(done[0], Reply)


class Sends:
    """A coordinator's server that has one letter for us, and takes our answer."""

    def __init__(self, proto: Any, stop: Event) -> None:
        self._protos, self._stop = [proto], stop
        self.answers: list[bytes] = []

    def PullMessages(self, request: PullMessagesRequest) -> PullMessagesResponse:
        if not self._protos:
            self._stop.set()
        return PullMessagesResponse(messages_list=[self._protos.pop()] if self._protos else [])

    def PushMessages(self, request: PushMessagesRequest) -> PushMessagesResponse:
        letter = read_letter(request.messages_list[0])
        self.answers.append(open_message(letter, LIMIT, lambda identity: b"")[0])
        return PushMessagesResponse()


def absurd(size: int) -> Any:
    """A letter that states a size which its bytes do not have."""
    letter = seal(pack_message(TASK), 1, 3, 2, "1", 60.0).message
    record = letter.content.config_records[envelope.RECORD]
    letter.content.config_records[envelope.RECORD] = ConfigRecord({**record, envelope.SIZE: size})
    letter.metadata.__dict__["_message_id"] = letter.object_id
    return message_to_proto(letter)


@pytest.mark.parametrize(
    ("size", "error"), [(LIMIT, "ResourceError"), (LIMIT + 1, "MessageError"), (9, "MessageError")]
)
def test_a_letter_of_an_absurd_size_is_answered_and_the_participant_stays(
    size: int, error: str, tmp_path: Path
) -> None:
    """Where the disk has no room, too: here no file may have more than 128 MiB."""
    stop, seen = Event(), list[str]()

    def log(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        seen.append(event)

    def never(data: bytes) -> bytes:
        raise AssertionError("no task came")

    client: Any = Sends(absurd(size), stop)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, limits[1]))
    try:
        _work(
            client,
            Identity("127.0.0.1:1", b"", new_key(), 7, tmp_path),
            ClientState(never, log),
            stop,
            lambda: "",
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (answer,) = client.answers
    found = read_reply(answer, TASK, LIMIT)
    assert isinstance(found, Failure)
    assert (found.round, found.name, found.error) == (3, "site0", error)
    assert seen == ["message-refused", "sent"]
    assert not list(tmp_path.iterdir())


class Nonsense(BaseHTTPRequestHandler):
    """Answers every request with 200, our version and bytes that are none of Flower's."""

    protocol_version = "HTTP/1.1"
    coding = ""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = b"<html>\xff\xff\xff\xff not yours</html>"
        self.send_response(200)
        self.send_header(SPOKEN, SPEAKS)
        self.send_header("content-length", str(len(body)))
        if self.coding:
            self.send_header("content-encoding", self.coding)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@contextmanager
def answering_nonsense(folder: Path, coding: str) -> Iterator[tuple[str, bytes]]:
    """A server with our certificate: its address and authority."""
    authority, authority_key = new_authority("x", 1)
    certificate, key = new_server(authority, authority_key, ["127.0.0.1"], 1)
    (folder / "certificate").write_bytes(certificate)
    (folder / "key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate", folder / "key")
    handler = type("Coded", (Nonsense,), {"coding": coding})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", authority
        server.shutdown()


@pytest.mark.parametrize(
    ("coding", "error"), [("", "RemoteProtocolError"), ("gzip", "DecodingError")]
)
def test_an_answer_that_cannot_be_read_is_a_lost_connection(
    coding: str, error: str, tmp_path: Path
) -> None:
    """The participant tries again; its process does not end."""
    stop, seen = Event(), list[tuple[str, Value]]()

    def log(words: str, event: str = "note", level: Level = "info", **fields: Value) -> None:
        seen.append((event, fields.get("error")))
        if len(seen) == 2:
            stop.set()

    with answering_nonsense(tmp_path, coding) as (address, authority):
        serve(Identity(address, authority, new_key(), 7), lambda data: data, stop, log)
    assert seen == [("disconnected", error)] * 2
