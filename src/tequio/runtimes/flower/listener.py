"""The gateway's listening socket: each connection is admitted, timed and counted before uvicorn
speaks TLS and HTTP on it.

uvicorn's own limits begin with the first request, and answer to it; here a connection that says
nothing is bounded too. What uvicorn and asyncio log goes to our own log, in a few words.
"""

import asyncio
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn
from h11 import LocalProtocolError
from starlette.datastructures import URL
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tequio.runtimes.flower.traffic import Traffic
from tequio.runtimes.flower.visits import PortLimits, Visit, Visits

BACKLOG = 2048  # connections that wait to be accepted
GOODBYE = 2.0  # seconds for the other side to end TLS
TICK = 1.0  # seconds between two looks at deadlines
PAUSE = 0.2  # seconds after the system refused to accept one
HEADER = 1 << 16  # bytes of a request's header
LOGGERS = ("uvicorn.error", "uvicorn.access", "asyncio")
VISIT = "visit"  # its name in a request's state

Refuse = Callable[[str, str, str], None]
"""(reason, words, the other side's address)."""


class Protocol(H11Protocol):
    """uvicorn's side of a connection. visit, traffic, refuse: set by the listener before it is
    made.
    """

    visit: Visit
    visits: Visits
    traffic: Traffic
    refuse: Refuse

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It speaks TLS."""
        self.visit.transport = transport
        if self.visit.over:
            transport.abort()
        super().connection_made(transport)
        self.traffic.opened(self.visit.peer, self.visit.own)

    def data_received(self, data: bytes) -> None:
        """Some bytes came."""
        super().data_received(data)
        self.traffic.seen(self.visit.peer)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        super().connection_lost(exc)
        self.traffic.closed(self.visit.peer)
        self.visits.closed(self.visit)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self.refuse("http", "not a request in HTTP", self.visit.peer[0])
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what the application answers is of no use any more
            self.cycle.message_event.set()
        try:
            super().send_400_response(msg)
        except LocalProtocolError:  # it has had an answer, or has it half
            self.transport.abort()


class Listener(uvicorn.Server):
    """A uvicorn server that accepts connections at `own` itself."""

    def __init__(
        self,
        config: uvicorn.Config,
        own: socket.socket,
        visits: Visits,
        traffic: Traffic,
        refuse: Refuse,
    ) -> None:
        super().__init__(config)
        self._own, self._visits, self._traffic, self._refuse = own, visits, traffic, refuse
        self._work: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, accept, and look at deadlines."""
        self._own.setblocking(False)
        self._own.listen(BACKLOG)
        await super().startup(sockets=[])
        for work in (self._accept(), self._watch()):
            self._keep(work)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close what has no request under way; uvicorn ends the others."""
        for task in self._work:
            task.cancel()
        self._own.close()
        for visit in self._visits.everybody():
            if visit.transport is None:
                visit.end()
        await super().shutdown(sockets=[])

    def _keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                own, peer = await loop.sock_accept(self._own)
            except OSError:
                await asyncio.sleep(PAUSE)
                continue
            visit, evicted = self._visits.admit(own, peer[:2])
            if evicted is not None or visit is None:
                self._refuse(
                    "connections", "too many connections", (evicted.peer if evicted else peer)[0]
                )
            if visit is not None:
                self._keep(self._greet(visit))

    async def _greet(self, visit: Visit) -> None:
        """Speak TLS; from there on the protocol has it."""

        def protocol() -> Protocol:
            state = {**self.lifespan.state, VISIT: visit}
            made = Protocol(self.config, self.server_state, state, loop)
            made.visit, made.visits, made.traffic, made.refuse = (
                visit,
                self._visits,
                self._traffic,
                self._refuse,
            )
            return made

        loop, limit = asyncio.get_running_loop(), self._visits.limits.greeting
        try:
            await loop.connect_accepted_socket(
                protocol,
                visit.own,
                ssl=self.config.ssl,
                ssl_handshake_timeout=limit + 2 * TICK,  # its deadline comes before
                ssl_shutdown_timeout=GOODBYE,
            )
        except ssl.SSLEOFError:
            pass
        except ssl.SSLError:
            self._refuse("tls", "no TLS, or another version of it", visit.peer[0])
        except OSError:  # it went away, or was closed
            pass
        finally:
            if visit.transport is None:
                self._visits.closed(visit)
                with suppress(OSError):
                    visit.own.close()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            for visit in self._visits.expired():
                if visit.slow:
                    self._refuse("slow", "nothing, or too little, came in time", visit.peer[0])
            self._traffic.see_all()


def timed(app: ASGIApp, limits: PortLimits, traffic: Traffic, refuse: Refuse) -> ASGIApp:
    """Return `app` with a deadline on each step of a request, and with an answer for whatever it
    cannot read.
    """

    async def whole(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        visit: Visit = scope["state"][VISIT]
        visit.deadline, visit.slow = None, True
        begun, got, taken = 0.0, 0, False

        def allowed(size: int) -> float:
            return limits.body + (size / limits.rate if visit.key else 0.0)

        async def part() -> Message:
            nonlocal begun, got, taken
            if not taken:
                begun = begun or time.monotonic()
                visit.deadline = begun + allowed(got)
            message = await receive()
            got += len(message.get("body", b""))
            taken = not message.get("more_body", False)
            visit.deadline = None
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                size = int(dict(message["headers"]).get(b"content-length", b"0"))
                visit.deadline = time.monotonic() + allowed(size)
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                visit.deadline, visit.slow = time.monotonic() + limits.idle, False
                traffic.seen(visit.peer)

        try:
            _ = URL(scope=scope).path  # what the Host header makes of it
        except ValueError:
            refuse("malformed", "no usable address in a request", visit.peer[0])
            await answer(
                {
                    "type": "http.response.start",
                    "status": 400,
                    "headers": [(b"content-length", b"0")],
                }
            )
            await answer({"type": "http.response.body"})
            return
        try:
            await app(scope, part, answer)
        except (
            ClientDisconnect,
            LocalProtocolError,
        ):  # it went away, or sent something that is no HTTP
            return
        except Exception as error:  # an error of ours, which Starlette has answered with 500
            refuse("error", f"an error in the gateway ({_where(error)})", visit.peer[0])

    return whole


class _Few(logging.Handler):
    """Errors of uvicorn and asyncio as a refusal each, which our log bounds; their warnings are
    counted where they arise.
    """

    def __init__(self, refuse: Refuse) -> None:
        super().__init__(logging.ERROR)
        self._refuse = refuse

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        what = _where(error) if error is not None else str(record.msg)[:80]  # without its arguments
        self._refuse("error", f"an error at {record.name} ({what})", "")


@contextmanager
def logged_by(refuse: Refuse) -> Iterator[None]:
    """Let `refuse` have what uvicorn and asyncio would log, until the block ends."""
    handler, before = _Few(refuse), []
    for logger in map(logging.getLogger, LOGGERS):
        before.append((logger, logger.propagate))
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, propagate in before:
            logger.removeHandler(handler)
            logger.propagate = propagate


def _where(error: BaseException) -> str:
    """Return the kind and the place of an error; its words may quote anything."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = (
        f" at {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        if trace
        else ""
    )
    return f"{type(error).__name__}{place}"
