"""Worlds `clinics` and `clinics-extreme`: diagnosis wording -> chapter of ICD-10-CM, in five
clinics.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.study.worlds.packages import ICD, wheel_text
from benchmarks.study.worlds.types import Dealt, RealWorld, Sizes, dealt_world, one_label, set_aside
from tequio.app.demos.text import Sample
from tequio.app.demos.types import Provenance

NAME, EXTREME = "clinics", "clinics-extreme"
XML = "simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml"
TRAIN, VALIDATION, TEST = 100, 50, 1500
PER_SITE = 500
PUBLIC_SHARE, PUBLIC = 0.2, (400, 240, 480)  # centre, gate, unseen
SHORTEST, LONGEST = 9, 89  # characters
CHAPTERS = {
    "1": ("infection", "an infection by bacteria, viruses, fungi or parasites"),
    "2": ("tumour", "a tumour: cancer, leukemia or a benign neoplasm"),
    "4": (
        "hormones and metabolism",
        "a disease of hormones, nutrition or metabolism, such as diabetes",
    ),
    "5": ("mental health", "a mental or behavioural disorder, such as depression or addiction"),
    "6": ("nerves", "a disease of the brain, the spinal cord or the nerves"),
    "7": ("eye", "a disease of the eye or the eyelid"),
    "9": ("heart and vessels", "a disease of the heart, the arteries or the veins"),
    "10": ("lungs", "a disease of the lungs, the nose or the throat: breathing"),
    "11": ("digestion", "a disease of the teeth, stomach, bowel, liver or pancreas"),
    "12": ("skin", "a disease of the skin, the hair or the nails"),
    "13": ("bones and joints", "a disease of the bones, joints, muscles or the spine"),
    "14": ("kidney and urinary", "a disease of the kidneys, the bladder or the genital organs"),
}
LABELS = dict(CHAPTERS.values())
MIXES: dict[str, dict[str, float]] = {
    "heart-centre": {"heart and vessels": 0.55, "lungs": 0.15},
    "eye-clinic": {"eye": 0.5},
    "psychiatric-hospital": {"mental health": 0.5, "nerves": 0.2},
    "orthopaedics": {"bones and joints": 0.6},
    "general-hospital": {},
}
MIXES_EXTREME: dict[str, dict[str, float]] = {
    "heart-centre": {"heart and vessels": 0.92},
    "gut-clinic": {"digestion": 0.92},
    "psychiatric-hospital": {"mental health": 0.92},
    "orthopaedics": {"bones and joints": 0.92},
    "tumour-centre": {"tumour": 0.92},
}
RANKS = (16, 4, 8, 2, 8)
SIDE = re.compile(r"\b(right|left|bilateral|unspecified)\b|^other\b", re.IGNORECASE)


def prepare(cache: Path, seed: int = 0) -> RealWorld:
    """Fetch and split the world of five clinics. DataError when the package is missing."""
    return _prepare(NAME, MIXES, cache, seed)


def prepare_extreme(cache: Path, seed: int = 0) -> RealWorld:
    """Fetch and split the world in which each clinic sees nearly one chapter only."""
    return _prepare(EXTREME, MIXES_EXTREME, cache, seed)


def _prepare(
    name: str, mixes: Mapping[str, Mapping[str, float]], cache: Path, seed: int
) -> RealWorld:
    pools, removed = one_label(read(wheel_text(ICD, XML, cache)))
    sizes = Sizes(PER_SITE, TRAIN, VALIDATION, TEST)
    parts = Dealt(name, LABELS, "all-chapters", provenance(), removed)
    return dealt_world(
        parts, seed, set_aside(pools, seed, PUBLIC_SHARE, PUBLIC), mixes, RANKS, sizes
    )


def read(xml: str) -> dict[str, list[Sample]]:
    """Return the wordings of each chapter of ours: inclusion terms, and titles of codes of up to
    five characters.

    Titles with a side, "other" or "unspecified" are left out: they repeat each other.
    """
    pools: dict[str, list[Sample]] = {label: [] for label in LABELS}
    for chapter in ElementTree.fromstring(xml).iter("chapter"):
        label = CHAPTERS.get(chapter.findtext("name", ""), ("", ""))[0]
        if not label:
            continue
        for diagnosis in chapter.iter("diag"):
            wordings = [
                note.text
                for term in diagnosis.findall("inclusionTerm")
                for note in term.findall("note")
            ]
            title = diagnosis.findtext("desc", "")
            if len(diagnosis.findtext("name", "")) <= 5 and not SIDE.search(title):
                wordings.append(title)
            texts = (re.sub(r"\s*\[[^\]]*\]", "", wording or "").strip() for wording in wordings)
            pools[label] += [
                Sample(text, label) for text in texts if SHORTEST <= len(text) <= LONGEST
            ]
    return pools


def provenance() -> tuple[Provenance, ...]:
    """Return the licence of the classification."""
    return (
        Provenance(
            ICD.name,
            ICD.version,
            "MIT (package); data: ICD-10-CM of April 2026, CDC/NCHS, public domain in the United "
            "States",
            "Inclusion terms and titles of twelve chapters. ICD-10 itself is copyright of the "
            "World Health Organization, whose permission covers the American modification. No "
            "patient is in it; the clinics are made up, by unequal shares of the chapters.",
            ICD.sha256,
            "participants (clinics), centre and slices",
        ),
    )
