"""What does the network cost a round? Seconds a round with three resident participants over TLS on loopback, less those of one process.

The same federation twice: embedded, one thread, participants one after another; and a coordinator with three participants as processes of
their own, one thread each. On few cores the work itself takes as long in both; what is more is messages, polling and waiting. Target: at
most 1 second a round beyond the embedded one. MiniLM, two steps a round, so that the work is small; the first round, in which
connections are made, is left out.

Run: python -m benchmarks.network [--rounds 8]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tequio.cli.environment import prepare_process

prepare_process()

from benchmarks.hub import free_port
from benchmarks.overhead import federation
from tequio.ledger.record import Ledger

TEQUIO = (sys.executable, "-m", "tequio.cli.main")
PARTICIPANTS, ROWS = 3, 40


def seconds(ledger: Path) -> list[float]:
    """Of each round but the first."""
    with Ledger.open(ledger, read_only=True) as opened:
        return [float(entry.body["seconds"]) for entry in opened.entries("round")][1:]


def embedded(toml: Path, out: Path) -> list[float]:
    """One process."""
    subprocess.run([*TEQUIO, "run", toml, "--out", out, "--threads", "1", "--json"], check=True, capture_output=True)
    return seconds(out / "ledger.sqlite")


def networked(toml: Path, folder: Path) -> list[float]:
    """A coordinator and resident participants, each a process."""
    address = f"127.0.0.1:{free_port()}"
    hub, log = folder / "hub", folder / "coordinator.log"
    subprocess.run([*TEQUIO, "coordinator", "init", hub, toml, "--address", address], check=True, capture_output=True)
    with ExitStack() as stack:
        stream = stack.enter_context(log.open("wb"))
        main = subprocess.Popen([*TEQUIO, "coordinator", "start", hub, "--threads", "1"], stdout=stream, stderr=stream)
        stack.callback(main.terminate)
        while b"Listening" not in log.read_bytes():
            if main.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.2)
        for i in range(PARTICIPANTS):
            own, at = toml.parent / "participants" / f"p{i}.toml", folder / f"p{i}"
            invitation = hub / "invitations" / f"p{i}.json"
            subprocess.run([*TEQUIO, "join", invitation, own, "--yes", "--out", at], check=True, capture_output=True)
            one = subprocess.Popen([*TEQUIO, "participate", at, "--threads", "1"], stdout=stream, stderr=stream)
            stack.callback(one.wait)
            stack.callback(one.terminate)
        if main.wait():
            raise SystemExit(log.read_text())
    return seconds(hub / "run" / "ledger.sqlite")


def main() -> None:
    """Both in one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=8)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        toml = federation(folder, PARTICIPANTS, ROWS, rounds, 2)
        one = statistics.median(embedded(toml, folder / "run"))
        many = statistics.median(networked(toml, folder))
        traffic = folder / "hub" / "run" / "ledger.sqlite"
        with Ledger.open(traffic, read_only=True) as opened:
            rows = opened.last("round")
        up = sum(row["bytes_up"] for row in (rows.body["train"] if rows else []))
    print(
        f"median round: embedded {one:.2f} s, network {many:.2f} s: {many - one:+.2f} s; {up / 1e6:.1f} MB up a round"
    )


if __name__ == "__main__":
    main()
