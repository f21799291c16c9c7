"""What tests of a federation across a network share: commands as a user types them, in processes of
their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from tequio.config import load_federation
from tequio.ledger.record import Ledger

TEQUIO = [sys.executable, "-m", "tequio.cli.main"]
ALONE = ["--threads", "1"]  # as the tests' own process: more threads add in another order


def tequio(*arguments: str | Path, fails: bool = False) -> str:
    done = subprocess.run(
        [*TEQUIO, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode != 0) == fails, done.stderr + done.stdout
    return done.stderr if fails else done.stdout


@contextmanager
def background(
    log: Path, *arguments: str | Path, env: Mapping[str, str] = MappingProxyType({})
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as stream:
        command = [*TEQUIO, *map(str, arguments)]
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ, **env})
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def until(what: Callable[[], bool], seconds: float = 500.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.2)


def ready(root: Path) -> bool:
    return "Listening" in (root / "coordinator.log").read_text()


def kinds(ledger: Path) -> list[str]:
    with Ledger.open(ledger, read_only=True) as opened:
        return [entry.kind for entry in opened.entries()]


@contextmanager
def federation(
    root: Path, toml: Path, address: str, kill: bool = False, options: Sequence[str] = ()
) -> Iterator[dict[str, Path]]:
    """A coordinator that listens, and everybody joined; yields the participants' folders. kill:
    with SIGKILL in the end.
    """
    hub = root / "hub"
    tequio("coordinator", "init", hub, toml, "--address", address)
    started: list[str | Path] = ["coordinator", "start", hub, "--wait", "10", *options, *ALONE]
    with background(root / "coordinator.log", *started) as coordinator:
        until(lambda: ready(root))
        names = [entry.name for entry in load_federation(toml).participants]
        for name in names:
            own = toml.parent / "participants" / f"{name}.toml"
            tequio("join", hub / "invitations" / f"{name}.json", own, "--out", root / name, "--yes")
        yield {name: root / name for name in names}
        if kill:
            coordinator.kill()
