"""What tests of several folders build and read: tiny models, made texts, a run ready to go, its
rounds, and what its record holds.
"""

from __future__ import annotations

import json
import random
import socket
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from tequio.app.assembly.build import build
from tequio.app.assembly.setup import RunSetup
from tequio.config import load_federation
from tequio.coordinator.round import open_state, run_round
from tequio.coordinator.run_spec import RunSpec
from tequio.core.canonical import canonical_json
from tequio.core.errors import TequioError
from tequio.core.protocols import Runtime
from tequio.core.types import Failure, Reply, Request, State, TrainRequest
from tequio.ledger.chain import ZEROS, Entry, link
from tequio.ledger.record import Ledger, verify
from tequio.runtimes.embedded import Embedded

SUBJECTS = [
    "train",
    "flight",
    "nurse",
    "lesson",
    "machine",
    "ticket",
    "doctor",
    "pump",
    "class",
    "seat",
]
GOOD = ["great", "kind", "quick", "clean", "helpful", "calm"]
BAD = ["late", "rude", "slow", "dirty", "broken", "loud"]
FILLER = ["the", "was", "very", "today", "and", "again", "my", "our", "this", "really"]
WORDS = [*SUBJECTS, *GOOD, *BAD, *FILLER]
NEEDED: dict[str, Any] = {
    "name": "a",
    "base": {"model": "m"},
    "task": {"kind": "classification", "labels": ["a", "b"]},
    "adapter": {"modules": ["q"]},
    "participants": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
}
"""The keys that every federation.toml needs."""


# models and texts


def tokenizer() -> Any:
    """A word tokenizer over WORDS."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<unk>", "<eos>"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    raw = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>"
    )


def write_model(
    folder: Path,
    family: Literal["bert", "llama"],
    seed: int,
    width: int,
    layers: int,
    vocabulary: int = 40,
) -> Path:
    """A model of random weights and its tokenizer in this folder, two heads wide."""
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 64,
    }
    if family == "bert":
        BertModel(BertConfig(**sizes), add_pooling_layer=False).save_pretrained(folder)
    else:
        special = {
            "num_key_value_heads": 1,
            "pad_token_id": 0,
            "eos_token_id": 2,
            "bos_token_id": None,
        }
        LlamaForCausalLM(LlamaConfig(**sizes, **special)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def sentences(count: int, seed: int) -> list[dict[str, str]]:
    """Distinct sentences whose label follows from one word."""
    rng = random.Random(seed)
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < count:
        label = rng.choice(["good", "bad"])
        word = rng.choice(GOOD if label == "good" else BAD)
        words = [*rng.sample(FILLER, 4), rng.choice(SUBJECTS), word]
        rng.shuffle(words)
        rows[" ".join(words)] = {"text": " ".join(words), "label": label}
    return list(rows.values())


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> Path:
    """Rows as JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# runs and their rounds


def build_setup(path: Path) -> RunSetup:
    """The run of this federation.toml, ready to go."""
    return build(load_federation(path))


def recorded_rounds(
    run_spec: RunSpec, runtime: Runtime, count: int | None = None, state: State | None = None
) -> tuple[State, list[dict[str, Any]]]:
    """(the state after so many more rounds, what each recorded). count: to the last if None; state:
    the opening one if None.
    """
    state = state or open_state(run_spec, runtime)[0]
    bodies = []
    for _ in range(run_spec.rounds - state.round if count is None else count):
        state, body = run_round(state, run_spec, runtime)
        bodies.append(body)
    return state, bodies


def rounds(
    run_spec: RunSpec, runtime: Runtime, count: int | None = None, state: State | None = None
) -> State:
    """The state after so many more rounds: `recorded_rounds` without the record."""
    return recorded_rounds(run_spec, runtime, count, state)[0]


@dataclass(frozen=True)
class Altered:
    """A runtime in which one participant's updates are altered on their way."""

    inner: Runtime
    index: int
    alter: Callable[[Reply], Any]

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        for reply in self.inner.exchange(tasks):
            if isinstance(reply, Reply) and reply.index == self.index and carries_update(reply):
                yield self.alter(reply)
            else:
                yield reply


def carries_update(reply: Reply) -> bool:
    """Whether an update came with it, in any of its three forms."""
    return any(form is not None for form in (reply.update, reply.payload, reply.parts))


@dataclass(frozen=True)
class Shuffled:
    """A runtime that delivers replies in another order, and if asked one of them twice."""

    inner: Runtime
    seed: int
    twice: bool = False

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        replies = list(self.inner.exchange(tasks))
        replies += replies[:1] if self.twice else []
        random.Random(self.seed).shuffle(replies)
        yield from replies


@dataclass(frozen=True)
class Recording:
    """A runtime that keeps training tasks and replies."""

    inner: Embedded
    tasks: list[TrainRequest] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        for task in tasks:
            for reply in self.inner.exchange([task]):
                if isinstance(task, TrainRequest) and isinstance(reply, Reply):
                    self.tasks.append(task)
                    self.replies.append(reply)
                yield reply


def logits(w: RunSetup) -> Tensor:
    """What the first participant's model says of six of its validation texts."""
    items = w.nodes[1].data.validation[:6]
    longest = max(len(i.ids) for i in items)
    ids = torch.tensor([[*i.ids, *[0] * (longest - len(i.ids))] for i in items])
    with torch.inference_mode():
        return w.adapted.class_logits(ids, (ids != 0).long())


# records of a run


def records(run: Path) -> tuple[list[Entry], dict[str, list[Any]]]:
    """(all that the ledger in this folder holds in order, kind -> the bodies of that kind)."""
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        entries = list(ledger.entries())
    kinds: dict[str, list[Any]] = {}
    for entry in entries:
        kinds.setdefault(entry.kind, []).append(entry.body)
    return entries, kinds


def bodies(run: Path, kind: str) -> list[Any]:
    """The bodies of one kind, in order."""
    return records(run)[1].get(kind, [])


def digests(run: Path) -> dict[str, str]:
    """name -> digest of every personal model, of the shared one, and of that of each further
    base.
    """
    _, found = records(run)
    shared = found["shared"][-1]
    bases = {f"shared-{name}": body["digest"] for name, body in shared.get("bases", {}).items()}
    return {
        **{body["name"]: body["digest"] for body in found["personal"]},
        **bases,
        "shared": shared["digest"],
    }


# refusals


@contextmanager
def refused(
    kind: type[TequioError], code: str, /, **facts: Any
) -> Iterator[pytest.ExceptionInfo[TequioError]]:
    """Expect an error of this kind, with this code and at least these facts."""
    with pytest.raises(kind) as caught:
        yield caught
    reason = caught.value.reason
    assert reason is not None, f"no code: {caught.value}"
    assert reason.code == code, caught.value
    assert {name: reason.facts.get(name) for name in facts} == facts


# the machine


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def rewritten(run: Path, change: Callable[[str, dict[str, Any]], object]) -> None:
    """The same chain, as if its header had been another: every record is sealed again.

    `change` gets all bodies.
    """
    path = run / "ledger.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        rows = raw.execute("SELECT seq, kind, body FROM record ORDER BY seq").fetchall()
        triggers = raw.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall()
        state = raw.execute("SELECT state_seq FROM head").fetchone()[0]
        for name, _ in triggers:
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("DELETE FROM record")
        last = ZEROS
        for seq, kind, text in rows:
            body = json.loads(text)
            change(kind, body)
            entry = link(seq, kind, body, last)
            last = entry.hash
            raw.execute(
                "INSERT INTO record (seq, kind, body, previous, hash) VALUES (?, ?, ?, ?, ?)",
                (seq, kind, canonical_json(body).decode(), entry.previous, entry.hash),
            )
        raw.execute("UPDATE head SET seq = ?, hash = ?, state_seq = ?", (rows[-1][0], last, state))
        for _, sql in triggers:
            raw.execute(sql)
    assert verify(path).ok
