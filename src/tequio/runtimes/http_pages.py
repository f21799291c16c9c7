"""A few pages over plain HTTP for the operator's own machines: `/health` and `/metrics`.

On loopback unless told otherwise.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from tequio.core.errors import NetworkError, TequioError
from tequio.core.texts.words import refusal

SILENT = 10.0  # seconds that a client may take for its request

Page = Callable[[], tuple[int, str, str]]
"""(status, content type, text)"""


@contextmanager
def served(host: str, port: int, made: Mapping[str, Page]) -> Iterator[str]:
    """Answer GET on these paths until the block ends; yields host:port.

    Raises NetworkError if the address cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = SILENT
        server_version, sys_version = "tequio", ""

        def do_GET(self) -> None:
            page = made.get(self.path.partition("?")[0])
            try:
                status, kind, text = (404, "text/plain", "") if page is None else page()
            except TequioError as error:  # the ledger is in use just now, for instance
                status, kind, text = 503, "text/plain", f"{type(error).__name__}\n"
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            return  # asked every few seconds: no event

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            return  # a client that went away

    try:
        server = Server((host, port), Handler)
    except (OSError, OverflowError) as error:
        why = str(getattr(error, "strerror", None) or error)
        raise refusal(NetworkError, "cannot-listen", address=f"{host}:{port}", error=why) from None
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
    thread.start()
    try:
        yield f"{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)
