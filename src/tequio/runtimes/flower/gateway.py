"""The coordinator's only gateway to the network: TLS, and nothing behind it but the paths that participants need.

`/v1/fleet/…` goes on to SuperLink on loopback (which checks each participant's signature); `/tequio/join` enrols a key against the token
of an invitation, `/tequio/leave` takes the signed word of one who leaves; `/tequio/health` answers. Everything else is refused and told.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from tempfile import SpooledTemporaryFile
from threading import Thread
from typing import IO

import httpx
import uvicorn
from flwr.proto.fleet_pb2 import PullMessagesRequest
from google.protobuf.message import DecodeError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from tequio.core.errors import NetworkError
from tequio.core.events import EventHandler
from tequio.runtimes.flower.long_poll import LongPoll, Question
from tequio.runtimes.flower.sessions import AWAY, KEY, Connections, Sessions
from tequio.runtimes.flower.superlink import Server
from tequio.runtimes.flower.traffic import Peer, Traffic, size
from tequio.runtimes.flower.versions import DIFFERS, SPEAKS, SPOKEN, difference, same_version
from tequio.trust.leave_request import KEYS

BODY = 16 << 20  # bytes of one request; a message travels in parts of 5 MB
LARGE = 1 << 18  # bytes of a request that waits on disk for its turn
ROOM = 2  # large requests and answers that are handed on at the same time: each takes some 20 MB, and SuperLink is one process
SMALL = 1 << 14  # bytes of a request to join
PATHS = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "pull-object",
        "confirm-message-received",
        "push-messages",
        "push-object",
    )
)
CONNECTS = ("/activate-node", "/send-node-heartbeat")  # with these a participant comes, or comes back
HEADERS = ("content-type", "accept", KEY, "flwr-signature", "flwr-timestamp")
VERSION = "flwr-"  # SuperLink's own headers that are not secrets of the inside
ACTIVATE, PRECONDITION = "/v1/fleet/activate-node", 412  # of other paths: a node that is not active, no stranger
_KEY, _FORM = ("key", "unknown key or wrong signature"), ("malformed", "not a message of Flower's")
STRANGE = {
    401: _KEY,
    403: _KEY,
    PRECONDITION: _KEY,
    400: _FORM,
    415: _FORM,
    422: _FORM,
}  # SuperLink's answers: reason, words
INSIDE = ("flwr-superexec", "flwr-task")
RECORDED = "tequio-recorded"  # tells a participant the digest of its personal model that the coordinator recorded
OVER = 410  # to who asks for work when the federation has come to its end
SESSION = "tequio-session"  # names a participant's process; the newest of a key's works, the others are told
TAKEN = 409  # what the others are told
FRESH, SOON = 5.0, 20.0  # seconds for which an answer of SuperLink counts, and within which it must come
SILENT = 90.0  # seconds that SuperLink may take for an answer
KEEP = 30  # seconds for which a connection may rest
HOLD = AWAY / 3
ASK, ANSWER, PART, FETCH = (
    f"/v1/fleet/{name}" for name in ("pull-messages", "push-messages", "push-object", "pull-object")
)

Enrol = Callable[[str, str, str], int]
"""(participant, token, public key as PEM) -> its number. Raises NetworkError, ConfigError or UpdateError to refuse."""

Leave = Callable[[dict[str, str]], None]
"""What one who leaves says: name, node, time, signature. Raises NetworkError to refuse."""


@dataclass(frozen=True)
class Gateway:
    """What it shows, and what is behind it; how it and the exchange tell each other of tasks, answers and bytes.

    hold: seconds for which a question for work is held while there is none.
    """

    certificate: Path
    key: Path
    server: Server
    hold: float = HOLD
    long_poll: LongPoll = field(default_factory=LongPoll)
    traffic: Traffic = field(default_factory=Traffic)


@contextmanager
def claimed(host: str, port: int) -> Iterator[socket.socket]:
    """The address, ours from here on; nobody is answered yet. Raises NetworkError if it cannot be had."""
    with ExitStack() as open_:
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            own = open_.enter_context(socket.socket(family))
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.bind((host, port))
        except OSError as error:
            why = f"({error.strerror or error})"
            fix = "Is the port taken, or is the address another machine's? Choose with --host and --port."
            raise NetworkError(f"{host}:{port} cannot be listened on {why}.", "", fix) from None
        yield own


@contextmanager
def open_gateway(
    gateway: Gateway, own: socket.socket, enrol: Enrol, leave: Leave, log: EventHandler
) -> Iterator[Sessions]:
    """Listen at the claimed address until the block ends."""
    sessions = Sessions(gateway.long_poll)
    app = _application(gateway, sessions, enrol, leave, log)
    config = uvicorn.Config(
        app,
        ssl_certfile=str(gateway.certificate),
        ssl_keyfile=str(gateway.key),
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
        ws="none",
        log_config=None,
        access_log=False,
        timeout_keep_alive=KEEP,
        server_header=False,
        h11_max_incomplete_event_size=1 << 16,
        http=_counted(gateway.traffic),
    )
    listener = uvicorn.Server(config)
    thread = Thread(target=listener.run, args=([own],), daemon=True)
    thread.start()
    while not listener.started:
        if not thread.is_alive():
            raise NetworkError("The door did not open.", "", "Is the certificate's key the right one?")
        time.sleep(0.02)
    try:
        yield sessions
    finally:
        listener.should_exit = True
        thread.join(10.0)


def _application(gateway: Gateway, sessions: Sessions, enrol: Enrol, leave: Leave, log: EventHandler) -> Starlette:
    context = ssl.create_default_context(cadata=gateway.server.authority.read_text())
    places = Connections()
    inside = httpx.AsyncClient(base_url=f"https://{gateway.server.address}", verify=context, timeout=SILENT)
    room = asyncio.Semaphore(ROOM)
    checked = [-SILENT, 1.0]  # when SuperLink was asked last, and whether it answered

    def refused(request: Request, reason: str, words: str) -> None:
        where = {"method": request.method, "path": request.url.path[:80], "remote": _who(request)}
        log(f"refused: {words}, from {where['remote']}", "refused", "warning", reason=reason, **where)

    async def answers() -> bool:
        """Whether SuperLink answers; asked at most every few seconds, whoever asks us."""
        if time.monotonic() - checked[0] > FRESH:
            checked[0] = time.monotonic()
            try:
                await inside.get("/", timeout=SOON)
                checked[1] = 1.0
            except httpx.HTTPError:
                checked[1] = 0.0
        return checked[1] > 0.0

    def of_another_version(request: Request, theirs: str) -> Response | None:
        """The refusal, where a participant states other versions than ours."""
        if same_version(theirs):
            return None
        refused(request, "version", difference(theirs, "A participant").why.rstrip("."))
        return JSONResponse({"error": str(difference(SPEAKS, "The coordinator", theirs))}, DIFFERS, {SPOKEN: SPEAKS})

    async def fleet(request: Request) -> Response:
        if request.url.path not in PATHS:
            return await other(request)
        if request.url.path.endswith(CONNECTS):
            differs = of_another_version(request, request.headers.get(SPOKEN, ""))
            if differs is not None:
                return differs
        with SpooledTemporaryFile(max_size=LARGE) as body:
            if not await _taken(request, BODY, body):
                refused(request, "too-large", f"a request of more than {BODY >> 20} MiB")
                return Response(status_code=413)
            return await handed_on(request, body)

    async def handed_on(request: Request, body: IO[bytes]) -> Response:
        large, path = body.tell() > LARGE or request.url.path == FETCH, request.url.path
        body.seek(0)
        key, session = (request.headers.get(name, "")[:1024] for name in (KEY, SESSION))
        node, question, long_poll = places.nodes.get(key, 0), Question(0, 0, 0), gateway.long_poll
        if sessions.dismissed(request):
            return Response(status_code=OVER, headers=_recorded(long_poll, node))
        if not places.free(key, session, path):
            refused(request, "taken", "another process took this participant's place")
            return Response(status_code=TAKEN)
        if path == ASK and session and places.now.get(key) == session:
            node = node or _node(body.read())
            body.seek(0)
            if key in places.sending:  # who asks for work has sent all parts of what it had
                places.sending.discard(key)
                long_poll.answered(node)
            question = await long_poll.due(node, gateway.hold)
            if sessions.dismissed(request):
                return Response(status_code=OVER, headers=_recorded(long_poll, places.nodes.get(key, 0)))
        confirmed: dict[str, str] = {}
        try:
            async with room if large else nullcontext():  # so many are in memory at once, however many send
                whole = body.read()
                answer = await inside.post(path, content=whole, headers=_forwarded(request.headers))
        except httpx.HTTPError:
            return Response(status_code=503)
        if answer.status_code in STRANGE and (answer.status_code != PRECONDITION or path == ACTIVATE):
            refused(request, *STRANGE[answer.status_code])
        if answer.status_code == 200 and path.endswith(CONNECTS):
            places.taken(key, session)
        if answer.status_code == 200 and path == ASK and node:
            places.nodes[key] = node  # SuperLink checked that it is this key's
            long_poll.fetched(question, bool(answer.content))
            confirmed = _recorded(long_poll, node)
        if answer.status_code == 200 and path == ANSWER and node:
            long_poll.answered(node)
        if answer.status_code == 200 and path == PART and node:
            places.sending.add(key)
        spoken = {**_forwarded(answer.headers), SPOKEN: SPEAKS, **confirmed}
        back = Response(answer.content, answer.status_code, spoken)
        if node and not gateway.traffic.belongs(_peer(request), node):
            gateway.traffic.count(node, size(request.headers.raw, whole), size(back.raw_headers, answer.content))
        return back

    async def join(request: Request) -> Response:
        body = await _body(request, SMALL)
        try:
            wanted = json.loads(body or b"{}")
            name, token, key = (str(wanted[k]) for k in ("name", "token", "public_key"))
        except (ValueError, TypeError, KeyError):
            refused(request, "malformed", "not a request to join")
            return JSONResponse({"error": "Expected name, token and public_key."}, 400)
        if (differs := of_another_version(request, str(wanted.get("speaks", "")))) is not None:
            return differs
        try:
            number = enrol(name, token, key)
        except NetworkError as error:
            refused(request, "join", error.what)
            return JSONResponse({"error": str(error)}, 403)
        gateway.traffic.belongs(_peer(request), number)
        log(f"{name} joined", "joined", participant=name, remote=_who(request))
        return JSONResponse({"node": str(number)})

    async def leaves(request: Request) -> Response:
        body = await _body(request, SMALL)
        try:
            wanted = json.loads(body or b"{}")
            said = {key: str(wanted[key]) for key in KEYS}
        except (ValueError, TypeError, KeyError):
            refused(request, "malformed", "not a request to leave")
            return JSONResponse({"error": f"Expected {', '.join(KEYS)}."}, 400)
        try:
            leave(said)
        except NetworkError as error:
            refused(request, "leave", error.what)
            return JSONResponse({"error": str(error)}, 403)
        return JSONResponse({"left": said["name"]})

    async def health(request: Request) -> Response:
        up = await answers()
        return JSONResponse({"ok": up, "speaks": SPEAKS}, 200 if up else 503)

    async def other(request: Request) -> Response:
        refused(request, "path", f"{request.method} {request.url.path[:80]!r}")
        return Response(status_code=404)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with inside:
            yield

    async def unknown(request: Request, _: Exception) -> Response:
        return await other(request)

    return Starlette(
        lifespan=lifespan,
        routes=[
            Route("/v1/fleet/{rest:path}", fleet, methods=["POST"]),
            Route("/tequio/join", join, methods=["POST"]),
            Route("/tequio/leave", leaves, methods=["POST"]),
            Route("/tequio/health", health, methods=["GET"]),
            Route("/{rest:path}", other, methods=["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]),
        ],
        exception_handlers={405: unknown},  # any other method
    )


def _recorded(long_poll: LongPoll, node: int) -> dict[str, str]:
    """Return the header that confirms a participant's personal model; none where the coordinator recorded none."""
    digest = long_poll.recorded(node)
    return {RECORDED: digest} if digest else {}


def _node(body: bytes) -> int:
    """Whose question for work this is; 0 where it cannot be read, which SuperLink will say."""
    try:
        return int(PullMessagesRequest.FromString(body).node.node_id)
    except DecodeError:
        return 0


async def _taken(request: Request, limit: int, out: IO[bytes]) -> bool:
    """Write the request's body to `out`; whether it is not longer than `limit`."""
    async for part in request.stream():
        out.write(part)
        if out.tell() > limit:
            return False
    return True


async def _body(request: Request, limit: int) -> bytes | None:
    """The request's body, None where it is longer than `limit`."""
    out = BytesIO()
    return out.getvalue() if await _taken(request, limit, out) else None


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers that may pass the gateway, either way."""
    wanted = {k.lower(): v for k, v in headers.items()}
    return {k: v for k, v in wanted.items() if k in HEADERS or (k.startswith(VERSION) and not k.startswith(INSIDE))}


def _who(request: Request) -> str:
    return request.client.host if request.client else "?"


def _peer(request: Request) -> Peer:
    return (request.client.host, request.client.port) if request.client else ("", 0)


def _counted(traffic: Traffic) -> type[asyncio.Protocol]:
    """uvicorn's side of a connection, of which `traffic` is told."""

    class Counted(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            if self.client is not None:
                traffic.opened(self.client, transport.get_extra_info("socket"))

        def connection_lost(self, error: Exception | None) -> None:
            super().connection_lost(error)
            if self.client is not None:
                traffic.closed(self.client)

    return Counted
