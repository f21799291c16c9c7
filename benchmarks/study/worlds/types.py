"""What a real world is made of, and how texts are made unique, dealt out among sites, and split."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tequio.app.demos.text import Sample, balanced, normalise, unique
from tequio.app.demos.types import Provenance

Samples = tuple[Sample, ...]
Base = Literal["minilm", "smollm2"]
TRAIN_SHARE, VALIDATION_SHARE = 0.45, 0.2  # at most, of a site that has few texts


@dataclass(frozen=True)
class Split:
    """The texts of one participant; an identical text is in one place of the whole world only."""

    train: Samples
    validation: Samples
    test: Samples

    def parts(self) -> dict[str, Samples]:
        """Return the three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclass(frozen=True)
class RealWorld:
    """A world as it was split for one seed. labels: label -> description, None if causal.

    slices: public texts that the gate sees. unseen: public texts that neither training nor gate
        sees.
    like: the demo whose settings (rates, rounds, gate) the world takes over.
    """

    name: str
    seed: int
    task: Literal["classification", "causal"]
    base: Base
    like: str
    labels: Mapping[str, str] | None
    participants: Mapping[str, Split]
    ranks: Mapping[str, int]
    centre: Samples | None
    slices: Mapping[str, Samples]
    unseen: Mapping[str, Samples]
    provenance: tuple[Provenance, ...]
    removed: Mapping[str, int] = field(default_factory=dict)

    def places(self) -> dict[str, Samples]:
        """Return every list of texts by the place where it stands; no text is in two of them."""
        places = {
            f"data/{name}/{part}": rows
            for name, split in self.participants.items()
            for part, rows in split.parts().items()
        }
        places |= {} if self.centre is None else {"centre": self.centre}
        places |= {f"slices/{name}": rows for name, rows in self.slices.items()}
        return places | {f"unseen/{name}": rows for name, rows in self.unseen.items()}


def ordered(samples: Iterable[Sample], seed: int, purpose: str) -> list[Sample]:
    """Order by sha256 of seed, purpose and normalised text: another order for each seed and
    purpose.

    Dealing and splitting need orders that are independent of each other, hence the purpose.
    """

    def key(sample: Sample) -> tuple[bytes, str, str]:
        content = f"{seed}\n{purpose}\n{normalise(sample.text)}"
        return hashlib.sha256(content.encode()).digest(), sample.text, sample.label or ""

    return sorted(samples, key=key)


def cut(samples: Sequence[Sample], seed: int, train: int, validation: int, test: int) -> Split:
    """Split into at most the given numbers of texts; a site with few gives at most its shares to
    training and validation.
    """
    rows = ordered(samples, seed, "split")
    first = min(train, int(len(rows) * TRAIN_SHARE))
    second = first + min(validation, int(len(rows) * VALIDATION_SHARE))
    return Split(
        tuple(rows[:first]), tuple(rows[first:second]), tuple(rows[second : second + test])
    )


def one_label(
    places: Mapping[str, Sequence[Sample]],
) -> tuple[dict[str, list[Sample]], dict[str, int]]:
    """Return each text once, as `unique` does, but none that comes with two labels; and how many
    each place lost.
    """
    labels: dict[str, set[str | None]] = {}
    for samples in places.values():
        for sample in samples:
            labels.setdefault(normalise(sample.text), set()).add(sample.label)
    clear = {
        place: [sample for sample in samples if len(labels[normalise(sample.text)]) == 1]
        for place, samples in places.items()
    }
    rows, repeated = unique(clear)
    lost = {place: repeated[place] + len(places[place]) - len(clear[place]) for place in places}
    return rows, lost


def halves(samples: Iterable[Sample], seed: int) -> tuple[Samples, Samples]:
    """Return two halves of different texts: one for the gate, one that is never seen."""
    rows = ordered(samples, seed, "halves")
    middle = len(rows) // 2
    return tuple(rows[:middle]), tuple(rows[middle:])


def deal(
    pools: Mapping[str, Sequence[Sample]],
    mixes: Mapping[str, Mapping[str, float]],
    total: int,
    seed: int,
) -> dict[str, list[Sample]]:
    """Deal the pools (by label) out among sites of at most `total` texts.

    No text goes to two sites.

    mixes: site -> the shares of its labels; what they leave is shared equally by the labels not
        named.
    Where all sites together want more of a label than there is, each gets the same part of its
    wish.
    """
    wishes: dict[str, dict[str, float]] = {}
    for site, mix in mixes.items():
        others = [label for label in pools if label not in mix]
        rest = (1.0 - sum(mix.values())) / max(1, len(others))
        wishes[site] = {label: total * mix.get(label, rest) for label in pools}
    sites: dict[str, list[Sample]] = {site: [] for site in mixes}
    for label, pool in pools.items():
        rows = ordered(pool, seed, f"deal {label}")
        wanted = sum(wishes[site][label] for site in sites)
        part = min(1.0, len(rows) / wanted) if wanted else 0.0
        end = 0.0
        for site, dealt in sites.items():
            begin, end = end, end + wishes[site][label] * part
            dealt += rows[round(begin) : round(end)]
    return sites


@dataclass(frozen=True)
class Public:
    """Public texts of a world: the centre's, a slice for the gate, and one that is never seen."""

    centre: Samples
    gate: Samples
    unseen: Samples


def set_aside(
    pools: Mapping[str, Sequence[Sample]], seed: int, share: float, most: tuple[int, int, int]
) -> tuple[Public, dict[str, list[Sample]]]:
    """Take a share of each label's pool as public texts, and return the rest of the pools too.

    Half goes to the centre, a fifth to the gate, three tenths are never seen; `most`: of each in
    all.
    """
    parts: tuple[list[Sample], list[Sample], list[Sample]] = ([], [], [])
    rest: dict[str, list[Sample]] = {}
    for label, pool in pools.items():
        rows = ordered(pool, seed, "public")
        end = int(len(rows) * share)
        first, second = int(end * 0.5), int(end * 0.7)
        parts[0].extend(rows[:first])
        parts[1].extend(rows[first:second])
        parts[2].extend(rows[second:end])
        rest[label] = rows[end:]
    centre, gate, unseen = (
        tuple(ordered(balanced(rows, limit), seed, "public order"))
        for rows, limit in zip(parts, most, strict=True)
    )
    return Public(centre, gate, unseen), rest


@dataclass(frozen=True)
class Sizes:
    """Texts of a site in all, and of its three splits, at most."""

    total: int
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Dealt:
    """What a world of dealt pools says of itself; slice: the name of its public texts."""

    name: str
    labels: Mapping[str, str]
    slice: str
    provenance: tuple[Provenance, ...]
    removed: Mapping[str, int]


def dealt_world(
    of: Dealt,
    seed: int,
    texts: tuple[Public, Mapping[str, Sequence[Sample]]],
    mixes: Mapping[str, Mapping[str, float]],
    ranks: Sequence[int],
    sizes: Sizes,
) -> RealWorld:
    """Deal the pools out among the sites of `mixes`, each with its rank, and split them. texts: as
    `set_aside` returns them.
    """
    public, rest = texts
    sites = deal(rest, mixes, sizes.total, seed)
    return RealWorld(
        name=of.name,
        seed=seed,
        task="classification",
        base="minilm",
        like="sentiment",
        labels=of.labels,
        participants={
            site: cut(rows, seed, sizes.train, sizes.validation, sizes.test)
            for site, rows in sites.items()
        },
        ranks=dict(zip(mixes, ranks, strict=True)),
        centre=public.centre,
        slices={of.slice: public.gate},
        unseen={of.slice: public.unseen},
        provenance=of.provenance,
        removed=of.removed,
    )
