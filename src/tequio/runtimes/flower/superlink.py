"""The server: a SuperLink process, hardened, on loopback, and who is registered with it.

TLS, node authentication, SQLite state, no installing of packages; tasks are handed out only to who
holds a secret of this machine.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import Event, Thread

import httpx
import psutil
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from tequio.core.errors import NetworkError
from tequio.core.texts.words import refusal
from tequio.ledger.folder import own_folder

START, STOP = 90.0, 10.0  # seconds that the server has to come up, and to go
STARTS = 3  # how often it may end before it answers
AGAIN = (
    1.0,
    30.0,
)  # seconds before it is started again: at first, and where it ends again and again
DATABASE = "superlink.sqlite"
LOG = 16 << 20  # bytes


@dataclass(frozen=True)
class Server:
    """A SuperLink: its port on loopback, and the files that it and we need."""

    port: int
    folder: Path  # for its database and log
    certificate: Path
    key: Path
    authority: Path  # the certificate that signed `certificate`
    secret: Path  # shared with us alone

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"


@contextmanager
def running(server: Server, log: Callable[[str], None]) -> Iterator[None]:
    """The process, until the block ends; where it dies it is started again.

    Raises NetworkError if it does not come up.
    """
    command = _command(server)
    own_folder(server.folder)  # every message passes through its database
    _end_orphan(server)
    processes, over = [_spawn(server, command)], Event()
    guard = Thread(target=_guard, args=(server, command, processes, over, log), daemon=True)
    try:
        guard.start()
        _await(server, processes)
        yield
    finally:
        over.set()
        if guard.is_alive():
            guard.join()
        _end(processes[-1])
        _pid_file(server).unlink(missing_ok=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _command(server: Server) -> list[str]:
    program = shutil.which(
        "flower-superlink", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    if program is None:
        raise refusal(NetworkError, "superlink-missing")
    command = [program, "--host", "127.0.0.1", "--port", str(server.port), "--isolation", "process"]
    command += ["--superexec-auth-secret-file", str(server.secret), "--enable-supernode-auth"]
    command += ["--ssl-certfile", str(server.certificate), "--ssl-keyfile", str(server.key)]
    command += [
        "--ssl-ca-certfile",
        str(server.authority),
        "--disable-runtime-dependency-installation",
    ]
    command += ["--database", str(server.folder / DATABASE)]
    return command


def _spawn(server: Server, command: list[str]) -> subprocess.Popen[bytes]:
    quiet = {
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_HOME": str(server.folder / "flwr"),
    }
    with (server.folder / "superlink.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **quiet}
        )
    _pid_file(server).write_text(str(process.pid))
    return process


def _guard(
    server: Server,
    command: list[str],
    processes: list[subprocess.Popen[bytes]],
    over: Event,
    log: Callable[[str], None],
) -> None:
    """Start it again where it ends, until `over`; it finds its state in its database.

    The last of `processes` is the one that runs.
    """
    pause, begun = AGAIN[0], time.monotonic()
    while not over.wait(0.2):
        if processes[-1].poll() is None:
            continue
        pause = AGAIN[0] if time.monotonic() - begun > START else min(2 * pause, AGAIN[1])
        log(f"SuperLink ended with status {processes[-1].returncode}; it is started again.")
        if over.wait(pause):
            return
        processes.append(_spawn(server, command))
        begun = time.monotonic()


def _pid_file(server: Server) -> Path:
    return server.folder / "superlink.pid"


def _end_orphan(server: Server) -> None:
    """End the server of a coordinator that was killed, if it is still there: two would write one
    database.
    """
    try:
        orphan = psutil.Process(int(_pid_file(server).read_text()))
        if str(server.folder / DATABASE) in orphan.cmdline():
            orphan.kill()
            orphan.wait(STOP)
    except (OSError, ValueError, psutil.Error):
        return  # there is none


def _await(server: Server, processes: list[subprocess.Popen[bytes]]) -> None:
    """Wait until the server answers; the guard starts it again where it ends.

    Raises NetworkError where it ends too often.
    """
    end = time.monotonic() + START
    while time.monotonic() < end:
        process = processes[-1]
        if len(processes) >= STARTS and process.poll() is not None:
            facts = {"count": STARTS, "status": process.returncode, "port": server.port}
            raise refusal(
                NetworkError, "superlink-ended", path=server.folder / "superlink.log", **facts
            )
        try:
            nodes(server)
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        return
    raise refusal(NetworkError, "superlink-silent", path=server.folder / "superlink.log")


def nodes(server: Server) -> dict[bytes, int]:
    """Registered participants: number by public key (PEM)."""
    with control(server) as asked:
        found = asked.ListNodes(ListNodesRequest()).nodes_info
    return {bytes(node.public_key): node.node_id for node in found if node.status != "unregistered"}


def present(server: Server) -> dict[int, tuple[bool, str]] | None:
    """Number of each registered participant -> (is it connected, since when, ISO 8601 in
    seconds).

    None if the server does not answer.
    """
    try:
        with control(server) as asked:
            found = asked.ListNodes(ListNodesRequest()).nodes_info
    except (httpx.HTTPError, OSError):
        return None
    rows = {}
    for node in found:
        on = node.status == "online"
        since = node.last_activated_at if on else node.last_deactivated_at
        rows[node.node_id] = (
            on,
            since and datetime.fromisoformat(since).isoformat(timespec="seconds"),
        )
    return rows


def bound_log(server: Server) -> None:
    """Keep SuperLink's log short: where it is longer than LOG, its text goes to `superlink.log.1`,
    in place of what was there.
    """
    path = server.folder / "superlink.log"
    with suppress(OSError):
        if path.stat().st_size > LOG:
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
            os.truncate(path, 0)  # the server appends, and goes on at the new end


def register(server: Server, public_key: bytes) -> int:
    """The number of the participant with this key (PEM); registered if it is not yet."""
    known = nodes(server)
    if public_key not in known:
        with control(server) as asked:
            asked.RegisterNode(RegisterNodeRequest(public_key=public_key))
        known = nodes(server)
    return known[public_key]


def unregister(server: Server, public_keys: Iterable[bytes]) -> list[bytes]:
    """Participants with these keys (PEM) are none any more; returns the keys that were.

    Raises NetworkError if it does not answer.
    """
    try:
        known = nodes(server)
        gone = [key for key in public_keys if key in known]
        for key in gone:
            with control(server) as asked:
                asked.UnregisterNode(UnregisterNodeRequest(node_id=known[key]))
    except httpx.HTTPError:
        raise refusal(
            NetworkError, "superlink-silent", path=server.folder / "superlink.log"
        ) from None
    return gone


def control(server: Server) -> ControlHttpClient:
    """Questions about runs and participants; to be closed."""
    version = RuntimeVersionHttpInterceptor(component_name="flwr")
    return ControlHttpClient.from_server_address(
        server.address, False, server.authority.read_bytes(), [version]
    )
