"""A participant's resident process: it holds the model for its whole life, asks the coordinator for
tasks, and answers with updates.

It accepts the kinds of task that it knows and nothing else; no code can be shipped to it. A lost
connection is tried again for ever, and an answer that could not be sent is sent then. It asks for
work only when it holds neither a task nor an answer, so the coordinator sees from a question that a
task or an answer was lost on the way, and sends the task again; a task that was done is answered
from memory.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
from flwr.app.message import Message
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from tequio.core.durations import duration
from tequio.core.errors import MessageError, NetworkError, ResourceError, UpdateError
from tequio.core.events import EventHandler
from tequio.core.messages import LIMIT, pack_message
from tequio.core.replies import unread_request
from tequio.core.texts.words import ENGLISH, refusal
from tequio.core.types import Failure
from tequio.runtimes.flower.enrolment_client import foreign, not_ours
from tequio.runtimes.flower.envelope import (
    Envelope,
    Place,
    find_part,
    open_message,
    part_in,
    read_letter,
    remaining,
    seal,
)
from tequio.runtimes.flower.gateway import RECORDED, SESSION, TAKEN
from tequio.runtimes.flower.proxies import proxy_advice
from tequio.runtimes.flower.versions import DIFFERS, SPEAKS, SPOKEN, difference, same_version
from tequio.trust.keys import PrivateKey, public_bytes

HEARTBEAT = (
    10.0  # seconds, the least that the server takes: a dead participant is noticed after twice that
)
# seconds between two; a connection that rests for five is closed, and a new one costs more than a
# heartbeat
BEAT = 4.0
WAIT = (
    0.05,
    0.5,
    # seconds between two questions for work, where the coordinator does not hold them: at first,
    # and
    # later
)
HELD = 1.0  # seconds that a question took which was held
CACHED_BYTES = (
    1 << 28
)  # bytes of the largest task that is kept, so that parts which come again need not travel again
PART_PATIENCE = 60.0  # seconds for which a part of a task may be on its way to the server
PAUSE = 1.0  # seconds between two looks at whether it is still closed
BACKOFF = (0.5, 15.0)  # seconds between two tries to reach a coordinator that does not answer

REFUSED = (401, 403, 412)  # what the server says to a key that it does not know
OVER = 410  # when the federation has come to its end
GONE = (403, 404)  # and to a participant that works for a run that has ended

DROPPED = "dropped a task or an answer of a run that is over: the coordinator was started again"

Answer = Callable[[bytes], bytes | None]
"""Our message in, our message out; None: not to be answered."""
Closed = Callable[[], str]
"""Why not to be connected now, in words; nothing where we may.

Asked between two tasks, so that one in work is finished.
"""


@dataclass(frozen=True)
class Identity:
    """Who this participant is to the coordinator: where that is, the certificate that it must show,
    our own key and number.

    folder: where very large tasks lie while they are worked on.
    """

    address: str
    authority: bytes
    key: PrivateKey
    node: int
    folder: Path | None = None


@dataclass
class Outgoing:
    """An answer on its way: what of it the server still misses (None: it has not been asked), and
    its word for this sending.
    """

    letter: Envelope
    missing: list[str] | None = None
    session: str = ""


@dataclass
class ClientState:
    """What outlives a connection: the name of this process for the gateway, how it answers, and the
    answer that is not sent yet.

    active: it was connected before. last: the last large task, and where its parts lie in it. read:
        its message, to be confirmed.
    recorded: digest of our personal model, once the coordinator has said that it recorded it.
    """

    answer: Answer
    log: EventHandler
    session: str = field(default_factory=lambda: secrets.token_hex(16))
    unsent: Outgoing | None = None
    active: bool = False
    last: tuple[bytes, dict[str, Place]] = (b"", {})
    read: Message | None = None
    recorded: str = ""

    def confirmed(self, digest: str) -> None:
        """Log once that the coordinator recorded our personal model."""
        if digest and digest != self.recorded:
            self.recorded = digest
            self.log("the coordinator recorded the personal model", "recorded", digest=digest)


def serve(
    identity: Identity, answer: Answer, stop: Event, log: EventHandler, closed: Closed = lambda: ""
) -> None:
    """Work until `stop` is set, or the federation is over; disconnected while it is `closed`.

    Raises NetworkError if the coordinator refuses this participant's key or has another version, or
    another process took its place.
    """
    wait, state = BACKOFF[0], ClientState(answer, log)
    while not stop.is_set():
        if why := closed():
            log(why, "disconnected")
            while closed() and not stop.wait(PAUSE):
                pass
            continue
        try:
            with _connected(identity, state) as client:
                log(f"connected to {identity.address}", "connected", address=identity.address)
                wait = BACKOFF[0]
                _work(client, identity, state, stop, closed)
        except (httpx.RequestError, httpx.HTTPStatusError) as error:
            status = error.response.status_code if isinstance(error, httpx.HTTPStatusError) else 0
            if status in REFUSED:
                raise refusal(
                    NetworkError, "participant-refused", address=identity.address
                ) from None
            if status == TAKEN:
                raise refusal(NetworkError, "place-taken") from None
            if status == OVER:
                log(f"{identity.address} says that the federation is over", "over")
                return
            how = foreign(error)
            said = (
                str(not_ours(identity.address, how))
                if how
                else f"no connection ({type(error).__name__}{f' {status}' if status else ''})"
            )
            advice = ENGLISH.reason(proxy_advice(identity.address))
            words = f"{said}; next try in {duration(wait)}{f'. {advice}' if advice else ''}"
            log(
                words,
                "disconnected",
                "warning",
                error=type(error).__name__,
                status=status,
                wait=wait,
            )
            stop.wait(wait)
            wait = min(2 * wait, BACKOFF[1])


def _work(
    client: FleetHttpClient, identity: Identity, state: ClientState, stop: Event, closed: Closed
) -> None:
    node, idle, log = Node(node_id=identity.node), WAIT[0], state.log
    while not stop.is_set() and not closed():
        _deliver(client, node, state)
        began = time.monotonic()
        got = client.PullMessages(PullMessagesRequest(node=node))
        if not got.messages_list:
            idle = WAIT[0] if time.monotonic() - began > HELD else min(1.2 * idle, WAIT[1])
            stop.wait(idle)
            continue
        idle = WAIT[0]
        try:
            asked = read_letter(got.messages_list[0])
            try:
                data = _pull(client, identity, asked, state)
            except (MessageError, ResourceError) as error:
                log(f"refused a message: {error}", "message-refused", "warning")
                if (
                    not asked.metadata.message_id
                ):  # Flower could not read it, so nobody knows what it asks
                    continue
                reply: bytes | None = pack_message(_unread(error))
            else:
                log(f"received {len(data):,} bytes", "received", bytes_down=len(data))
                reply = state.answer(data)
            state.unsent = None if reply is None else Outgoing(_reply(node, asked, reply))
            _confirm(client, node, state)
            _deliver(client, node, state)
        except (
            UpdateError
        ) as error:  # not a task that we know: no work is done for it, and none of ours leaves
            log(f"refused a message: {error}", "message-refused", "warning")
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in GONE:
                raise
            log(DROPPED, "task-dropped", "warning")


def _unread(error: MessageError | ResourceError) -> Failure:
    """Answer in fixed words, so that the coordinator does not send the message again until its
    deadline.
    """
    if isinstance(error, ResourceError):
        return unread_request(
            "The request does not fit on the participant's disk.", ResourceError.__name__
        )
    return unread_request("The message of the request is damaged, or too large.")


def _deliver(client: FleetHttpClient, node: Node, state: ClientState) -> None:
    """Send what is unsent; it stays so where the connection fails, and goes on where it was."""
    if state.unsent is None:
        return
    try:
        _push(client, node, state.unsent)
        size = len(state.unsent.letter.data)
        state.log(f"sent {size:,} bytes", "sent", bytes_up=size)
    except httpx.HTTPStatusError as error:
        if error.response.status_code not in GONE:
            raise
        state.log(DROPPED, "task-dropped", "warning")
    state.unsent = None


def _pull(client: FleetHttpClient, own: Identity, asked: Message, state: ClientState) -> bytes:
    node, run, (before, places) = Node(node_id=own.node), asked.metadata.run_id, state.last

    def part(identity: str) -> bytes:
        if (
            identity in places
            and (again := part_in(before, places[identity], identity)) is not None
        ):
            return again
        end = time.monotonic() + PART_PATIENCE
        while time.monotonic() < end:
            found = client.PullObject(PullObjectRequest(node=node, run_id=run, object_id=identity))
            if not found.object_found:
                raise refusal(UpdateError, "part-gone")
            if found.object_available:
                return find_part(found.object_content, identity)
            time.sleep(WAIT[0])
        raise refusal(UpdateError, "part-late", seconds=PART_PATIENCE)

    data, now = open_message(asked, LIMIT, part, own.folder)
    if now:
        state.last, state.read = (data, now) if len(data) <= CACHED_BYTES else (b"", {}), asked
    return data


def _confirm(client: FleetHttpClient, node: Node, state: ClientState) -> None:
    """The server may forget a large task; said when the work is done, for others may be sent the
    same parts until then.
    """
    if state.read is not None:
        meta, state.read = state.read.metadata, None
        done = ConfirmMessageReceivedRequest(
            node=node, run_id=meta.run_id, message_object_id=meta.message_id
        )
        client.ConfirmMessageReceived(done)


def _reply(node: Node, asked: Message, data: bytes) -> Envelope:
    meta = asked.metadata
    return seal(
        data,
        meta.run_id,
        node.node_id,
        meta.src_node_id,
        meta.group_id,
        remaining(asked),
        meta.message_id,
    )


def _push(client: FleetHttpClient, node: Node, out: Outgoing) -> None:
    letter = out.letter
    if out.missing is None:
        message = PushMessagesRequest(
            node=node, messages_list=[letter.proto()], message_object_trees=[letter.tree]
        )
        message.clientapp_runtime_list.append(0.0)
        taken = client.PushMessages(message)
        out.missing, out.session = list(taken.objects_to_push), taken.session_id
    for identity, content in letter.wanted(out.missing):
        part = PushObjectRequest(
            node=node, run_id=letter.message.metadata.run_id, session_id=out.session
        )
        part.object_id, part.object_content = identity, content
        client.PushObject(part)
        out.missing.remove(identity)


class _FleetClient(FleetHttpClient):  # type: ignore[misc]  # Flower's class has no types
    """Flower's client, for which a body that is none of Flower's is a lost connection: something in
    between wrote it.
    """

    def _unary_unary(self, **asked: Any) -> Any:
        try:
            return super()._unary_unary(**asked)
        except ValueError as error:  # Flower's own for a body that protobuf cannot read
            raise httpx.RemoteProtocolError("The coordinator's answer cannot be read.") from error


class Session:
    """Names this process to the gateway, which lets only the newest of a key's processes work; each
    side states its versions.

    It also passes on that the coordinator recorded our personal model. Raises NetworkError where
    the versions differ.
    """

    def __init__(
        self, name: str, address: str, confirmed: Callable[[str], None] = lambda _: None
    ) -> None:
        self._name, self._address, self._confirmed = name, address, confirmed

    def intercept(self, context: Any, call_next: Callable[[Any], httpx.Response]) -> httpx.Response:
        add_headers(context.request, {SESSION: self._name, SPOKEN: SPEAKS})
        answer = call_next(context)
        theirs = answer.headers.get(SPOKEN, "")
        if answer.status_code == DIFFERS or (answer.is_success and not same_version(theirs)):
            raise difference(theirs, "coordinator")
        self._confirmed(answer.headers.get(RECORDED, ""))
        return answer


@contextmanager
def _connected(identity: Identity, state: ClientState) -> Iterator[FleetHttpClient]:
    """A client whose node is active, with a heartbeat beside it.

    A node that was killed is still active there, so it is put out first. Who only lost the
    connection takes up where it was: what it had in hand is still waited for.
    """
    interceptors = [
        RuntimeVersionHttpInterceptor(component_name="SuperNode"),
        NodeAuthHttpInterceptor(identity.key, identity.key.public_key()),
        Session(state.session, identity.address, state.confirmed),
    ]
    with _FleetClient.from_server_address(
        identity.address, False, identity.authority, interceptors
    ) as client:
        if state.active:
            client.SendNodeHeartbeat(_alive(identity.node))
        else:
            _activate(client, identity)
        state.active = True
        over = Event()
        beat = Thread(target=_beat, args=(client, identity.node, over), daemon=True)
        beat.start()
        staying = False
        try:
            yield client
        except httpx.HTTPError:
            staying = True
            raise
        finally:
            over.set()
            beat.join()
            if not staying:
                state.active = False
                with suppress(
                    httpx.HTTPError, NetworkError
                ):  # else it will be noticed by the missing heartbeat
                    client.DeactivateNode(DeactivateNodeRequest(node_id=identity.node))


def _activate(client: FleetHttpClient, identity: Identity) -> None:
    public = public_bytes(identity.key)
    try:
        client.DeactivateNode(DeactivateNodeRequest(node_id=identity.node))
    except httpx.HTTPStatusError as error:  # it was not active
        if error.response.status_code == TAKEN:
            raise
    client.ActivateNode(ActivateNodeRequest(public_key=public, heartbeat_interval=HEARTBEAT))


def _alive(node: int) -> SendNodeHeartbeatRequest:
    return SendNodeHeartbeatRequest(node=Node(node_id=node), heartbeat_interval=HEARTBEAT)


def _beat(client: FleetHttpClient, node: int, over: Event) -> None:
    while not over.wait(BEAT):
        try:
            client.SendNodeHeartbeat(_alive(node))
        except (httpx.HTTPError, NetworkError):
            continue  # the loop beside it notices, and connects anew
