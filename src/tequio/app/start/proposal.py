"""Propose a federation for what was found and for this machine: base, sizes of texts, rounds,
caps.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tequio.app.start.labels import words_of
from tequio.app.start.naming import plain_name
from tequio.app.start.survey import Participant, Survey
from tequio.config import Federation, validated
from tequio.config.cache import cache_folder
from tequio.core.errors import ResourceError
from tequio.core.texts.words import refusal

MODULES = "attention"  # the layers of every family that are adapted
# Multiplications of a run's training, at most. In bfloat16 on two AVX-512 cores 2.9e12 took 34 s of
# CPU (MiniLM, three
# tables of 120 rows), 1.2e13 took 128 s (SmolLM2-135M).
WORK = 1.2e13
LENGTHS = (
    32,
    64,
    128,
    256,
)  # tokens of a text, of which the smallest that holds nearly all is taken
HOLDS = 0.95
LEAST = 16  # training texts of a participant that a cap leaves at least
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "classification": {
        "train": {
            "rounds": 4,
            "local_epochs": 1.5,
            "batch_size": 8,
            "learning_rate": 6e-3,
            "final_rate": 0.1,
        },
        "personal": {
            "local_rates": [2e-3],
            "private_rates": [1e-3],
            "private_rank": 8,
            "private_epochs": 2.0,
            "checks": 4,
        },
    },
    "causal": {
        "train": {
            "rounds": 3,
            "local_epochs": 1.0,
            "batch_size": 4,
            "learning_rate": 1e-2,
            "final_rate": 0.3,
        },
        "personal": {
            "local_rates": [1e-2],
            "private_rates": [1e-2],
            "private_rank": 8,
            "private_epochs": 1.0,
            "checks": 3,
        },
    },
}


@dataclass(frozen=True)
class Proposal:
    """Hold the two kinds of files as tables, and what a person should know before agreeing.

    cut: participant -> share of its sampled texts that are longer than max_tokens.
    """

    federation: Mapping[str, Any]
    participants: tuple[Mapping[str, Any], ...]
    base: str
    memory_gib: float
    available_gib: float
    cut: Mapping[str, float]
    caps: Mapping[str, tuple[int, int]]
    notes: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """Return it as plain values."""
        task, train = self.federation["task"], self.federation["train"]
        return {
            "name": self.federation["name"],
            "base": self.base,
            "modules": self.federation["adapter"]["modules"],
            "task": task["kind"],
            "max_tokens": task["max_tokens"],
            "rounds": train["rounds"],
            "batch_size": train["batch_size"],
            "participants": [p["name"] for p in self.participants],
            "memory_gib": round(self.memory_gib, 2),
            "available_gib": round(self.available_gib, 2),
            "texts_cut_share": dict(self.cut),
            "training_texts_capped": {
                n: {"used": used, "of": of} for n, (used, of) in self.caps.items()
            },
            "notes": list(self.notes),
        }


def choose_base(kind: str, asked: str | None) -> tuple[str, str]:
    """Return the base model and its licence: as asked, else the small one that the demos use,
    fetched once.
    """
    if asked is not None:
        local = os.path.abspath(os.path.expanduser(asked))
        return (local if os.path.exists(local) else asked), "not stated"
    from tequio.app.demos.fetch import minilm, smollm2

    return str(
        minilm(cache_folder()) if kind == "classification" else smollm2(cache_folder())
    ), "Apache-2.0"


def propose(
    found: Survey, name: str, base: tuple[str, str], rounds: int | None = None, seed: int = 0
) -> Proposal:
    """Make the proposal.

    Raises BaseModelError for a base that cannot be used, ResourceError where memory is too small.
    """
    from tequio.participant.base import best_dtype, model_shape
    from tequio.participant.lengths import position_limit, token_lengths

    model, licence = base
    if not all(person.usable for person in found.participants):
        empty = next(person for person in found.participants if not person.usable)
        raise _nothing(empty)
    lengths = {p.name: token_lengths(model, p.sample, cache_folder()) for p in found.participants}
    tokens = _max_tokens(found.kind, [n for row in lengths.values() for n in row])
    tokens = min(tokens, position_limit(model, cache_folder()) or tokens)
    products = model_shape(model, found.kind, [MODULES], best_dtype(), cache_folder()).products
    settings = {key: dict(value) for key, value in SETTINGS[found.kind].items()}
    settings["train"]["rounds"] = rounds or settings["train"]["rounds"]
    federation: dict[str, Any] = {
        "name": plain_name(name, "federation"),
        "seed": seed,
        "base": {"model": model, "licence": licence, "dtype": "auto"},
        "task": {"kind": found.kind, "max_tokens": tokens},
        "adapter": {"modules": MODULES, "ranks": [2, 4, 8]},
        "train": {**settings["train"], "patience": 3},
        "personal": settings["personal"],
    }
    if found.labels:
        federation["task"]["labels"] = dict(words_of(found.labels)) or list(found.labels)
    federation, needed, available = _fitted(federation, [p.name for p in found.participants])
    tokens = federation["task"]["max_tokens"]
    caps = _caps(found, lengths, federation, products)
    foreign = sorted(
        {p.language for p in found.participants if p.language and p.language != "English"}
    )
    notes = []
    if foreign and found.kind == "classification" and not licence.startswith("not"):
        texts = " and ".join(foreign)
        notes.append(
            f"The base knows English; the texts are in {texts}. Consider --base with a "
            "multilingual model."
        )
    cut = {p.name: _cut(p, lengths[p.name], tokens) for p in found.participants}
    people = tuple(_file(p, caps.get(p.name)) for p in found.participants)
    return Proposal(
        federation, people, model, needed / 2**30, available / 2**30, cut, caps, tuple(notes)
    )


def _nothing(person: Participant) -> Exception:
    from tequio.core.errors import DataError

    return refusal(DataError, "nothing-to-learn", name=person.name, rows=person.report.rows)


def _max_tokens(kind: str, lengths: Sequence[int]) -> int:
    most = 128 if kind == "classification" else 256
    order = sorted(lengths)
    long = order[min(len(order) - 1, math.ceil(HOLDS * len(order)) - 1)] if order else most
    return next((size for size in LENGTHS if size >= long and size <= most), most)


def _cut(person: Participant, lengths: Sequence[int], most: int) -> float:
    """Return the share of texts that lose their end; a text without label or response is split
    instead.
    """
    lose = [e.label is not None or e.response is not None for e in person.sample]
    return round(
        sum(n > most and cut for n, cut in zip(lengths, lose, strict=True)) / len(lengths), 4
    )


def _fitted(federation: dict[str, Any], names: Sequence[str]) -> tuple[dict[str, Any], int, int]:
    """Return the federation with a batch and lengths of text that fit this machine's memory."""
    from tequio.app.assembly.algorithm import resolve_algorithm
    from tequio.app.assembly.memory import process_memory
    from tequio.planning.memory import available_bytes

    available = available_bytes(None)
    while True:
        whole = {**federation, "participants": [{"name": name} for name in names]}
        config = validated(whole, Federation, Path("federation.toml"))
        needed = process_memory(config, resolve_algorithm(config), len(names))
        if needed.total <= available:
            return federation, needed.total, available
        train, task = federation["train"], federation["task"]
        if train["batch_size"] > 2:
            federation = {**federation, "train": {**train, "batch_size": train["batch_size"] // 2}}
        elif task["max_tokens"] >= 2 * LENGTHS[0]:
            federation = {**federation, "task": {**task, "max_tokens": task["max_tokens"] // 2}}
        else:
            facts = {"need": needed.total / 2**30, "free": available / 2**30}
            raise refusal(ResourceError, "start-too-large", **facts)


def _caps(
    found: Survey,
    lengths: Mapping[str, Sequence[int]],
    federation: Mapping[str, Any],
    products: int,
) -> dict[str, tuple[int, int]]:
    """Return participant -> (training texts to use, of how many) where a cap keeps the run short.

    A training text costs three passes over the base's products per token, and it is seen in every
    epoch of the rounds, as often by the model trained alone, and by the private adapter.
    """
    train, personal = federation["train"], federation["personal"]
    alone = len(personal["local_rates"]) * (
        train["rounds"] * train["local_epochs"] + personal["private_epochs"]
    )
    epochs = (
        train["rounds"] * train["local_epochs"]
        + alone
        + len(personal["private_rates"]) * personal["private_epochs"]
    )
    each = WORK / len(found.participants)
    out = {}
    for person in found.participants:
        row = [min(n, federation["task"]["max_tokens"]) for n in lengths[person.name]]
        per_text = 3 * products * epochs * (sum(row) / len(row))
        most, have = max(LEAST, int(each / per_text)), round(0.6 * len(person.keys))
        if have > most:
            out[person.name] = (most, have)
    return out


def _file(person: Participant, cap: tuple[int, int] | None) -> dict[str, Any]:
    path = str(person.paths) if isinstance(person.paths, Path) else [str(p) for p in person.paths]
    data: dict[str, Any] = {"path": path, **person.shape.data}
    if cap is not None:
        data |= {
            "max_train": cap[0],
            "max_validation": max(LEAST, cap[0] // 2),
            "max_test": max(LEAST, cap[0]),
        }
    return {"name": person.name, "data": data}


def with_files(proposal: Proposal, files: Mapping[str, Path]) -> Proposal:
    """Return the proposal with each participant's data in the file that was written for it."""

    paths = {name: f"../data/{file.name}" for name, file in files.items()}
    caps = [
        {key: n for key, n in person["data"].items() if key.startswith("max_")}
        for person in proposal.participants
    ]
    people = tuple(
        {**person, "data": {"path": paths[person["name"]], **cap}}
        for person, cap in zip(proposal.participants, caps, strict=True)
    )
    return replace(proposal, participants=people)
