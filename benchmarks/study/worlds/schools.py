"""Worlds `schools` and `schools-disjoint`: definition -> subject, in five schools, from WordNet's
topic pointers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.study.worlds.types import Dealt, RealWorld, Sizes, dealt_world, one_label, set_aside
from tequio.app.demos import fetch
from tequio.app.demos.text import Sample
from tequio.app.demos.types import Provenance

NAME, DISJOINT = "schools", "schools-disjoint"
PACKAGE = "wordnet-base"
FOLDER = "usr/share/wordnet/"
KINDS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
TOPIC = ";c"  # the pointer from a synset to the topic it belongs to
TRAIN, VALIDATION, TEST = 100, 30, 1500
PER_SITE, PER_SITE_DISJOINT = 520, 700
PUBLIC_SHARE, PUBLIC = 0.15, (250, 100, 150)  # centre, gate, unseen
SHORTEST = 26  # characters
SUBJECTS = {  # label: (its description, the topics of WordNet that count as it)
    "physics": (
        "physics and astronomy: forces, energy, particles, stars",
        "physics astronomy electronics optics electricity cosmology particle_physics "
        "thermodynamics meteorology",
    ),
    "chemistry": (
        "chemistry: elements, compounds, reactions",
        "chemistry physical_chemistry biochemistry metallurgy crystallography",
    ),
    "biology": (
        "biology: living things, plants, animals, the body, genes",
        "biology botany genetics anatomy zoology physiology plant animal mammal ecology medicine "
        "pathology",
    ),
    "mathematics": (
        "mathematics: numbers, geometry, statistics, logic",
        "mathematics statistics geometry arithmetic logic",
    ),
    "computing": (
        "computing: computers, programs, data, networks",
        "computer_science computer programming telecommunication",
    ),
    "music and art": (
        "music and art: instruments, painting, architecture, theatre",
        "music art architecture performing_arts photography dancing ballet dramaturgy fine_arts "
        "drama",
    ),
    "law": (
        "law: courts, contracts, crimes, rights",
        "law criminal_law contract civil_law Roman_law",
    ),
    "geology": (
        "the earth: rocks, minerals, mines, seas and rivers",
        "geology mineralogy mining seafaring navigation river lake",
    ),
    "language": (
        "language: grammar, words, sounds, writing and verse",
        "grammar linguistics phonetics rhetoric prosody language writing literature poetry",
    ),
    "sport": (
        "sport: games, teams, players, rules and scores",
        "sport baseball golf football American_football basketball boxing tennis cricket soccer "
        "ice_hockey badminton",
    ),
}
LABELS = {label: description for label, (description, _) in SUBJECTS.items()}
MIXES: dict[str, dict[str, float]] = {
    "science-school": {"physics": 0.3, "chemistry": 0.3, "mathematics": 0.2},
    "music-school": {"music and art": 0.6},
    "law-school": {"law": 0.7},
    "technical-school": {"computing": 0.4, "mathematics": 0.2},
    "general-school": {},
}
OWN = {  # the subjects that no other school has
    "science-school": ("physics", "chemistry"),
    "nature-school": ("biology", "geology"),
    "technical-school": ("mathematics", "computing"),
    "law-school": ("law", "language"),
    "arts-and-sport-school": ("music and art", "sport"),
}
RANKS = (16, 4, 8, 2, 8)


@dataclass(frozen=True)
class Synset:
    """One line of a WordNet data file: its first word, its gloss, and the synsets of its topics."""

    key: str
    word: str
    gloss: str
    topics: tuple[str, ...]


def prepare(cache: Path, seed: int = 0) -> RealWorld:
    """Fetch and split the world of five schools with unequal shares of all subjects.

    DataError without apt.
    """
    return _prepare(NAME, MIXES, PER_SITE, cache, seed)


def prepare_disjoint(cache: Path, seed: int = 0) -> RealWorld:
    """Fetch and split the same definitions among five schools, of which each has two subjects of
    its own.
    """
    mixes = {
        site: {label: (1.0 / len(own) if label in own else 0.0) for label in SUBJECTS}
        for site, own in OWN.items()
    }
    return _prepare(DISJOINT, mixes, PER_SITE_DISJOINT, cache, seed)


def _prepare(
    name: str, mixes: Mapping[str, Mapping[str, float]], total: int, cache: Path, seed: int
) -> RealWorld:
    package = fetch.fetch_debian(PACKAGE, cache, "worlds of schools")
    files = fetch.debian_files(package.path, [f"{FOLDER}data.{kind}" for kind in KINDS])
    pools, removed = one_label(definitions(files))
    sizes = Sizes(total, TRAIN, VALIDATION, TEST)
    parts = Dealt(name, LABELS, "all-subjects", provenance(package), removed)
    return dealt_world(
        parts, seed, set_aside(pools, seed, PUBLIC_SHARE, PUBLIC), mixes, RANKS, sizes
    )


def definitions(files: Mapping[str, str]) -> dict[str, list[Sample]]:
    """Return the definitions of each subject, of data files by path (`.../data.noun`, ...).

    What stands in round brackets is taken out, since it often names the subject.
    """
    synsets = [
        s for path, text in sorted(files.items()) for s in read(text, KINDS[path.rsplit(".", 1)[1]])
    ]
    words = {synset.key: synset.word for synset in synsets}
    subject = {topic: label for label, (_, topics) in SUBJECTS.items() for topic in topics.split()}
    pools: dict[str, list[Sample]] = {label: [] for label in SUBJECTS}
    for synset in synsets:
        text = " ".join(re.sub(r"\([^)]*\)\s*", "", synset.gloss).split())
        for label in {subject.get(words.get(topic, "")) for topic in synset.topics}:
            if label is not None and len(text) >= SHORTEST:
                pools[label].append(Sample(text, label))
    return pools


def read(text: str, kind: str) -> Iterator[Synset]:
    """Yield the synsets of one data file (its format: wndb(5WN)); lines of its licence begin with
    two spaces.
    """
    for line in text.splitlines():
        if line.startswith("  ") or not line.strip():
            continue
        fields, _, gloss = line.partition(" | ")
        cells = fields.split()
        count = int(cells[3], 16)
        first = 4 + 2 * count
        pointers = cells[first + 1 : first + 1 + 4 * int(cells[first])]
        topics = tuple(
            f"{pointers[i + 2].replace('s', 'a')}{pointers[i + 1]}"
            for i in range(0, len(pointers), 4)
            if pointers[i] == TOPIC
        )
        yield Synset(f"{kind}{cells[0]}", cells[4], gloss.strip(), topics)


def provenance(package: fetch.DebianPackage) -> tuple[Provenance, ...]:
    """Return the licence of WordNet."""
    return (
        Provenance(
            PACKAGE,
            package.version,
            "WordNet 3.0 licence (use, copying and changes for any purpose, with its notice)",
            "WordNet 3.0, copyright 2006 by Princeton University, as packaged by Debian. "
            "Definitions that have a topic; the schools are made up, by unequal shares of the "
            "subjects.",
            package.sha256,
            "participants (schools), centre and slices",
        ),
    )
