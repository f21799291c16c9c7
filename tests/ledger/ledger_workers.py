"""What the child processes of these tests do.

They are forked from one server that imported Tequio once.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tequio.core.errors import TequioError
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger

MEGABYTE = 2**20
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tequio.ledger.record"])


@contextmanager
def child(work: Callable[..., None], *arguments: Any) -> Iterator[tuple[Any, Connection]]:
    """A real process running `work(connection, *arguments)`; killed at the end if it still runs."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=work, args=(theirs, *arguments))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()
        ours.close()


def received(connection: Connection) -> list[Any]:
    """Everything a child said before it died."""
    said = []
    try:
        while connection.poll():
            said.append(connection.recv())
    except EOFError:
        pass
    return said


def state_of(number: int, size: int = MEGABYTE) -> bytes:
    """A checkpoint that can be told from any other: the hash of its number, repeated."""
    return (hashlib.sha256(str(number).encode()).digest() * (size // 32 + 1))[:size]


def append_for_ever(connection: Connection, path: Path, pause: float = 0.0) -> None:
    """Odd records with a checkpoint, even ones without; says each number once it is committed, and
    pauses that many seconds.
    """
    with Ledger.open(path) as ledger:
        last = ledger.last("round")
        number = last.body["number"] if last else 0
        while True:
            number += 1
            entry = ledger.append(
                "round", {"number": number}, state_of(number) if number % 2 else None
            )
            connection.send(entry.seq)
            time.sleep(pause)


def append_until_full(connection: Connection, path: Path) -> None:
    """Growing checkpoints under a limit of 6 MB for one file; says how many were committed, and the
    error.
    """
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 * MEGABYTE, 6 * MEGABYTE))
    with Ledger.open(path) as ledger:
        for number in range(1, 100):
            try:
                ledger.append("round", {"number": number}, state_of(number, number * MEGABYTE))
            except TequioError as error:
                connection.send((number - 1, error.as_dict()))
                return


def write_until_full(connection: Connection, path: Path) -> None:
    """A file larger than the limit, over an older one."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEGABYTE, MEGABYTE))
    try:
        RunFolder(path).write_atomic("report.html", b"n" * 3 * MEGABYTE)
    except TequioError as error:
        connection.send(error.as_dict())


def use_read_only(connection: Connection, path: Path) -> None:
    """Every way of writing to a folder that this process may only read.

    Root first becomes `nobody`.
    """
    if os.geteuid() == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
        except OSError as error:
            connection.send(f"cannot become nobody: {error}")
            return
    folder = RunFolder.open(path)
    actions: dict[str, Callable[[], object]] = {
        "append": lambda: Ledger.open(folder.ledger_path).append("round", {}),
        "create": lambda: Ledger.create(path / "other.sqlite", {}),
        "write": lambda: folder.write_atomic("report.html", b"x"),
        "lock": lambda: ExitStack().enter_context(folder.lock()),
        "mkdir": lambda: RunFolder.create(path / "inner"),
    }
    for name, action in actions.items():
        try:
            action()
        except TequioError as error:
            connection.send((name, error.as_dict()))
    with Ledger.open(folder.ledger_path, read_only=True) as ledger:
        connection.send(("read", [entry.kind for entry in ledger.entries()]))


def hold_lock(connection: Connection, path: Path) -> None:
    """Take the lock, say so, and keep it."""
    with RunFolder(path).lock():
        connection.send(os.getpid())
        time.sleep(600)


def write_for_ever(connection: Connection, path: Path) -> None:
    """Replace one file of 2 MB again and again, each time with one letter throughout."""
    folder = RunFolder(path)
    while True:
        for letter in (b"a", b"b"):
            folder.write_atomic("report.html", letter * 2 * MEGABYTE)
            connection.send(letter)
