"""Does a coordinator live through hostile messages? 10,000 mutated ones against its reader, then 60
enrolled participants, each hostile
in a way of its own, and two honest ones against a real coordinator process, which is stopped after
the first round and started again.

Printed: messages and how many were refused, peak memory of reading them, processes that ended
before their time, rounds, growth of log and disk, and whether report, status and accounts work
afterwards. Targets: every message is a reply or the one named error; no process ends; log under 2
MB, disk under 20 MB; the honest participants' updates and personal models are recorded.

Run: python -m benchmarks.soak_messages [--messages 10000] [--modes 60] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from tequio.cli.environment import prepare_process

prepare_process()

import torch

from benchmarks.common.command import TEQUIO, tequio
from benchmarks.common.hostile import MODES, Mode, stage_of
from benchmarks.common.hub import free_port
from benchmarks.common.made import tokenizer, words
from benchmarks.common.mutations import mutated
from benchmarks.common.replies import answered, description, personal_outcome
from tequio.app.assembly.build import build
from tequio.app.network.participant.join import (
    join_federation,
    prepare,
    read_authority,
    read_identity,
)
from tequio.config import load_federation
from tequio.config.templates import write_federation
from tequio.core.errors import MessageError
from tequio.core.messages import REQUESTS, pack_message, unpack_message
from tequio.core.replies import read_description, read_personal_outcome, read_reply
from tequio.core.types import (
    DescribeRequest,
    EvaluateRequest,
    Failure,
    PersonaliseRequest,
    Reply,
    Request,
    TrainRequest,
)
from tequio.core.update import zero
from tequio.ledger.record import Ledger, verify
from tequio.runtimes.embedded import Embedded
from tequio.runtimes.flower.client import Identity, serve
from tequio.trust.keys import load_key

HONEST = ("site0", "site1")


def read_mutated(count: int) -> None:
    """Read `count` mutated replies; any error but the named one ends this script."""
    held, rng = zero("spec"), random.Random(1)
    tasks: list[Request] = [
        DescribeRequest(1, 1, "site0"),
        TrainRequest(1, 1, "site0", "product", 2, 4, 1e-3, 1, held),
        EvaluateRequest(1, 1, "site0", held),
        PersonaliseRequest(1, 1, "site0", held, 2, 4),
    ]
    refused, slowest, begun = 0, 0.0, time.process_time()
    good = [pack_message(answered(task)) for task in tasks]
    tracemalloc.start()
    for number in range(count):
        task, before = tasks[number % 4], time.process_time()
        found = read_reply(mutated(good[number % 4], rng), task, 1 << 30)
        try:
            if isinstance(found, Reply) and isinstance(task, DescribeRequest):
                read_description(found)
            elif isinstance(found, Reply) and isinstance(task, PersonaliseRequest):
                read_personal_outcome(found, {})
            refused += isinstance(found, Failure)
        except MessageError:
            refused += 1
        slowest = max(slowest, time.process_time() - before)
    peak = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    spent = time.process_time() - begun
    print(
        f"{count} mutated messages: {refused} refused by name, {count - refused} valid, 0 other "
        "errors"
    )
    print(
        f"  {spent:.0f} s of CPU with making them, the slowest {slowest:.2f} s; peak of Python's "
        f"memory {peak:.0f} MB"
    )


def federation(root: Path, names: list[str], rounds: int) -> Path:
    """A tiny base; everybody has the same made-up texts."""
    from transformers import BertConfig, BertModel

    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=400, **sizes), add_pooling_layer=False).save_pretrained(
        root / "base"
    )
    tokenizer(400).save_pretrained(root / "base")
    rows = [{"text": words(8, seed), "label": "ab"[seed % 2]} for seed in range(60)]
    (root / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {
        "rounds": rounds,
        "patience": 99,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "max_steps": 2,
        "quorum": 2,
    }
    table: dict[str, Any] = {
        "name": "soak",
        "seed": 7,
        "base": {"model": str(root / "base"), "dtype": "float32", "licence": "test"},
        "task": {"kind": "classification", "max_tokens": 16, "labels": ["a", "b"]},
        "adapter": {"modules": ["query"], "ranks": [2]},
        "train": train,
        "personal": {
            "local_rates": [1e-3],
            "private_rates": [1e-3],
            "private_rank": 2,
            "private_epochs": 1.0,
        },
    }
    people = [
        {"name": n, "data": {"path": str(root / "data.jsonl")}, "hardware": {"max_rank": 2}}
        for n in names
    ]
    return write_federation(root / "fed", table, people, {})


@dataclass
class Crowd:
    """All participants, in this process: what they train with, and who is hostile how."""

    nodes: Any
    spec: str
    modes: dict[str, Mode]
    sent: int = 0
    stop: Event = field(default_factory=Event)
    lock: Lock = field(default_factory=Lock)

    def answer(self, data: bytes) -> bytes:
        """What one of them answers."""
        asked: Any = unpack_message(data, "a task", REQUESTS)
        mode = self.modes.get(asked.name)
        with self.lock:
            reply = self._honest(asked)
            if mode is None or not isinstance(reply, Reply) or mode.stage != stage_of(asked):
                return pack_message(reply)
            self.sent += 1
            return mode.alter(reply)

    def _honest(self, asked: Request) -> Reply | Failure:
        node = self.nodes[asked.index]
        sizes = {split: len(getattr(node.data, split)) for split in ("train", "validation", "test")}
        if isinstance(asked, DescribeRequest | PersonaliseRequest):
            about = description(self.spec, sizes)
            if isinstance(asked, PersonaliseRequest):
                about = personal_outcome(asked.name, sizes["test"], sizes["validation"])
            return Reply(asked.round, asked.index, asked.name, body=json.dumps(about))
        (reply,) = Embedded({asked.index: node}).exchange([asked])
        return reply

    def join(self, folder: Path, hub: Path, toml: Path, name: str) -> Thread:
        """Enrol one, and start its loop."""
        ready = prepare(
            hub / "invitations" / f"{name}.json", toml.parent / "participants" / f"{name}.toml"
        )
        own = join_federation(ready, folder / name)
        identity = read_identity(own)
        authority, key = (
            read_authority(own).encode(),
            load_key(own / identity.get("key", "key.pem")),
        )
        who = Identity(identity["address"], authority, key, int(identity["node"]), own)
        thread = Thread(
            target=serve, args=(who, self.answer, self.stop, lambda *_, **__: None), daemon=True
        )
        thread.start()
        return thread


def until(
    what: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 1800.0
) -> None:
    """Wait; a coordinator that ends meanwhile ends this script."""
    end = time.monotonic() + seconds
    while not what():
        if process.poll() is not None:
            raise SystemExit(f"The coordinator ended with {process.returncode}.")
        if time.monotonic() > end:
            raise SystemExit("It took too long.")
        time.sleep(0.3)


def live_through(folder: Path, modes: list[Mode], rounds: int) -> None:
    """A real coordinator process with these participants, started twice."""
    hostile = {f"site{i}": mode for i, mode in enumerate(modes, 2)}
    names = [*HONEST, *hostile]
    toml, hub, log = federation(folder, names, rounds), folder / "hub", folder / "coordinator.log"
    setup = build(load_federation(toml))
    crowd = Crowd(setup.nodes, setup.run_spec.spec, hostile)
    tequio("coordinator", "init", hub, toml, "--address", f"127.0.0.1:{free_port()}")
    command = [
        *TEQUIO,
        "coordinator",
        "start",
        str(hub),
        "--threads",
        "1",
        "--grace",
        "0",
        "--wait",
        "30",
    ]
    ledger, ended = hub / "run" / "ledger.sqlite", 0

    def started(stack: ExitStack) -> subprocess.Popen[bytes]:
        stream = stack.enter_context(log.open("ab"))
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
        stack.callback(process.wait)
        stack.callback(process.kill)
        return process

    with ExitStack() as stack:
        coordinator = started(stack)
        until(lambda: "Listening" in log.read_text(errors="replace"), coordinator)
        threads = [crowd.join(folder, hub, toml, name) for name in names]
        until(lambda: ledger.exists() and "round" in _kinds(ledger), coordinator)
        coordinator.send_signal(signal.SIGTERM)
        coordinator.wait(120)
        coordinator = started(stack)
        coordinator.wait(1800)
        ended = int(coordinator.returncode != 0)
        crowd.stop.set()
        for thread in threads:
            thread.join(60)
    with Ledger.open(ledger, read_only=True) as opened:
        entries = list(opened.entries())
    made = [entry.body for entry in entries if entry.kind == "round"]
    personal = {entry.body["name"] for entry in entries if entry.kind == "personal"}
    counted = all({row["name"] for row in body["train"]} >= set(HONEST) for body in made)
    print(
        f"{len(modes)} hostile participants, {crowd.sent} hostile replies to a real coordinator, "
        "started twice"
    )
    print(f"  coordinator processes that ended before their time: {ended}")
    print(f"  {len(made)} of {rounds} rounds; honest updates in each: {counted}; ", end="")
    print(
        f"honest personal models: {len(personal & set(HONEST))} of {len(HONEST)}; ledger verifies: "
        f"{verify(ledger).ok}"
    )
    for what, where in (("status", hub), ("accounts", hub / "run"), ("report", hub / "run")):
        tequio(what, where)
    disk = sum(path.stat().st_size for path in hub.rglob("*") if path.is_file())
    print("  status, accounts and report: ok")
    print(
        f"  log {log.stat().st_size / 1e3:.0f} kB, ledger {ledger.stat().st_size / 1e3:.0f} kB, ",
        end="",
    )
    print(f"the coordinator's whole folder {disk / 1e6:.1f} MB")
    if ended or not counted or not set(HONEST) <= personal:
        raise SystemExit(log.read_text(errors="replace")[-3000:])


def _kinds(ledger: Path) -> set[str]:
    with Ledger.open(ledger, read_only=True) as opened:
        return {entry.kind for entry in opened.entries()}


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--modes", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    read_mutated(options.messages)
    count = min(options.modes, len(MODES))
    modes = [MODES[i * len(MODES) // count] for i in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        live_through(Path(folder), modes, options.rounds)


if __name__ == "__main__":
    main()
