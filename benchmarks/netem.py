"""Does the ledger say what the wire carried? Bytes that the kernel counted on each participant's line ÷ bytes that the ledger has for it.

A coordinator and two participants, each in a network namespace of its own, joined by virtual Ethernet of 20 Mbit/s; with the kernel's netem
also 50 ms each way and 1 % loss, else (it is said) without. The ledger counts what passes the door, the kernel also
TLS, TCP and what is below. Target: within 3 %. Needs root and iproute2 (Linux).

Run: python -m benchmarks.netem [--rounds 6]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from tequio.cli.process import prepare_process

prepare_process()

from benchmarks.overhead import federation
from tequio.ledger.record import Ledger

TEQUIO = (sys.executable, "-m", "tequio.cli.main")
HUB, SITES = "tequio-hub", ("tequio-a", "tequio-b")
ADDRESS, PORT = "10.77.0.1", 9443
NETEM = ("netem", "delay", "50ms", "loss", "1%", "rate", "20mbit")
PLAIN = ("tbf", "rate", "20mbit", "burst", "256kb", "latency", "400ms")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def impossible() -> str:
    """Why this cannot be measured here; empty if it can."""
    if os.geteuid() != 0:
        return "it needs root"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "it needs iproute2 (ip and tc)"
    try:
        ip("netns", "add", "tequio-try")
        ip("netns", "del", "tequio-try")
    except subprocess.CalledProcessError as error:
        return f"no network namespace can be made ({error.stderr.strip()})"
    return ""


def shaped(namespace: str, line: str) -> str:
    """Make a line slow (and lossy, where the kernel can); how."""
    said = ""
    for how in (NETEM, PLAIN):
        done = subprocess.run(
            ["tc", "-n", namespace, "qdisc", "add", "dev", line, "root", *how], capture_output=True, text=True
        )
        if done.returncode == 0:
            return " ".join(how) + said
        said = f" (netem: {done.stderr.strip()})"
    return f"as it is{said}"


def lines(stack: ExitStack) -> str:
    """Three namespaces, and a line from the hub to each site; how they are shaped."""
    for name in (HUB, *SITES):
        ip("netns", "add", name)
        stack.callback(ip, "netns", "del", name)
        ip("-n", name, "link", "set", "lo", "up")
    ip("-n", HUB, "addr", "add", f"{ADDRESS}/32", "dev", "lo")
    how = ""
    for i, site in enumerate(SITES, 1):
        ip("link", "add", f"tqh{i}", "netns", HUB, "type", "veth", "peer", "name", "tqs", "netns", site)
        for name, line, host in ((HUB, f"tqh{i}", 1), (site, "tqs", 2)):
            ip("-n", name, "addr", "add", f"10.77.{i}.{host}/24", "dev", line)
            ip("-n", name, "link", "set", line, "up")
            how = shaped(name, line)
        ip("-n", site, "route", "add", ADDRESS, "via", f"10.77.{i}.1")
    return how


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


def run(folder: Path, toml: Path, inside: Callable[[str], tuple[str, ...]], log: Path) -> None:
    """The whole federation, to its end."""
    hub = folder / "hub"
    init: list[str | Path] = [*TEQUIO, "coordinator", "init", hub, toml, "--address", f"{ADDRESS}:{PORT}"]
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
    rounds = parser.parse_args().rounds
    if why := impossible():
        print(f"Not measured: {why}.")
        return
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        toml = federation(folder, len(SITES), 40, rounds, 2)
        print(f"lines: {lines(stack)}")
        before = [counted(i) for i, _ in enumerate(SITES, 1)]
        begun = time.monotonic()
        run(folder, toml, lambda space: ("ip", "netns", "exec", space), folder / "log")
        seconds = time.monotonic() - begun
        said = recorded(folder / "hub" / "run" / "ledger.sqlite")
        for i, _ in enumerate(SITES):
            after = counted(i + 1)
            for way in ("down", "up"):
                kernel, ledger = after[way] - before[i][way], said[f"p{i}"][way]
                rest = (kernel - ledger) / seconds
                print(
                    f"p{i} {way:4}: kernel {kernel:,}, ledger {ledger:,} bytes: ratio {kernel / ledger:.3f}"
                    f" ({rest / 1e3:.1f} kB a second more, over {seconds:.0f} s)"
                )


if __name__ == "__main__":
    main()
