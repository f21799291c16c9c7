"""The README's three terminals, as they stand there: its commands are read from it and run, with
fewer rounds and on a free port.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"
DEADLINE = 900.0  # seconds


def terminals(address: str) -> list[list[list[str]]]:
    """The commands of each block of the section, without the installation."""
    section = (
        README.read_text(encoding="utf-8")
        .split("## Across a network, tried on one machine")[1]
        .split("\n## ")[0]
    )
    blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    commands = [
        [shlex.split(line) for line in block.replace("127.0.0.1:9443", address).splitlines()]
        for block in blocks
    ]
    return [[words for words in block if words[0] == "tequio"] for block in commands]


@contextmanager
def running(words: list[str], folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tequio.cli.main", *words[1:]]
    with log.open("wb") as stream:
        source = subprocess.PIPE if words[1] == "join" else subprocess.DEVNULL
        process = subprocess.Popen(
            command, cwd=folder, stdin=source, stdout=stream, stderr=subprocess.STDOUT
        )
    if process.stdin is not None:
        process.stdin.write(b"y\n")
        process.stdin.close()
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def done(words: list[str], folder: Path, log: Path) -> str:
    with running(words, folder, log) as process:
        status = process.wait(DEADLINE)
    text = log.read_text(encoding="utf-8")
    assert status == 0, text
    return text


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_three_terminals_as_written(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        once, coordinator, *others = terminals(f"127.0.0.1:{probe.getsockname()[1]}")
    assert [len(once), len(coordinator), *map(len, others)] == [2, 1, 2, 2]
    prepared = done(once[0], tmp_path, tmp_path / "prepare.log")
    if "cannot be fetched" in prepared:
        pytest.skip(prepared)
    toml = tmp_path / "try" / "federation.toml"
    shorter = re.sub(r"rounds = \d+", "rounds = 1\nmax_steps = 2", toml.read_text(encoding="utf-8"))
    toml.write_text(shorter, encoding="utf-8")
    for file in (tmp_path / "try" / "participants").glob("*.toml"):
        file.write_text(
            re.sub(r"max_(\w+) = \d+", r"max_\1 = 20", file.read_text(encoding="utf-8")),
            encoding="utf-8",
        )
    done(once[1], tmp_path, tmp_path / "init.log")
    log = tmp_path / "coordinator.log"
    with ExitStack() as open_:
        main = open_.enter_context(running(coordinator[0], tmp_path, log))
        end = time.monotonic() + DEADLINE
        while "Listening" not in log.read_text(encoding="utf-8"):
            assert main.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < end, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        for join, _ in others:
            said = done(join, tmp_path, tmp_path / f"{Path(join[-1]).name}-join.log")
            assert "What will leave this machine" in said
        people = [
            open_.enter_context(running(go, tmp_path, tmp_path / f"{k}.log"))
            for k, (_, go) in enumerate(others)
        ]
        assert main.wait(DEADLINE) == 0, log.read_text(encoding="utf-8")
        assert [person.wait(DEADLINE) for person in people] == [0, 0]
    assert (tmp_path / "try" / "hub" / "run" / "report.en.html").is_file()
    for name in ("hub", "united", "usairways"):
        run = ["tequio", "verify", os.path.join("try", name, "run"), "--json"]
        assert json.loads(done(run, tmp_path, tmp_path / "verify.log"))["ok"], name
