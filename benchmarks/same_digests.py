"""Does a change change the numbers? The same runs by two git revisions, model by model.

Each revision is checked out beside this one and makes the same runs with this Python and its
packages, one thread, on the CPU: the demos on one machine, and the sentiment demo with three
participants as processes of their own on loopback. Compared are the digests of the shared model
after each round, of the shared model that is delivered, and of each personal model. Nothing of the
package is imported, so modules may have other names in the two revisions: commands are given as a
user gives them, and digests are read from the ledger's SQLite file.

A checkpoint holds more than the shared model (momentum of the server, best round). Where the model
is equal and its checkpoint is not, the line says so.

Run: python -m benchmarks.same_digests [BASE [REVISION]] [--only heart] [--manuals] [--rounds 2]
Exit status 1 where a digest differs, 2 where a revision cannot make a run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUNS = ("sentiment", "heart", "network")
PARTICIPANTS = 3  # across the network
DEADLINE = 3600.0  # seconds for one command


class CannotRun(Exception):
    """A revision cannot make a run; the message is what it printed last."""


@dataclass(frozen=True)
class Digests:
    """Digests of one run's models by name, in order; and of the checkpoints of its rounds."""

    models: Mapping[str, str]
    checkpoints: Mapping[str, str]


@dataclass(frozen=True)
class Size:
    """How much of a demo is run: rounds, steps per round, rows per split; 0 leaves the demo's."""

    rounds: int
    steps: int
    rows: int


def read_digests(ledger: Path) -> Digests:
    """Read the digests of a finished or unfinished run."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT kind, body FROM record ORDER BY seq").fetchall()
    rounds, checkpoints, delivered = dict[str, str](), dict[str, str](), dict[str, str]()
    personal = dict[str, str]()
    for kind, text in rows:
        body = json.loads(text)
        if kind == "round":
            rounds[f"round {body['round']}"] = body["digest"]
            checkpoints[f"round {body['round']}"] = body["state_digest"]
        elif kind == "shared":
            delivered["shared model"] = body["digest"]
        elif kind == "personal":
            personal[f"model of {body['name']}"] = body["digest"]
    return Digests(rounds | delivered | dict(sorted(personal.items())), checkpoints)


def compare(run: str, before: Digests, after: Digests) -> tuple[list[str], int]:
    """Return one line per model, and how many of the models differ."""
    lines, differ = list[str](), 0
    for name in dict.fromkeys([*before.models, *after.models]):
        one, other = before.models.get(name, "missing"), after.models.get(name, "missing")
        differ += one != other
        words = f"equal      {one[:16]}" if one == other else f"different  {one[:16]} {other[:16]}"
        if one == other and before.checkpoints.get(name) != after.checkpoints.get(name):
            words += "  (the checkpoint differs beside the model)"
        lines.append(f"{run:<10} {name:<24} {words}")
    return lines, differ


def shorten(folder: Path, size: Size) -> None:
    """Cut a demo's files in `folder` to the wanted size."""
    toml = folder / "federation.toml"
    text = toml.read_text(encoding="utf-8")
    for key, value in (("rounds", size.rounds), ("max_steps", size.steps)):
        text = with_key(text, key, value) if value else text
    toml.write_text(text, encoding="utf-8")
    if size.rows:
        for path in (toml, *sorted((folder / "participants").glob("*.toml"))):
            path.write_text(capped(path.read_text(encoding="utf-8"), size.rows), encoding="utf-8")


def with_key(text: str, key: str, value: int) -> str:
    """Set a whole number in the table [train]."""
    head, found, rest = text.partition("[train]\n")
    if not found:
        raise CannotRun("federation.toml has no [train].")
    table, bracket, after = rest.partition("\n[")
    changed, times = re.subn(rf"(?m)^{key} = \d+$", f"{key} = {value}", table)
    return head + found + (changed if times else f"{key} = {value}\n{table}") + bracket + after


def capped(text: str, rows: int) -> str:
    """Let no split have more than `rows` rows."""
    key = r"(?m)^(max_(?:train|validation|test|examples)) = (\d+)$"
    return re.sub(key, lambda found: f"{found[1]} = {min(int(found[2]), rows)}", text)


class Tree:
    """A revision, checked out in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = os.pathsep.join((str(folder / "src"), str(folder)))
        quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "PASSIVE"}
        self.environment = {**os.environ, **quiet, "PYTHONPATH": paths}
        code = "import tequio; print(tequio.__file__)"
        command = [sys.executable, "-c", code]
        found = subprocess.check_output(command, cwd=folder, env=self.environment, text=True)
        if not Path(found.strip()).is_relative_to(folder):
            raise CannotRun(f"Python finds the package in {found.strip()}, not in {folder}.")

    def command(self, *words: str | Path) -> list[str]:
        """Return a command line of this revision."""
        return [sys.executable, "-m", "tequio.cli.main", *map(str, words)]

    def tequio(self, *words: str | Path) -> None:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
        )
        if done.returncode:
            raise CannotRun(f"tequio {' '.join(map(str, words))}\n{done.stdout[-2000:]}")

    @contextmanager
    def background(self, log: Path, *words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run a command beside others, ended with the block."""
        with log.open("wb") as stream:
            process = subprocess.Popen(
                self.command(*words),
                cwd=self.folder,
                env=self.environment,
                stdout=stream,
                stderr=stream,
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def made(self, run: str, out: Path, size: Size) -> Digests:
        """Make one of the runs below `out`."""
        if run == "network":
            return self.networked(out, size)
        self.tequio("demo", run, "--out", out / "demo", "--prepare")
        shorten(out / "demo", size)
        toml = out / "demo" / "federation.toml"
        self.tequio("run", toml, "--out", out / "run", "--threads", "1", "--workers", "1")
        return read_digests(out / "run" / "ledger.sqlite")

    def networked(self, out: Path, size: Size) -> Digests:
        """Make the run across a network: a coordinator and participants as processes."""
        demo, hub, log = out / "demo", out / "hub", out / "coordinator.log"
        few = ("--participants", str(PARTICIPANTS))
        self.tequio("demo", "sentiment", "--out", demo, "--prepare", *few)
        shorten(demo, size)
        address = f"127.0.0.1:{free_port()}"
        self.tequio("coordinator", "init", hub, demo / "federation.toml", "--address", address)
        with ExitStack() as running:
            started = self.background(log, "coordinator", "start", hub, "--threads", "1")
            coordinator = running.enter_context(started)
            end = time.monotonic() + DEADLINE
            while "Listening" not in log.read_text(encoding="utf-8"):
                if coordinator.poll() is not None or time.monotonic() > end:
                    raise CannotRun(log.read_text(encoding="utf-8")[-2000:])
                time.sleep(0.2)
            for file in sorted((demo / "participants").glob("*.toml")):
                name, invitation = file.stem, hub / "invitations" / f"{file.stem}.json"
                self.tequio("join", invitation, file, "--out", out / name, "--yes")
                own = (out / f"{name}.log", "participate", out / name, "--threads", "1")
                running.enter_context(self.background(*own))
            if coordinator.wait(DEADLINE):
                raise CannotRun(log.read_text(encoding="utf-8")[-2000:])
        return read_digests(hub / "run" / "ledger.sqlite")


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def git(*words: str | Path) -> str:
    """Run a git command in this repository, and return what it prints."""
    command = ["git", "-C", str(ROOT), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CannotRun(f"git {' '.join(map(str, words))}\n{done.stderr.strip()}")
    return done.stdout.strip()


@contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Tree]:
    """Check a revision out in `folder`, until the block ends."""
    git("worktree", "add", "--detach", folder, revision)
    try:
        yield Tree(folder)
    finally:
        git("worktree", "remove", "--force", folder)


def compare_revisions(revisions: Sequence[str], runs: Sequence[str], size: Size) -> int:
    """Make all runs by both revisions and print a line per model; return how many differ."""
    models = differ = 0
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory())).resolve()
        trees = [
            stack.enter_context(checked_out(revision, place / side))
            for revision, side in zip(revisions, ("before", "after"), strict=True)
        ]
        for run in runs:
            found = list[Digests]()
            for tree in trees:
                out = place / f"{run}-{tree.folder.name}"
                out.mkdir()
                found.append(tree.made(run, out, size))
            lines, more = compare(run, *found)
            print("\n".join(lines), flush=True)
            models, differ = models + len(lines), differ + more
    print(f"{differ} of {models} models differ between {' and '.join(revisions)}.")
    return differ


def main(words: Sequence[str] | None = None) -> int:
    """Read the command line, and return the exit status."""
    parser = argparse.ArgumentParser(description="Does a change change the numbers?")
    parser.add_argument("base", nargs="?", default="HEAD~1")
    parser.add_argument("revision", nargs="?", default="HEAD")
    parser.add_argument("--only", default=",".join(RUNS), help="Some of: sentiment,heart,network.")
    parser.add_argument("--manuals", action="store_true", help="Also the demo with a Llama.")
    parser.add_argument("--rounds", type=int, default=2, help="0: as many as the demo has.")
    parser.add_argument("--steps", type=int, default=4, help="Most steps per round; 0: no limit.")
    parser.add_argument("--rows", type=int, default=40, help="Most rows of a split; 0: all.")
    given = parser.parse_args(words)
    runs = [*given.only.split(","), *(["manuals"] if given.manuals else [])]
    if unknown := sorted(set(runs) - {*RUNS, "manuals"}):
        parser.error(f"--only {unknown[0]}: expected some of {','.join(RUNS)}")
    try:
        revisions = [git("rev-parse", "--short", name) for name in (given.base, given.revision)]
        if git("status", "--porcelain", "src"):
            print("Note: changes in src that are not committed take no part.", file=sys.stderr)
        size = Size(given.rounds, given.steps, given.rows)
        return 1 if compare_revisions(revisions, runs, size) else 0
    except CannotRun as error:
        print(f"Cannot compare: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the worktrees are removed
    raise SystemExit(main())
