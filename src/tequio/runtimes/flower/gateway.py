"""The coordinator's only gateway to the network:

TLS, and nothing behind it but the paths that participants need.

`/v1/fleet/…` goes on to SuperLink on loopback, if a participant signed it; `/tequio/join` enrols a
key against the token of an invitation, `/tequio/leave` takes the signed word of one who leaves;
`/tequio/health` answers. Everything else is refused and logged.
"""

import asyncio
import math
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import SpooledTemporaryFile
from threading import Thread
from typing import IO

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tequio.core.bounds import one_line
from tequio.core.errors import NetworkError, TequioError
from tequio.core.events import EventHandler
from tequio.core.texts.words import refusal
from tequio.runtimes.flower.forwarding import forwarded
from tequio.runtimes.flower.intake import (
    BODY,
    SMALL,
    Full,
    Intake,
    Tries,
    announced,
    read_words,
    short_of_space,
    small_body,
    take_body,
    unread,
)
from tequio.runtimes.flower.listener import HEADER, VISIT, Listener, Protocol, logged_by, timed
from tequio.runtimes.flower.long_poll import LongPoll, Question
from tequio.runtimes.flower.sessions import AWAY, KEY, Connections, Sessions
from tequio.runtimes.flower.signatures import Signatures
from tequio.runtimes.flower.superlink import Server, nodes
from tequio.runtimes.flower.traffic import Peer, Traffic, size
from tequio.runtimes.flower.versions import DIFFERS, SPEAKS, SPOKEN, difference, same_version
from tequio.runtimes.flower.visits import PortLimits, Visits
from tequio.trust.leave_request import KEYS

LARGE = 1 << 18  # bytes of a request that waits on disk for its turn
# large requests and answers that are handed on at the same time: each takes some 20 MB, and
# SuperLink is one process
ROOM = 2
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
CONNECTS = (
    "/activate-node",
    "/send-node-heartbeat",
)  # with these a participant comes, or comes back
ACTIVATE, PRECONDITION = (
    "/v1/fleet/activate-node",
    412,
)  # of other paths: a node that is not active, no stranger
_KEY, _FORM = ("key", "unknown key or wrong signature"), ("malformed", "not a message of Flower's")
STRANGE = {
    401: _KEY,
    403: _KEY,
    PRECONDITION: _KEY,
    400: _FORM,
    415: _FORM,
    422: _FORM,
}  # SuperLink's answers: reason, words
# tells a participant the digest of its personal model that the coordinator recorded
RECORDED = "tequio-recorded"
OVER = 410  # to who asks for work when the federation has come to its end
# names a participant's process; the newest of a key's works, the others are told
SESSION = "tequio-session"
TAKEN = 409  # what the others are told
FRESH, SOON = (
    5.0,
    20.0,
)  # seconds for which an answer of SuperLink counts, and within which it must come
SILENT = 90.0  # seconds that SuperLink may take for an answer
ENDING = 5  # seconds for requests that are under way in the end
LATER = 5  # seconds after which a participant may try again where there was no room
HOLD = AWAY / 3
ASK, ANSWER, PART, FETCH, LEAVE = (
    f"/v1/fleet/{name}"
    for name in ("pull-messages", "push-messages", "push-object", "pull-object", "deactivate-node")
)

Enrol = Callable[[str, str, str], int]
"""(participant, token, public key as PEM) -> its number.

Raises NetworkError, ConfigError or UpdateError to refuse.
"""

Leave = Callable[[dict[str, str]], None]
"""What one who leaves says: name, node, time, signature. Raises NetworkError to refuse."""


@dataclass(frozen=True)
class Gateway:
    """What it shows, and what is behind it; how it and the exchange tell each other of tasks,
    answers and bytes.

    hold: seconds for which a question for work is held while there is none.
    """

    certificate: Path
    key: Path
    server: Server
    hold: float = HOLD
    long_poll: LongPoll = field(default_factory=LongPoll)
    traffic: Traffic = field(default_factory=Traffic)
    limits: PortLimits = field(default_factory=PortLimits)


@contextmanager
def claimed(host: str, port: int) -> Iterator[socket.socket]:
    """The address, ours from here on; nobody is answered yet.

    Raises NetworkError if it cannot be had.
    """
    with ExitStack() as open_:
        try:
            family = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0][0]
            own = open_.enter_context(socket.socket(family))
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.bind((host, port))
        except OSError as error:
            why = error.strerror or str(error)
            raise refusal(
                NetworkError, "cannot-listen", address=f"{host}:{port}", error=why
            ) from None
        yield own


@contextmanager
def open_gateway(
    gateway: Gateway, own: socket.socket, enrol: Enrol, leave: Leave, log: EventHandler
) -> Iterator[Sessions]:
    """Listen at the claimed address until the block ends."""
    sessions, visits = Sessions(gateway.long_poll), Visits(gateway.limits)

    def refuse(reason: str, words: str, remote: str, method: str = "", path: str = "") -> None:
        where = {"method": method, "path": path, "remote": remote}
        log(
            f"refused: {one_line(words)}, from {remote}",
            "refused",
            "warning",
            reason=reason,
            **where,
        )

    app = _application(gateway, sessions, visits, enrol, leave, log, refuse)
    config = uvicorn.Config(
        timed(app, gateway.limits, gateway.traffic, refuse),
        ssl_certfile=str(gateway.certificate),
        ssl_keyfile=str(gateway.key),
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # an address that stands in a request is anybody's word
        timeout_keep_alive=math.ceil(gateway.limits.idle),
        timeout_graceful_shutdown=ENDING,
        server_header=False,
        h11_max_incomplete_event_size=HEADER,
        http=Protocol,
    )
    listener = Listener(config, own, visits, gateway.traffic, refuse)
    thread = Thread(target=listener.run, args=([own],), daemon=True)
    with logged_by(refuse):
        thread.start()
        while not listener.started:
            if not thread.is_alive():
                raise refusal(NetworkError, "gateway-silent")
            time.sleep(0.02)
        try:
            yield sessions
        finally:
            listener.should_exit = True
            thread.join(10.0)


def _application(
    gateway: Gateway,
    sessions: Sessions,
    visits: Visits,
    enrol: Enrol,
    leave: Leave,
    log: EventHandler,
    refuse: Callable[..., None],
) -> Starlette:
    context = ssl.create_default_context(cadata=gateway.server.authority.read_text())
    places = Connections()
    inside = httpx.AsyncClient(
        base_url=f"https://{gateway.server.address}", verify=context, timeout=SILENT
    )
    room, turn, limits, tries = asyncio.Semaphore(ROOM), asyncio.Lock(), gateway.limits, Tries()
    signatures = Signatures(lambda: nodes(gateway.server))
    intake = Intake(limits.bodies, limits.key_bodies)
    checked = [-SILENT, 1.0]  # when SuperLink was asked last, and whether it answered

    def refused(request: Request, reason: str, words: str) -> None:
        refuse(reason, words, _who(request), request.method[:20], request.url.path[:80])

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
        refused(request, "version", difference(theirs, "participant").why.rstrip("."))
        return JSONResponse(
            {"error": str(difference(SPEAKS, "coordinator", theirs))}, DIFFERS, {SPOKEN: SPEAKS}
        )

    async def fleet(request: Request) -> Response:
        if request.url.path not in PATHS:
            return await other(request)
        if request.url.path.endswith(CONNECTS):
            differs = of_another_version(request, request.headers.get(SPOKEN, ""))
            if differs is not None:
                return differs
        if (size := announced(request)) > BODY:
            refused(request, "too-large", f"a request of more than {BODY >> 20} MiB")
            return unread(request, 413)
        try:
            key = await signatures.signer(request.headers)
        except (httpx.HTTPError, OSError):
            return Response(status_code=503)
        if key is None:
            refused(request, *_KEY)
            return unread(request, 401)
        if (
            size > SMALL
            and request.url.path in (ANSWER, PART)
            and short_of_space(gateway.server.folder)
        ):
            refused(request, "disk", "an answer, for the disk is nearly full")
            return unread(request, 503, {"retry-after": str(LATER)})
        node = signatures.node(key)
        visits.prove(request.scope["state"][VISIT], name := request.headers[KEY])
        try:
            async with intake.room(name, size if size > SMALL else 0):
                with SpooledTemporaryFile(max_size=LARGE) as body:
                    if not await take_body(request, BODY, body):
                        refused(request, "too-large", f"a request of more than {BODY >> 20} MiB")
                        return unread(request, 413)
                    answer = await handed_on(request, body, node)
        except Full:
            refused(request, "full", "too many bodies at a time")
            return unread(request, 503, {"retry-after": str(LATER)})
        if answer.status_code == 401:
            signatures.forget(key)  # it counts no more
        return answer

    async def handed_on(request: Request, body: IO[bytes], node: int) -> Response:
        """SuperLink's answer to a request that the participant with this number signed."""
        large, path = body.tell() > LARGE or request.url.path == FETCH, request.url.path
        body.seek(0)
        key, session = (request.headers.get(name, "")[:1024] for name in (KEY, SESSION))
        question, long_poll = Question(0, 0, 0), gateway.long_poll
        if path in (ASK, LEAVE):
            long_poll.acknowledge(node)
        if sessions.dismissed(request):
            return Response(status_code=OVER, headers=_recorded(long_poll, node, last=True))
        if not places.free(key, session, path):
            refused(request, "taken", "another process took this participant's place")
            return Response(status_code=TAKEN)
        if path == ASK and session and places.now.get(key) == session:
            if key in places.sending:  # who asks for work has sent all parts of what it had
                places.sending.discard(key)
                long_poll.answered(node)
            question = await long_poll.due(node, gateway.hold)
            if sessions.dismissed(request):
                return Response(status_code=OVER, headers=_recorded(long_poll, node, last=True))
        confirmed: dict[str, str] = {}
        try:
            async with (
                room if large else nullcontext()
            ):  # so many are in memory at once, however many send
                whole = body.read()
                answer = await inside.post(path, content=whole, headers=forwarded(request.headers))
        except httpx.HTTPError:
            return Response(status_code=503)
        if answer.status_code == 401 and signatures.aged(
            request.headers
        ):  # it was valid when the body began
            refused(request, "slow", "a body that travelled for longer than its signature counts")
            return Response(status_code=503, headers={"retry-after": str(LATER)})
        if answer.status_code in STRANGE and (
            answer.status_code != PRECONDITION or path == ACTIVATE
        ):
            refused(request, *STRANGE[answer.status_code])
        if answer.status_code == 200 and path.endswith(CONNECTS):
            places.taken(key, session)
        if answer.status_code == 200 and question.node:
            long_poll.fetched(question, bool(answer.content))
            confirmed = _recorded(long_poll, node)
        if answer.status_code == 200 and path == ANSWER:
            long_poll.answered(node)
        if answer.status_code == 200 and path == PART:
            places.sending.add(key)
        spoken = {**forwarded(answer.headers), SPOKEN: SPEAKS, **confirmed}
        back = Response(answer.content, answer.status_code, spoken)
        if not gateway.traffic.belongs(_peer(request), node):
            gateway.traffic.count(
                node, size(request.headers.raw, whole), size(back.raw_headers, answer.content)
            )
        return back

    def too_often(request: Request) -> Response | None:
        """The refusal, where too many tries of this address were in vain."""
        wait = math.ceil(tries.wait(_who(request)))
        if not wait:
            return None
        refused(request, "too-often", "too many tries in vain")
        words = f"Too many tries from this address were refused. Try again in {wait} s."
        return JSONResponse({"error": words}, 429, {"retry-after": str(wait)})

    async def answered(request: Request, what: str, act: Callable[[], dict[str, str]]) -> Response:
        """What `act` answers, or why not.

        It runs in a thread, one at a time: it may wait for SuperLink, or for the folder's lock.
        """
        try:
            async with turn:
                return too_often(request) or JSONResponse(await asyncio.to_thread(act))
        except NetworkError as error:
            tries.failed(_who(request))
            refused(request, what, error.what)
            return JSONResponse({"error": str(error)}, 403)
        except (TequioError, httpx.HTTPError, OSError) as error:
            refused(request, "error", f"cannot answer a request to {what} ({type(error).__name__})")
            return JSONResponse(
                {"error": "The coordinator cannot answer now. Try again later."}, 503
            )

    async def join(request: Request) -> Response:
        if (often := too_often(request)) is not None:
            return often
        try:
            wanted = read_words(
                await small_body(request), ("name", "token", "public_key"), ("speaks",)
            )
        except ValueError:
            refused(request, "malformed", "not a request to join")
            return unread(request, 400, body={"error": "Expected name, token and public_key."})
        if (differs := of_another_version(request, wanted["speaks"])) is not None:
            return differs
        name, key = wanted["name"], wanted["public_key"]

        def act() -> dict[str, str]:
            number = enrol(name, wanted["token"], key)
            signatures.add(key.encode(), number)
            gateway.traffic.belongs(_peer(request), number)
            log(f"{name} joined", "joined", participant=name, remote=_who(request))
            return {"node": str(number)}

        return await answered(request, "join", act)

    async def leaves(request: Request) -> Response:
        if (often := too_often(request)) is not None:
            return often
        try:
            wanted = read_words(await small_body(request), KEYS)
        except ValueError:
            refused(request, "malformed", "not a request to leave")
            return unread(request, 400, body={"error": f"Expected {', '.join(KEYS)}."})

        def act() -> dict[str, str]:
            leave(wanted)
            return {"left": wanted["name"]}

        return await answered(request, "leave", act)

    async def health(request: Request) -> Response:
        up = await answers()
        return JSONResponse({"ok": up, "speaks": SPEAKS}, 200 if up else 503)

    async def other(request: Request) -> Response:
        refused(request, "path", f"{request.method[:20]} {request.url.path[:80]!r}")
        return unread(request, 404)

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
            Route(
                "/{rest:path}",
                other,
                methods=["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"],
            ),
        ],
        exception_handlers={
            404: unknown,
            405: unknown,
        },  # any other method, and paths without a slash
    )


def _recorded(long_poll: LongPoll, node: int, last: bool = False) -> dict[str, str]:
    """Return the header that confirms a participant's personal model; none where the coordinator
    recorded none.
    """
    digest = long_poll.serve(node, last)
    return {RECORDED: digest} if digest else {}


def _who(request: Request) -> str:
    return request.client.host if request.client else "?"


def _peer(request: Request) -> Peer:
    return (request.client.host, request.client.port) if request.client else ("", 0)
