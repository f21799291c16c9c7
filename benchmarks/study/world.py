"""The miniature world: eight organisations with real texts, unequal ranks, and one tiny base, built
from Tequio's own pieces.

Four domains are sections of the Spanish manual (1, 5, 7, 8), four are English reviews, editorials
and tweets. The centre has Spanish manual pages of other sections and other topics of Python's
manual; public slices are topics that neither base nor centre has read. Offline (`--quick`, tests)
all of them are topics of Python's manual and the base has hardly learnt: nothing is fetched, and
figures mean nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.study.base import LENGTH, STEPS, base_folder
from tequio.app.demos import fetch, manuals, sentiment
from tequio.app.demos.manuals import python_topics
from tequio.config.cache import cache_folder
from tequio.core.errors import DataError
from tequio.measure.energy import open_meter
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.base import load_base
from tequio.participant.data import Columns, Example, read_examples
from tequio.participant.node import Encoded, Node
from tequio.participant.splits import content_hash
from tequio.participant.text_tasks import Causal, Item

MANUALS = ("man1", "man5", "man7", "man8")
REVIEWS = ("movies", "products", "news", "tweets")
DOMAINS = tuple(name for pair in zip(MANUALS, REVIEWS, strict=True) for name in pair)
RANKS = (2, 2, 4, 4, 8, 8, 16, 16)
MODULES = ["q_proj", "v_proj", "up_proj", "down_proj"]
SCALE = 2.0
BATCH = 4  # blocks of LENGTH bytes
TEST, VALIDATION = 0.2, 0.2  # shares of the texts, by content hash
BYTES_PER_CALL = 4096  # of an evaluation
OFFLINE_STEPS = 40  # of the base


@dataclass(frozen=True)
class Size:
    """Blocks (of 64 bytes) of one participant's splits, and of the centre's training data and each
    public slice.
    """

    train: int
    validation: int = 32
    test: int = 64
    centre: int = 800
    public: int = 96


SCARCE = Size(train=64)
AMPLE = Size(train=800)


@dataclass(frozen=True)
class World:
    """What arms run on. nodes: 0 is the centre, 1… the participants; ranks and domains go by
    participant, in that order.
    """

    seed: int
    size: Size
    adapted: AdaptedModel
    nodes: dict[int, Node]
    domains: tuple[str, ...]
    ranks: tuple[int, ...]

    @property
    def participants(self) -> tuple[Node, ...]:
        """Nodes 1 and up."""
        return tuple(self.nodes[i] for i in sorted(self.nodes) if i > 0)

    @property
    def centre(self) -> Node:
        """Node 0: trains on public text, and holds the slices."""
        return self.nodes[0]


def ranks_of(seed: int, count: int = len(DOMAINS)) -> tuple[int, ...]:
    """Ranks by domain, turned by one pair a seed: over four seeds each domain has each rank once.

    A pair is a manual and a review, so in no seed does rank go with language.
    """
    turn = 2 * seed % len(RANKS)
    return (RANKS[turn:] + RANKS[:turn])[:count]


def make_world(
    seed: int, size: Size, domains: Sequence[str] = DOMAINS, offline: bool = False
) -> World:
    """The world of one seed. A domain named k times is dealt out among k participants.

    Raises DataError if texts run short.
    """
    base = load_base(
        str(base_folder(OFFLINE_STEPS if offline else STEPS)),
        "causal",
        torch.float32,
        cache_folder(),
    )
    adapted = AdaptedModel(base, MODULES, SCALE)
    task = Causal(base.tokenizer, LENGTH, BYTES_PER_CALL)
    texts = (offline_texts if offline else domain_texts)(set(domains))
    nodes: dict[int, Node] = {}
    blank = Node("", adapted, task, Encoded((), (), ()), BATCH, open_meter())
    for index, domain in enumerate(domains, start=1):
        share = [i for i, name in enumerate(domains, start=1) if name == domain]
        pool = _ordered(texts[domain], seed)[share.index(index) :: len(share)]
        name = domain if len(share) == 1 else f"{domain}-{share.index(index) + 1}"
        nodes[index] = replace(blank, name=name, data=_encoded(task, pool, size, name))
    centre, slices = offline_public() if offline else public_texts()
    blocks = _blocks(task, _ordered(centre, seed), size.centre, "centre")
    shown = {
        name: _blocks(task, _ordered(part, 0), size.public, name) for name, part in slices.items()
    }
    nodes[0] = replace(blank, name="centre", data=Encoded(blocks, (), ()), slices=shown)
    return World(seed, size, adapted, nodes, tuple(domains), ranks_of(seed, len(domains)))


def split(world: World) -> tuple[World, tuple[Node, ...]]:
    """The world without one pair of organisations (a manual and a review, another pair in each
    seed), and that pair.
    """
    first = 2 * world.seed % len(world.domains)
    out = (first, first + 1)
    stay = [k for k in range(len(world.domains)) if k not in out]
    nodes = {0: world.centre} | {i: world.participants[k] for i, k in enumerate(stay, start=1)}
    domains, ranks = tuple(world.domains[k] for k in stay), tuple(world.ranks[k] for k in stay)
    return replace(world, nodes=nodes, domains=domains, ranks=ranks), tuple(
        world.participants[k] for k in out
    )


def with_centre(world: World, english: bool) -> World:
    """The world with a centre of one language:

    English topics of Python's manual, or Spanish manual pages.
    """
    texts, _ = public_texts()
    topics = "\n".join(python_topics())
    chosen = [e for e in texts if (max(e.text.split("\n"), key=len) in topics) is english]
    task = world.centre.task
    if not isinstance(task, Causal):
        raise DataError("The study's tasks are causal.")
    blocks = _blocks(task, _ordered(chosen, world.seed), world.size.centre, "centre")
    centre = replace(world.centre, data=Encoded(blocks, (), ()))
    return replace(world, nodes=world.nodes | {0: centre})


def domain_texts(names: Iterable[str]) -> dict[str, list[Example]]:
    """All texts of each domain, fetched where they are not there yet."""
    out: dict[str, list[Example]] = {}
    wanted = set(names)
    if wanted & set(MANUALS):
        demo = manuals.prepare(cache_folder())
        out |= {p.name: _read(p.data) for p in demo.participants if p.name in wanted}
    for name in sorted(wanted & set(REVIEWS)):
        out[name] = [Example(sample.text) for sample in sentiment.rated(_table(name))]
    if missing := sorted(wanted - out.keys()):
        raise DataError(f"There is no domain {missing[0]!r}.", f"Known: {', '.join(DOMAINS)}.")
    return out


def public_texts() -> tuple[list[Example], dict[str, list[Example]]]:
    """(the centre's texts; slices:

    `english`, which the gate sees, and `unseen`, of the same kind, which it does not).
    """
    demo = manuals.prepare(cache_folder())
    if demo.centre is None:
        raise DataError("The manuals demo has no centre.", "", f"Delete the folder {demo.folder}.")
    pieces = _read(demo.slices["english"])
    halves = [[e for e in pieces if int(content_hash(e)[0], 16) % 2 == half] for half in (0, 1)]
    return _read(demo.centre), {"english": halves[0], "unseen": halves[1]}


def offline_texts(names: Iterable[str]) -> dict[str, list[Example]]:
    """Other paragraphs of Python's manual for each name."""
    lines = [
        Example(line)
        for page in python_topics()
        for line in page.split("\n\n")
        if len(line) > LENGTH
    ]
    order = sorted(names)
    return {name: lines[i :: len(order)] for i, name in enumerate(order)}


def offline_public() -> tuple[list[Example], dict[str, list[Example]]]:
    """As `public_texts`, in three parts of Python's manual."""
    texts = offline_texts(("centre", "english", "unseen"))
    return texts.pop("centre"), texts


def _read(path: Path) -> list[Example]:
    return read_examples(path, Columns(), "causal", (), path.stem)


def _table(name: str) -> str:
    cache, file = cache_folder(), sentiment.SLICES[name]
    package = fetch.fetch_sdist("vaderSentiment", "3.3.2", cache)
    inner = fetch.unpack_member(
        package, sentiment.INNER, cache / "unpacked" / "hutto_ICWSM_2014.tar.gz"
    )
    path = fetch.unpack_member(inner, f"hutto_ICWSM_2014/{file}", cache / "unpacked" / file)
    return path.read_text(encoding="utf-8")


def _ordered(texts: Iterable[Example], seed: int) -> list[Example]:
    """Different texts, in an order of this seed."""
    by_hash = {content_hash(e): e for e in texts if e.text.strip()}
    return [
        by_hash[key]
        for key in sorted(
            by_hash, key=lambda key: hashlib.sha256(f"{seed}/{key}".encode()).digest()
        )
    ]


def _encoded(task: Causal, pool: Sequence[Example], size: Size, who: str) -> Encoded:
    """Splits by content: a text is in the same one for every seed; a seed decides which texts are
    taken.
    """
    parts: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for example in pool:
        place = int(content_hash(example)[:16], 16) / 2**64
        parts[
            "test" if place < TEST else "validation" if place < TEST + VALIDATION else "train"
        ].append(example)
    blocks = [_blocks(task, parts[name], getattr(size, name), f"{who}, {name}") for name in parts]
    return Encoded(blocks[0], blocks[1], blocks[2])


def _blocks(task: Causal, texts: Sequence[Example], count: int, who: str) -> list[Item]:
    """The first `count` full blocks; texts are only read as far as needed."""
    enough, length = 0, 0
    for example in texts:
        if length >= count * task.max_tokens:
            break
        enough, length = enough + 1, length + len(example.text.encode()) + 1
    items, _ = task.encode(texts[:enough], who)
    full = [item for item in items if len(item.ids) == task.max_tokens]
    if len(full) < count:
        raise DataError(
            f"{who}: {len(full)} blocks of text,", f"{count} are needed.", "Ask for a smaller Size."
        )
    return full[:count]
