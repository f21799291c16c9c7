"""Do rounds go on, and does the run end the same, whatever is killed, paused or cut off while it
lasts?

A coordinator and three participants, each a process of its own, which are connected through a proxy
that breaks (`common/proxy.py`). One
fault after another, drawn by the seed: kill -9 and start again, or SIGSTOP for some seconds, of
    coordinator, SuperLink or a participant;
all connections reset; a line that swallows everything for a while. Printed after each: seconds
until two more rounds are recorded, from when the process was started again, or the line was whole.
In the end the outcome is compared with that of an undisturbed run in another folder. A round that
goes on without a participant trains another model, so the updates that were missed are printed
beside.

Targets: two rounds within about a minute of each fault; one outcome.

Run: python -m benchmarks.soak_kills [--faults 20] [--seed 1]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tequio.cli.environment import prepare_process

prepare_process()

from benchmarks.common.command import TEQUIO, tequio
from benchmarks.common.hub import free_port
from benchmarks.common.made import make_base, words
from benchmarks.common.proxy import Proxy
from tequio.config.templates import write_federation

NAMES = ("ana", "bea", "cid")
GIVE_UP = 600.0  # seconds without a round after which a run counts as stopped
BREAK = (
    1.0,
    15.0,
)  # seconds for which a process is paused or gone, or the line swallows everything
EACH = 6  # rounds of the run, per fault


@dataclass
class Process:
    """A command that is started again after a kill."""

    arguments: list[str]
    log: Path
    running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as stream:
            self.running = subprocess.Popen(
                [*TEQUIO, *self.arguments], stdout=stream, stderr=stream
            )

    def send(self, number: int) -> None:
        assert self.running is not None
        self.running.send_signal(number)
        if number == signal.SIGKILL:
            self.running.wait()

    def end(self) -> None:
        if self.running is not None and self.running.poll() is None:
            self.running.send_signal(signal.SIGCONT)
            self.send(signal.SIGKILL)


@dataclass
class Federation:
    """All of it: its folder, its line, its processes (the coordinator's under its role)."""

    folder: Path
    proxy: Proxy
    processes: dict[str, Process]

    @property
    def hub(self) -> Path:
        """The coordinator's folder."""
        return self.folder / "hub"

    def superlink(self) -> int:
        """SuperLink's process; 0 where there is none."""
        try:
            number = int((self.hub / "superlink" / "superlink.pid").read_text())
            return number if str(self.hub) in Path(f"/proc/{number}/cmdline").read_text() else 0
        except (OSError, ValueError):
            return 0

    def bodies(self, kind: str) -> list[str]:
        """The records of a kind, as JSON."""
        path = self.hub / "run" / "ledger.sqlite"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60.0)) as database:
            return [
                row[0]
                for row in database.execute("SELECT body FROM record WHERE kind = ?", (kind,))
            ]

    def rounds(self) -> int:
        """Rounds that are recorded."""
        return len(self.bodies("round"))

    def has(self, rounds: int) -> bool:
        """Return whether the record has that many rounds."""
        return self.rounds() >= rounds

    def missed(self) -> int:
        """Updates that did not count, over all rounds."""
        rows = [row for body in self.bodies("round") for row in json.loads(body)["admissions"]]
        return sum(row["status"] != "admitted" for row in rows)

    def finish(self) -> str:
        """Wait for the end of every process; returns the outcome."""
        for name, process in self.processes.items():
            assert process.running is not None
            if process.running.wait(GIVE_UP):
                raise SystemExit(f"{name} ended with an error: {process.log.read_text()[-2000:]}")
        found = json.loads(tequio("verify", self.hub / "run", "--json"))
        if not found["ok"]:
            raise SystemExit(f"The record is damaged: {found['problems']}")
        return str(found["outcome"])


def written(folder: Path, rounds: int) -> Path:
    """A federation of three over a tiny base and made-up words."""
    people = []
    for i, name in enumerate(NAMES):
        rows = [{"text": words(8, 1000 * i + k), "label": "ab"[k % 2]} for k in range(80)]
        path = folder / "data" / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        people.append(
            {"name": name, "data": {"path": str(path)}, "hardware": {"max_rank": 4, "probe": False}}
        )
    sections = {
        "name": "soak",
        "seed": 7,
        "base": {"model": str(make_base("tinybert", folder)), "dtype": "float32"},
        "task": {"kind": "classification", "max_tokens": 16, "labels": {"a": "good", "b": "bad"}},
        "adapter": {"modules": ["query", "value"], "ranks": [2, 4]},
        "train": {
            "rounds": rounds,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "max_steps": 4,
            "patience": rounds,
        },
        "personal": {"local_rates": [0.003]},
    }
    return write_federation(folder, sections, people)


@contextmanager
def federation(folder: Path, rounds: int) -> Iterator[Federation]:
    """Everybody joined and started, until the block ends."""
    folder.mkdir()
    toml, port, log = written(folder, rounds), free_port(), folder / "coordinator.log"
    options = ["--port", str(port), "--threads", "1"]
    proxy = Proxy(port)
    found = Federation(
        folder,
        proxy,
        {"coordinator": Process(["coordinator", "start", str(folder / "hub"), *options], log)},
    )
    try:
        tequio("coordinator", "init", found.hub, toml, "--address", f"127.0.0.1:{proxy.port}")
        found.processes["coordinator"].start()
        wait(lambda: "Listening" in log.read_text())
        for name in NAMES:
            own = toml.parent / "participants" / f"{name}.toml"
            tequio(
                "join",
                found.hub / "invitations" / f"{name}.json",
                own,
                "--out",
                folder / name,
                "--yes",
            )
            arguments = ["participate", str(folder / name), "--threads", "1"]
            found.processes[name] = Process(arguments, folder / f"{name}.log")
            found.processes[name].start()
        wait(lambda: found.rounds() >= 2)
        yield found
    finally:
        number = found.superlink()
        for process in found.processes.values():
            process.end()
        if number:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        proxy.close()


def wait(what: Callable[[], bool]) -> float:
    """Seconds until it is so."""
    began = time.monotonic()
    while not what():
        if time.monotonic() - began > GIVE_UP:
            raise SystemExit(f"Nothing happened for {GIVE_UP:.0f} s.")
        time.sleep(0.1)
    return time.monotonic() - began


def break_something(found: Federation, draw: random.Random) -> str:
    """One fault, and its end; returns its name."""
    what = draw.choice(("kill", "pause", "kill", "pause", "reset", "swallow"))
    victim, pause = draw.choice(("coordinator", "superlink", "participant")), draw.uniform(*BREAK)
    time.sleep(draw.uniform(0.0, 2.0))  # any moment of a round
    if what == "reset":
        for _ in range(draw.randint(1, 8)):
            found.proxy.reset()
            time.sleep(draw.uniform(0.0, 1.0))
        return "connections reset"
    if what == "swallow":
        found.proxy.stop()
        time.sleep(pause)
        found.proxy.resume()
        return f"line silent for {pause:.0f} s"
    name = draw.choice(NAMES) if victim == "participant" else victim
    process = found.processes.get(name)
    number = (
        found.superlink() if process is None or process.running is None else process.running.pid
    )
    with suppress(ProcessLookupError):
        os.kill(number, signal.SIGKILL if what == "kill" else signal.SIGSTOP) if number else None
    if what == "kill" and process is None:
        return "SuperLink killed"
    time.sleep(pause)
    if what == "pause":
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGCONT) if number else None
        return f"{victim} paused for {pause:.0f} s"
    assert process is not None
    assert process.running is not None
    process.running.wait()
    process.start()
    return f"{victim} killed, started again after {pause:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    draw, rounds, took = random.Random(options.seed), EACH * options.faults + 10, list[float]()
    with tempfile.TemporaryDirectory() as name:
        with federation(Path(name) / "undisturbed", rounds) as plain:
            expected = plain.finish()
            print(
                f"undisturbed: {plain.rounds()} rounds, {plain.missed()} updates missed, outcome "
                f"{expected[:16]}",
                flush=True,
            )
        with federation(Path(name) / "disturbed", rounds) as broken:
            while len(took) < options.faults and broken.rounds() < rounds - 4:
                what = break_something(broken, draw)
                wanted = min(broken.rounds() + 2, rounds)
                took.append(wait(partial(broken.has, wanted)))
                print(f"{len(took):3} {what}: two rounds after {took[-1]:.1f} s", flush=True)
            outcome, missed = broken.finish(), broken.missed()
            missing = len(broken.bodies("missing"))
    within = sum(seconds <= 60.0 for seconds in took)
    print(
        f"{len(took)} faults: {within} with two rounds within 60 s; median "
        f"{statistics.median(took):.1f} s, longest {max(took):.1f} s"
    )
    print(
        f"outcome {'the same' if outcome == expected else 'ANOTHER'}; {missed} updates missed, "
        f"{missing} records of missing models"
    )


if __name__ == "__main__":
    main()
