"""Make the old runs: `python tests/old_runs/make.py FOLDER`, where the package can be imported.

It uses nothing of the package but the command line, so it works at any commit. Every path in the
federation begins with /proc/self/cwd, the current folder of the process that reads it: the records
of a run hold paths, and so they stay right wherever the archives are unpacked.
"""

from __future__ import annotations

import json
import os
import platform
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

TEQUIO = [sys.executable, "-m", "tequio.cli.main"]
HERE = "/proc/self/cwd"
NAMES = ("site0", "site1", "site2")
ROUNDS, STOP_AT = 6, 3

FEDERATION = f"""name = "old"
seed = 7

[base]
model = "{HERE}/base"
dtype = "float32"
licence = "made for tests"

[task]
kind = "classification"
max_tokens = 16
labels = {{ good = "great kind helpful", bad = "rude broken dirty" }}

[adapter]
modules = ["query", "encoder.layer.0.intermediate.dense"]
ranks = [2, 8]

[train]
rounds = {ROUNDS}
batch_size = 8
learning_rate = 5e-3
final_rate = 0.3
max_steps = 4
patience = 9

[algorithm]
reduce = "rolora"
upload = "topk"
upload_settings = {{ density = 0.5 }}
feedback = 0.9

[centre]
data = "{HERE}/public/centre.jsonl"
federated_share = 0.7

[gate]
margin = 0.5
slices = {{ public = "{HERE}/public/slice.jsonl" }}

[personal]
local_rates = [5e-3]
private_rates = [2e-3]
private_rank = 2
private_epochs = 1.0
"""
ROSTER = '\n[[participants]]\nname = "{name}"\nfile = "{here}/participants/{name}.toml"\n'
PARTICIPANT = """name = "{name}"

[data]
path = "{here}/data/{name}.jsonl"

[hardware]
max_rank = {rank}
tdp_watts = 100.0

[energy]
country = "DE"
"""

SUBJECTS = ["train", "flight", "nurse", "lesson", "machine"]
SUBJECTS += ["ticket", "doctor", "pump", "class", "seat"]
GOOD = ["great", "kind", "quick", "clean", "helpful", "calm"]
BAD = ["late", "rude", "slow", "dirty", "broken", "loud"]
FILLER = ["the", "was", "very", "today", "and", "again", "my", "our", "this", "really"]


def write_base(folder: Path) -> None:
    """Write a one-layer BERT, 16 wide, with random weights and a word tokenizer."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["<pad>", "<unk>", "<eos>", *SUBJECTS, *GOOD, *BAD, *FILLER]
    raw = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = Whitespace()
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<eos>"}
    PreTrainedTokenizerFast(tokenizer_object=raw, **special).save_pretrained(folder)


def write_texts(path: Path, count: int, seed: int) -> None:
    """Write made-up sentences whose label follows from one word."""
    rng, rows = random.Random(seed), dict[str, str]()
    while len(rows) < count:
        label = rng.choice(["good", "bad"])
        judgement = rng.choice(GOOD if label == "good" else BAD)
        words = [*rng.sample(FILLER, 4), rng.choice(SUBJECTS), judgement]
        rng.shuffle(words)
        rows[" ".join(words)] = label
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"text": text, "label": label}) + "\n" for text, label in rows.items())
    path.write_text("".join(lines), encoding="utf-8")


def write_federation(root: Path) -> None:
    """Write the files from which all of the runs start."""
    write_base(root / "base")
    roster = "".join(ROSTER.format(name=name, here=HERE) for name in NAMES)
    (root / "federation.toml").write_text(FEDERATION + roster, encoding="utf-8")
    (root / "participants").mkdir()
    for i, name in enumerate(NAMES):
        write_texts(root / "data" / f"{name}.jsonl", 60, i)
        own = PARTICIPANT.format(name=name, here=HERE, rank=2 if i % 2 else 8)
        (root / "participants" / f"{name}.toml").write_text(own, encoding="utf-8")
    write_texts(root / "public" / "centre.jsonl", 60, 100)
    write_texts(root / "public" / "slice.jsonl", 30, 200)


def environment() -> dict[str, str]:
    """Return the environment of every command: one thread, the CPU, no hub."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


def tequio(root: Path, *words: str) -> str:
    """Run a command to its end in `root`, and return what it prints."""
    command = [*TEQUIO, *words]
    return subprocess.check_output(command, cwd=root, env=environment(), text=True)


@contextmanager
def background(root: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command beside others; it is interrupted where the block ends before it does."""
    with (root / "log").open("ab") as log:
        command = [*TEQUIO, *words]
        process = subprocess.Popen(command, cwd=root, env=environment(), stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def rounds(ledger: Path) -> int:
    """Return how many rounds the record has, 0 where it does not exist yet."""
    if not ledger.exists():
        return 0
    with suppress(sqlite3.OperationalError):
        connection = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
        try:
            query = "SELECT count(*) FROM record WHERE kind = 'round'"
            return int(connection.execute(query).fetchone()[0])
        finally:
            connection.close()
    return 0


def until(there: Callable[[], bool], seconds: float = 300.0) -> None:
    """Wait for something, and raise TimeoutError where it does not come."""
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            raise TimeoutError("A run of the fixtures did not come as far as it should.")
        time.sleep(0.01)


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_run(root: Path, cut: bool) -> None:
    """Make a run on one machine, whole or killed after STOP_AT rounds."""
    words = ["run", "federation.toml", "--out", "run", "--counterfactuals"]
    words += ["--threads", "1", "--workers", "1"]
    if not cut:
        tequio(root, *words)
        return
    with background(root, *words) as process:
        until(lambda: rounds(root / "run" / "ledger.sqlite") >= STOP_AT)
        process.send_signal(signal.SIGKILL)
        process.wait()


def make_network(root: Path, stop: bool) -> None:
    """Make a run across a network, whole or with its coordinator stopped after STOP_AT rounds."""
    address = f"127.0.0.1:{free_port()}"
    ledger = root / "hub" / "run" / "ledger.sqlite"
    tequio(root, "coordinator", "init", "hub", f"{HERE}/federation.toml", "--address", address)
    with ExitStack() as open_:
        started = background(root, "coordinator", "start", "hub", "--wait", "10", "--threads", "1")
        coordinator = open_.enter_context(started)
        until(lambda: "Listening" in (root / "log").read_text(encoding="utf-8"))
        for name in NAMES:
            own = f"{HERE}/participants/{name}.toml"
            tequio(root, "join", f"hub/invitations/{name}.json", own, "--out", name, "--yes")
        parts = [background(root, "participate", name, "--threads", "1") for name in NAMES]
        people = [open_.enter_context(part) for part in parts]
        if stop:
            until(lambda: rounds(ledger) >= STOP_AT)
            coordinator.send_signal(signal.SIGINT)
        coordinator.wait(300)
        if not stop:
            for person in people:
                person.wait(60)


def read(root: Path, record: str) -> dict[str, Any]:
    """Return what `tequio verify` and `tequio report` find in a record, as later commits must."""
    report = json.loads(tequio(root, "report", record, "--out", "report.html", "--json"))
    verify = json.loads(tequio(root, "verify", record, "--json"))
    return {"verify": verify, "mean": report["summary"]["mean"]}


def machine() -> dict[str, str]:
    """Return what the last bits of the numbers depend on."""
    import torch

    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "processor": found[1] if found else platform.machine(),
    }


def pack(root: Path, archive: Path, names: list[str]) -> None:
    """Put files and folders of `root` into an archive, as files of nobody in particular."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        return entry

    with tarfile.open(archive, "w:xz", preset=9) as tar:
        for name in names:
            tar.add(root / name, name, filter=plain)


def main(out: Path) -> None:
    """Make all four runs below `out`, and the archives in it."""
    federation = out / "federation"
    federation.mkdir(parents=True)
    write_federation(federation)
    files = sorted(path.name for path in federation.iterdir())
    records: dict[str, Any] = {}
    pack(federation, out / "federation.tar.xz", files)
    for name, network, cut in (
        ("finished", False, False),
        ("cut-off", False, True),
        ("network-finished", True, False),
        ("network-stopped", True, True),
    ):
        root = out / name
        with tarfile.open(out / "federation.tar.xz") as tar:
            tar.extractall(root, filter="tar")
        (make_network if network else make_run)(root, cut)
        made = rounds(root / ("hub/run" if network else "run") / "ledger.sqlite")
        if cut != (made < ROUNDS):
            raise SystemExit(f"{name} has {made} of {ROUNDS} rounds: run this again, elsewhere.")
        pack(root, out / f"{name}.tar.xz", ["hub", *NAMES] if network else ["run"])
        found = ["hub/run", *(f"{who}/run" for who in NAMES)] if network else ["run"]
        records[name] = {record: read(root, record) for record in found}
    commit = subprocess.check_output(["git", "describe", "--always", "--dirty"], text=True).strip()
    facts: dict[str, Any] = {"commit": commit, "python": platform.python_version()}
    facts |= {"machine": machine(), "records": records}
    (out / "made.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
