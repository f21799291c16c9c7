"""Does a run go on over a slow, long and lossy line, how long is a round, and does the ledger say
what the wire carried?

A coordinator and two participants, each in a network namespace of its own, joined by lines of 20
Mbit/s, 50 ms each way and 1 % loss (`common/link.py`). Printed: seconds between the records of
rounds, and bytes that the kernel counted on each participant's line ÷ bytes that the ledger has for
it, which are the kernel's by connection; what a line's acknowledgements say of lost packets is in
the line's alone. Target: within 3 %. Needs root, iproute2 and /dev/net/tun (Linux).

Run: python -m benchmarks.wan [--rounds 6] [--delay 50] [--loss 1] [--mbit 20]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from threading import Event

from tequio.cli.environment import prepare_process

prepare_process()

from benchmarks.common.command import TEQUIO
from benchmarks.common.link import Shape, carry, device
from benchmarks.overhead import federation
from tequio.ledger.record import Ledger

HUB, SITES = "tequio-hub", ("tequio-a", "tequio-b")
ADDRESS, PORT = "10.77.0.1", 9443


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def impossible() -> str:
    """Why this cannot be measured here; empty if it can."""
    if os.geteuid() != 0:
        return "it needs root"
    if shutil.which("ip") is None:
        return "it needs iproute2 (ip)"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "it needs /dev/net/tun"
    try:
        ip("netns", "add", "tequio-try")
        ip("netns", "del", "tequio-try")
    except subprocess.CalledProcessError as error:
        return f"no network namespace can be made ({error.stderr.strip()})"
    return ""


def lines(stack: ExitStack, shape: Shape) -> None:
    """Three namespaces, and a line from the hub to each site."""
    stop = Event()
    for name in (HUB, *SITES):
        ip("netns", "add", name)
        stack.callback(ip, "netns", "del", name)
        ip("-n", name, "link", "set", "lo", "up")
    ip("-n", HUB, "addr", "add", f"{ADDRESS}/32", "dev", "lo")
    for i, site in enumerate(SITES, 1):
        ends = device(f"tqh{i}", HUB), device(f"tqs{i}", site)
        for name, line, host in ((HUB, f"tqh{i}", 1), (site, f"tqs{i}", 2)):
            ip("-n", name, "addr", "add", f"10.77.{i}.{host}/24", "dev", line)
            ip("-n", name, "link", "set", line, "up")
        ip("-n", site, "route", "add", ADDRESS, "via", f"10.77.{i}.1")
        stack.callback(carry(ends, shape, stop, i).join)
    stack.callback(stop.set)


def counted(i: int) -> Counter[str]:
    """Bytes on the hub's line to site `i`: down to it, up from it."""
    out = Counter[str]()
    for way, name in (("down", "tx"), ("up", "rx")):
        path = f"/sys/class/net/tqh{i}/statistics/{name}_bytes"
        # sysfs shows the namespace in which it was mounted: a new one is mounted inside
        command = ["ip", "netns", "exec", HUB, "cat", path]
        out[way] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return out


def recorded(ledger: Path) -> dict[str, Counter[str]]:
    """Bytes of messages by participant, over the whole ledger."""
    out: dict[str, Counter[str]] = {}
    with Ledger.open(ledger, read_only=True) as opened:
        for entry in opened.entries():
            if entry.kind == "personal":
                out.setdefault(entry.body["name"], Counter()).update(entry.body["wire"])
            elif entry.kind != "run":
                for name, ways in entry.body.get("wire", {}).items():
                    out.setdefault(name, Counter()).update(ways)
    return out


def between(ledger: Path) -> list[float]:
    """Seconds that each round took, by the record."""
    with Ledger.open(ledger, read_only=True) as opened:
        return [float(entry.body["seconds"]) for entry in opened.entries("round")]


def run(folder: Path, toml: Path, inside: Callable[[str], tuple[str, ...]], log: Path) -> None:
    """The whole federation, to its end."""
    hub = folder / "hub"
    init: list[str | Path] = [
        *TEQUIO,
        "coordinator",
        "init",
        hub,
        toml,
        "--address",
        f"{ADDRESS}:{PORT}",
    ]
    subprocess.run(init, check=True, capture_output=True)
    with ExitStack() as stack:
        stream = stack.enter_context(log.open("wb"))
        start: list[str | Path] = [
            *inside(HUB),
            *TEQUIO,
            "coordinator",
            "start",
            hub,
            "--host",
            ADDRESS,
            "--threads",
            "1",
        ]
        main = subprocess.Popen(start, stdout=stream, stderr=stream)
        stack.callback(main.terminate)
        while b"Listening" not in log.read_bytes():
            if main.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.2)
        for i, site in enumerate(SITES):
            own, at = toml.parent / "participants" / f"p{i}.toml", folder / f"p{i}"
            join: list[str | Path] = [
                *inside(site),
                *TEQUIO,
                "join",
                hub / "invitations" / f"p{i}.json",
                own,
                "--yes",
                "--out",
                at,
            ]
            subprocess.run(join, check=True, capture_output=True)
            stay: list[str | Path] = [*inside(site), *TEQUIO, "participate", at, "--threads", "1"]
            one = subprocess.Popen(stay, stdout=stream, stderr=stream)
            stack.callback(one.wait)
            stack.callback(one.terminate)
        if main.wait():
            raise SystemExit(log.read_text())


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--delay", type=float, default=50.0, help="milliseconds each way")
    parser.add_argument("--loss", type=float, default=1.0, help="per cent of packets")
    parser.add_argument("--mbit", type=float, default=20.0)
    given = parser.parse_args()
    shape = Shape(given.delay / 1e3, given.loss / 100, given.mbit * 1e6)
    if why := impossible():
        print(f"Not measured: {why}.")
        return
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        toml = federation(folder, len(SITES), 40, given.rounds, 2)
        lines(stack, shape)
        print(f"lines: {shape}")
        before = [counted(i) for i, _ in enumerate(SITES, 1)]
        begun = time.monotonic()
        run(folder, toml, lambda space: ("ip", "netns", "exec", space), folder / "log")
        seconds = time.monotonic() - begun
        print(
            "seconds a round: "
            f"{', '.join(f'{s:.1f}' for s in between(folder / 'hub' / 'run' / 'ledger.sqlite'))}"
        )
        said = recorded(folder / "hub" / "run" / "ledger.sqlite")
        for i, _ in enumerate(SITES):
            after = counted(i + 1)
            both = sum(after.values()) - sum(before[i].values())
            print(f"p{i} both ways: ratio {both / sum(said[f'p{i}'].values()):.4f}")
            for way in ("down", "up"):
                kernel, ledger = after[way] - before[i][way], said[f"p{i}"][way]
                rest = (kernel - ledger) / seconds
                print(
                    f"p{i} {way:4}: kernel {kernel:,}, ledger {ledger:,} bytes: ratio "
                    f"{kernel / ledger:.3f} ({rest / 1e3:.1f} kB a second more, over "
                    f"{seconds:.0f} s)"
                )


if __name__ == "__main__":
    main()
