"""What a base can do besides the participants' task, on texts that neither training nor gate
has seen.

A decoder: mean next-token loss on kinds of public text. Three kinds (editorials, code, definitions)
have other halves that a method may see; no method sees films, products, the two kinds of chat or
the world's own `unseen` slices. An encoder has a new head, so what it had before are its
embeddings: the loss of a linear probe, fitted again on the model's embeddings, on the labels of
other worlds' public texts.
"""

from __future__ import annotations

import argparse
import csv
import inspect
import json.decoder
import random
import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import ModuleType
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.study.worlds import schools
from benchmarks.study.worlds.catalogue import make_world
from tequio.app.assembly.setup import RunSetup
from tequio.app.demos import fetch, manuals, sentiment
from tequio.config.cache import cache_folder
from tequio.core.update import Update
from tequio.participant.adapted_model import LOGIT_SCALE, embed
from tequio.participant.data import Example
from tequio.participant.personal import score
from tequio.participant.text_tasks import Causal, Item, by_length, pad

GIVEN = ("editorials", "code", "definitions")  # kinds whose other halves a method may see
FILES = {"editorials": "news", "films": "movies", "products": "products"}
CODE = ((textwrap, csv, statistics), (argparse, json.decoder))  # seen by a method, unseen
BLOCKS, PAIRS, SEEN = (
    8,
    40,
    120,
)  # blocks of each unseen kind, pairs of each kind of chat, and blocks that a method may see
UNSEEN = 200  # labelled texts of the world's own slices, an encoder's
PROBED, PROBES = 400, {"airlines": "sentiment", "schools": "subjects", "clinics": "diagnoses"}
DECAY = 1e-3  # of a probe's weights


T = TypeVar("T")


@dataclass(frozen=True)
class Probe:
    """Texts with classes of a task that nobody trains on: the first half fits a probe, the second
    is measured.
    """

    items: tuple[Item, ...]
    truth: Tensor


@dataclass(frozen=True)
class Ability:
    """Unseen texts by kind (decoder), probes by task (encoder), and items that a method may see."""

    unseen: Mapping[str, Sequence[Item]]
    probes: Mapping[str, Probe]
    seen: Sequence[Item]


def ability(world: str, seed: int, setup: RunSetup) -> Ability:
    """What is measured in this world. DataError where a package cannot be had."""
    if isinstance(setup.task, Causal):
        halves = public_texts(seed)
        unseen = {kind: spread(_items(setup, rows[1]), BLOCKS) for kind, rows in halves.items()}
        own = [
            Example(s.text, s.label)
            for rows in make_world(world, seed).unseen.values()
            for s in rows
        ]
        unseen |= {kind: setup.task.encode(pairs, kind)[0] for kind, pairs in chats(seed).items()}
        unseen["world"] = spread(setup.task.encode(own, "unseen")[0], BLOCKS)
        return Ability(unseen, {}, _items(setup, seen_texts(seed))[:SEEN])
    own_unseen = [
        Example(s.text, s.label) for rows in make_world(world, seed).unseen.values() for s in rows
    ]
    others = {
        name: probe(setup, other, seed) for other, name in PROBES.items() if other not in world
    }
    pages = manuals.pieces(
        [line for topic in manuals.python_topics() for line in topic.split("\n")]
    )
    cut = setup.adapted.base.tokenizer(
        spread(pages, 400), truncation=True, max_length=setup.task.max_tokens
    )
    seen = [Item(tuple(ids), (0,)) for ids in cut["input_ids"]]  # of no class
    return Ability(
        {"world": spread(setup.task.encode(own_unseen, "unseen")[0], UNSEEN)}, others, seen
    )


def probe(setup: RunSetup, world: str, seed: int) -> Probe:
    """The texts of another world's centre, balanced as they are there."""
    rows = (make_world(world, seed).centre or ())[: 2 * PROBED]
    classes = sorted({str(row.label) for row in rows})
    ids = setup.adapted.base.tokenizer(
        [row.text for row in rows], truncation=True, max_length=setup.task.max_tokens
    )
    items = tuple(Item(tuple(row), (0,)) for row in ids["input_ids"])
    return Probe(items, torch.tensor([classes.index(str(row.label)) for row in rows]))


def public_texts(seed: int) -> dict[str, tuple[list[str], list[str]]]:
    """Documents by kind: a half that a method may see (none of OTHER), and the unseen half."""
    cache = cache_folder()
    inner = fetch.unpack_member(
        fetch.fetch_sdist("vaderSentiment", "3.3.2", cache),
        sentiment.INNER,
        cache / "unpacked" / "hutto_ICWSM_2014.tar.gz",
    )
    out: dict[str, tuple[list[str], list[str]]] = {}
    for kind, name in FILES.items():
        file = sentiment.SLICES[name]
        table = fetch.unpack_member(
            inner, f"hutto_ICWSM_2014/{file}", cache / "unpacked" / file
        ).read_text("utf-8")
        rows = documents(table)
        out[kind] = (
            (rows[seed % 2 :: 2], rows[1 - seed % 2 :: 2]) if kind in GIVEN else ([], rows[seed::4])
        )
    out["code"] = (sources(CODE[0]), sources(CODE[1]))
    package = fetch.fetch_debian(schools.PACKAGE, cache, "worlds of schools")
    path = f"{schools.FOLDER}data.noun"
    nouns = list(schools.read(fetch.debian_files(package.path, [path])[path], "n"))
    lines = [f"{synset.word.replace('_', ' ')}: {synset.gloss}" for synset in nouns[seed::97]]
    out["definitions"] = (["\n".join(lines[0::2])], ["\n".join(lines[1::2])])
    return out


def chats(seed: int) -> dict[str, list[Example]]:
    """Questions and answers in the base's own chat form: what a word means, and sums of two
    numbers.
    """
    package = fetch.fetch_debian(schools.PACKAGE, cache_folder(), "worlds of schools")
    path = f"{schools.FOLDER}data.verb"
    verbs = list(schools.read(fetch.debian_files(package.path, [path])[path], "v"))[seed::331][
        :PAIRS
    ]
    meanings = [
        (f'What does "{v.word.replace("_", " ")}" mean?', f"{v.gloss.split(';')[0].capitalize()}.")
        for v in verbs
    ]
    draw = random.Random(seed)
    numbers = [(draw.randint(1, 49), draw.randint(1, 49)) for _ in range(PAIRS)]
    sums = [(f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}.") for a, b in numbers]
    return {"meanings": pairs(meanings), "sums": pairs(sums)}


def pairs(rows: Sequence[tuple[str, str]]) -> list[Example]:
    """Each as a prompt and its response."""
    return [Example(prompt, None, response) for prompt, response in rows]


def seen_texts(seed: int) -> list[str]:
    """Pieces of the kinds GIVEN, taken in turn, like what the base has read: what a method may
    see.
    """
    halves = public_texts(seed)
    cut = [
        manuals.pieces([line for text in halves[kind][0] for line in text.split("\n")])
        for kind in GIVEN
    ]
    return [piece for row in zip(*(rows[:60] for rows in cut), strict=False) for piece in row]


def documents(table: str) -> list[str]:
    """The snippets of a VADER table (number, rating, text), joined by the first part of their
    numbers.
    """
    cells = [line.split("\t", 2) for line in table.splitlines() if line.count("\t") >= 2]
    return [
        " ".join(c[2] for c in rows) for _, rows in groupby(cells, lambda c: c[0].split("_")[0])
    ]


def sources(modules: Iterable[ModuleType]) -> list[str]:
    """The source of modules of Python's standard library."""
    return [inspect.getsource(module) for module in modules]


def spread(items: Sequence[T], count: int) -> list[T]:
    """`count` items at equal distances."""
    return list(items[:: max(1, len(items) // count)][:count])


def losses(setup: RunSetup, model: Update, what: Ability) -> dict[str, float]:
    """The loss of base + `model` on each unseen kind, and of each probe."""
    people = setup.participants[0]
    found = {kind: score(people, model, items).scores().loss for kind, items in what.unseen.items()}
    setup.adapted.fold_in(model)
    return found | {name: probe_loss(setup, p) for name, p in what.probes.items()}


def probe_loss(setup: RunSetup, what: Probe) -> float:
    """Test loss of a logistic probe on the embeddings, fitted by L-BFGS."""
    base, features = setup.adapted.base, torch.zeros(len(what.items), setup.adapted.base.hidden)
    with base.looking():
        for where in by_length(what.items, 2048):
            ids, mask = pad(
                [what.items[i].ids for i in where], base.tokenizer.pad_token_id, base.device
            )
            features[where] = embed(base.model, ids, mask) * LOGIT_SCALE
    features = features.clone()
    half = len(features) // 2
    weight = torch.zeros(int(what.truth.max()) + 1, features.shape[1], requires_grad=True)
    bias = torch.zeros(len(weight), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (
            F.cross_entropy(F.linear(features[:half], weight, bias), what.truth[:half])
            + DECAY * weight.square().sum()
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return float(F.cross_entropy(F.linear(features[half:], weight, bias), what.truth[half:]))


def drift(setup: RunSetup, model: Update, items: Sequence[Item]) -> float:
    """KL(model ‖ base), nats a row of logits, on `items`."""
    total, count = 0.0, 0
    setup.adapted.fold_in(model)
    with torch.no_grad():
        for at in range(0, len(items), 4):
            now = F.log_softmax(setup.task.logits(setup.adapted, items[at : at + 4])[0].float(), -1)
            with setup.adapted.as_base():
                base = F.log_softmax(
                    setup.task.logits(setup.adapted, items[at : at + 4])[0].float(), -1
                )
            total += float(F.kl_div(base, now, reduction="sum", log_target=True))
            count += len(now)
    return total / count


def _items(setup: RunSetup, texts: Iterable[str]) -> list[Item]:
    return setup.task.encode([Example(text, None) for text in texts], "public text")[0]
