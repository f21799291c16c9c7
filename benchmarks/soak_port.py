"""Does a federation go on while strangers abuse its port?

A real coordinator with few descriptors and participants that make rounds over
TLS; one attack after another. Rounds per second under and after each attack ÷ before it (target: ≥
0.8 within 60 s), descriptors, memory, bytes of the log, bytes of bodies that lie on disk.

Run: python -m benchmarks.soak_port [--participants 3] [--descriptors 1024] [--seconds 30] [--only
idle-tcp,...]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import attacks
from benchmarks.common.command import TEQUIO, tequio
from benchmarks.common.hub import free_port
from benchmarks.common.made import make_base, words
from tequio.config.templates import write_federation
from tequio.runtimes.flower.descriptors import raise_descriptor_limit
from tequio.runtimes.flower.versions import SPEAKS
from tequio.trust.keys import new_key, public_bytes

AGAIN = 60.0  # seconds within which rounds are to be as fast as before, nearly
TARGET = 0.8
LOG_BYTES = 400_000  # that one attack may add to the log
PARKED = 1 << 20  # bytes of bodies on disk


@dataclass
class Hub:
    """A coordinator that runs."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    def rounds(self) -> int:
        return self.log().count(b'"event": "round"')

    def log(self) -> bytes:
        return (self.folder / "log").read_bytes()

    def rate(self, seconds: float) -> float:
        """Rounds per second from now on."""
        begun, before = time.monotonic(), self.rounds()
        time.sleep(seconds)
        return (self.rounds() - before) / (time.monotonic() - begun)

    def refusals(self) -> dict[str, int]:
        status = json.loads(tequio("status", self.folder / "hub", "--json"))
        return dict(status["refusals"])


def federation(folder: Path, participants: int) -> Path:
    people: list[dict[str, Any]] = []
    for i in range(participants):
        path = folder / "data" / f"p{i}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"text": words(8, 100 * i + k), "label": "ab"[k % 2]} for k in range(40)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        people.append({"name": f"p{i}", "data": {"path": str(path)}, "hardware": {"max_rank": 4}})
    sections = {
        "name": "soak",
        "base": {"model": str(make_base("tinybert", folder)), "licence": "none"},
        "task": {"kind": "classification", "max_tokens": 16, "labels": {"a": "good", "b": "bad"}},
        "adapter": {"modules": ["query", "value"]},
        "train": {
            "rounds": 1000,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "max_steps": 2,
            "patience": 1000,
        },
    }
    return write_federation(folder, sections, people)


def started(
    folder: Path, stack: ExitStack, *arguments: str | Path, few: int = 0
) -> subprocess.Popen[bytes]:
    """A command in the background; `few`: descriptors that it may have."""

    def limit() -> None:
        if few:
            resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))

    log = stack.enter_context((folder / "output").open("ab"))
    command = [*TEQUIO, *map(str, arguments), "--threads", "1"]
    process = subprocess.Popen(
        command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=limit
    )
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def crowd(
    make: Callable[[int], list[socket.socket]], more: bytes = b""
) -> Callable[[Hub, float], str]:
    """An attack that makes connections and holds them; `more` is sent on each, again and again."""

    def attack(hub: Hub, seconds: float) -> str:
        with attacks.held(make(hub.port)) as made:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                if more:
                    attacks.dribble(made, more)
                time.sleep(1.0)
            return f"{len(made)} made, {attacks.still_open(made)} open after {seconds:.0f} s"

    return attack


def garbage(hub: Hub, _: float) -> str:
    blob, asker = os.urandom(10 << 20), attacks.Asker(hub.port)
    paths = (
        "/v1/fleet/push-object",
        "/v1/fleet/push-messages",
        "/tequio/join",
        "/v1/fleet/pull-messages",
    )
    return str([asker.ask("POST", paths[k % 4], blob) for k in range(20)])


def invented(hub: Hub, _: float) -> str:
    key = public_bytes(new_key()).decode()
    return str(dict(attacks.invented_tokens(hub.port, "p0", key, SPEAKS, 1000)))


def nothing(_: Hub, seconds: float) -> str:
    """No attack: how far rounds per second differ by themselves on this machine."""
    time.sleep(seconds)
    return "-"


ATTACKS: dict[str, Callable[[Hub, float], str]] = {
    "nothing": nothing,
    "idle-tcp": crowd(lambda port: attacks.idle(port, 1000, False)),
    "idle-tls": crowd(lambda port: attacks.idle(port, 600, True)),
    "slow-headers": crowd(lambda port: attacks.slow_headers(port, 300), b"X-a: b\r\n"),
    "unfinished-bodies": crowd(
        lambda port: attacks.unfinished_bodies(port, 30, 16 << 20, "/v1/fleet/push-object")
    ),
    "short-bodies": crowd(
        lambda port: attacks.unfinished_bodies(port, 100, 16_000, "/tequio/join")
    ),
    "garbage": garbage,
    "malformed": lambda hub, _: str(dict(attacks.malformed(hub.port, 2000))),
    "broken-joins": lambda hub, _: str(dict(attacks.broken_joins(hub.port, 1000))),
    "invented-tokens": invented,
}


def tried(hub: Hub, name: str, seconds: float) -> bool:
    """Whether the coordinator bore one attack as it should; prints how it was."""
    process = psutil.Process(hub.process.pid)
    quiet, size, begun, before = hub.rate(seconds), len(hub.log()), time.monotonic(), hub.rounds()
    memory = process.memory_info().rss
    words = ATTACKS[name](hub, seconds)
    during, took = hub.rounds() - before, time.monotonic() - begun
    most, parked = attacks.descriptors(hub.process.pid), attacks.parked_bytes(hub.process.pid)
    after, end = 0.0, time.monotonic() + AGAIN
    while after < TARGET * quiet and time.monotonic() < end:
        after = hub.rate(min(seconds, AGAIN / 3))
    grown = len(hub.log()) - size
    alive = hub.process.poll() is None
    print(
        f"| {name} | {quiet:.2f} | {during / took / quiet:.2f} | {after / quiet:.2f} | {most} | "
        f"{(process.memory_info().rss - memory) / 2**20:+.0f} | {grown:,} | {parked:,} | {words} |",
        flush=True,
    )
    return alive and after >= TARGET * quiet and grown < LOG_BYTES and parked < PARKED


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--participants", type=int, default=3)
    parser.add_argument("--descriptors", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", default=",".join(ATTACKS))
    given = parser.parse_args()
    raise_descriptor_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that its processes end with it
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, port = Path(name), free_port()
        toml, hub = federation(folder, given.participants), folder / "hub"
        tequio("coordinator", "init", hub, toml, "--address", f"127.0.0.1:{port}")
        logged = ("--log", "json", "--log-file", folder / "log")
        process = started(
            folder, stack, "coordinator", "start", hub, *logged, few=given.descriptors
        )
        found = Hub(folder, port, process)
        wait(lambda: (folder / "log").exists() and b"listening" in found.log(), process)
        for i in range(given.participants):
            own = folder / "participants" / f"p{i}.toml"
            tequio(
                "join", hub / "invitations" / f"p{i}.json", own, "--out", folder / f"p{i}", "--yes"
            )
            started(folder, stack, "participate", folder / f"p{i}")
        wait(lambda: found.rounds() >= 3, process)
        print(
            "| attack | rounds/s before | under ÷ before | after ÷ before | descriptors | memory, "
            "MiB ",
            end="",
        )
        print("| log, bytes | on disk, bytes | what the attacker saw |\n|" + "---|" * 9, flush=True)
        well = [tried(found, name, given.seconds) for name in given.only.split(",")]
        print(f"refusals: {found.refusals()}")
        output = (folder / "output").read_bytes()
        print(f"tracebacks: {output.count(b'Traceback')}; {len(output)} bytes beside the log")
        if not all(well) or b"Traceback" in output:
            raise SystemExit("A target was missed.")


def wait(
    what: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 300.0
) -> None:
    end = time.monotonic() + seconds
    while not what():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit("The coordinator did not come so far.")
        time.sleep(0.2)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
