"""The coordinator's place in the server: a run of its own that holds no code, and the grid over
which its messages go.

The server gives a place up when it has not heard of its holder for a minute: a machine slept, or
its clock was set. Then a new one is taken; messages of the old one are lost, and are sent again by
who still waits for their answers.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TypeVar

import httpx
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import SubStatus
from flwr.common.serde import fab_to_proto, run_from_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.superlink.grid import HttpGrid

from tequio.core.errors import NetworkError
from tequio.core.texts.words import refusal
from tequio.runtimes.flower.superlink import START, Server, control

PATIENCE = 2 * START  # seconds in which a question to the server is asked again
LOG = "superlink/superlink.log"  # in the coordinator's folder
PAUSE = 1.0  # seconds between two tries to take a place
GIVEN_UP = (401, 403)  # what it says to who has no place any more
ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
APP = """\
[project]
name = "tequio"
version = "1.0.0"
description = "The place of Tequio's coordinator; holds no code."
license = { file = "LICENSE" }
dependencies = ["flwr>=1.42.0,<1.43"]
[tool.flwr.app]
publisher = "tequio"
fab-format-version = 1
flwr-version-target = "1.42.0"
[tool.flwr.app.components]
serverapp = "none:app"
clientapp = "none:app"
"""
NOTHING = {"pyproject.toml": APP.encode(), "LICENSE": b"Apache-2.0\n", "none.py": b"app = None\n"}

Result = TypeVar("Result")


class Moved(NetworkError):
    """The place was given up by the server, and there is a new one: what belonged to the old one is
    lost.
    """


class CoordinatorGrid:
    """Our place in a server, from `open_grid`; `grid` is that of the present one.

    files: what its run says that it is; ours holds no code, and our participants would run none.
    """

    def __init__(
        self, server: Server, log: Callable[[str], None], files: Mapping[str, bytes]
    ) -> None:
        self._server, self._log, self._files = server, log, files
        self._take_patiently()

    @property
    def run(self) -> int:
        """Number of the present run."""
        return int(self.grid.run.run_id)

    def ask(self, question: Callable[[HttpGrid], Result]) -> Result:
        """An answer of the server.

        Raises NetworkError where it gives none, Moved where there was a new place to take first.
        """
        try:
            return question(self.grid)
        except httpx.HTTPError as error:
            if not _given_up(error):
                raise refusal(NetworkError, "superlink-silent", path=LOG) from None
        self._log(
            "SuperLink gave the coordinator's place up; a new one is taken, and what was on its "
            "way is sent again."
        )
        self.close(done=False)
        self._take_patiently()
        raise refusal(Moved, "place-given-up")

    def ask_again(self, question: Callable[[HttpGrid], Result]) -> Result:
        """`ask`, once more where there was a new place to take."""
        try:
            return self.ask(question)
        except Moved:
            return self.ask(question)

    def close(self, done: bool) -> None:
        """Leave it; `done`: its work is."""
        if self._beat.is_running:
            self._beat.stop()
        if done:
            over = PushTaskOutputRequest(sub_status=SubStatus.COMPLETED, details="")
            with suppress(httpx.HTTPError):  # nothing is asked of it any more
                self.grid._runtime_client.PushTaskOutput(over)
        self.grid.close()

    def _take_patiently(self) -> None:
        """Take a place; a server that ends meanwhile is started again.

        Raises NetworkError where it does not answer for long.
        """
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self._take()
                return
            except httpx.HTTPError as error:
                if not isinstance(error, httpx.TransportError) or time.monotonic() > end:
                    raise refusal(NetworkError, "superlink-silent", path=LOG) from None
            time.sleep(PAUSE)

    def _take(self) -> None:
        server = self._server
        content, _ = build_fab_from_files(dict(self._files))
        fab = fab_to_proto(Fab(hashlib.sha256(content).hexdigest(), content, {}))
        authority = server.authority.read_bytes()
        with control(server) as asked:
            wanted = asked.StartRun(StartRunRequest(fab=fab)).run_id
        grid = HttpGrid(server.address, False, authority, token=_token(server, authority, wanted))
        _patient(grid)
        try:
            grid.set_run(
                run_from_proto(grid._runtime_client.PullTaskInput(PullTaskInputRequest()).run)
            )
        except BaseException:
            grid.close()
            raise
        self.grid, self._beat = grid, HeartbeatSender(_alive(grid))
        self._beat.start()


@contextmanager
def open_grid(
    server: Server, log: Callable[[str], None], files: Mapping[str, bytes] = NOTHING
) -> Iterator[CoordinatorGrid]:
    """A place, until the block ends. An earlier run is left as it is: nothing of it is needed."""
    logging.getLogger("flwr").setLevel(logging.CRITICAL)  # what matters of it we tell ourselves
    taken = CoordinatorGrid(server, log, files)
    done = False
    try:
        yield taken
        done = True
    finally:
        taken.close(done)


def _given_up(error: Exception) -> bool:
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code in GIVEN_UP


def _patient(grid: HttpGrid) -> None:
    """Questions are asked again for PATIENCE; a refusal is an error like any other, where Flower
    would interrupt the process.

    Flower takes a handshake that was not answered in time for one that failed, and gives up.
    """
    retry = grid._retry_invoker
    theirs, retry.max_time = retry.should_giveup, PATIENCE

    def over(error: Exception) -> bool:
        return _given_up(error) or (
            not isinstance(error, httpx.TimeoutException) and bool(theirs(error))
        )

    retry.should_giveup = over


def _alive(grid: HttpGrid) -> Callable[[], bool]:
    """Tells the server that we are there; where it gave us up the next question finds out."""

    def tell() -> bool:
        with suppress(httpx.HTTPError):
            grid._runtime_client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        return True

    return tell


def _token(server: Server, authority: bytes, run: int) -> str:
    """What shows that the run's task is ours; tasks of earlier runs, which a crash may have left,
    are taken and dropped.
    """
    sign = SuperExecAuthHttpInterceptor(
        master_secret=server.secret.read_bytes(), protected_methods=frozenset({ACQUIRE})
    )
    version = RuntimeVersionHttpInterceptor(component_name="SuperExec")
    with RuntimeHttpClient.from_server_address(
        server.address, False, authority, [version, sign]
    ) as runtime:
        end = time.monotonic() + START
        while time.monotonic() < end:
            got = runtime.AcquireTask(
                AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
            )
            if got.token and got.task.run_id == run:
                return str(got.token)
            time.sleep(0.05)
    raise refusal(NetworkError, "superlink-silent", path=LOG)
