"""Splitting by content: a text falls into train, validation or test by its own hash, the same on every machine and in any order.

So the same text is never in two splits, a longer file only adds, and a cap keeps a prefix.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tequio.core.errors import DataError
from tequio.participant.data import Columns, Example, Kind, read_examples

LONG = 100_000  # characters
NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class DataFiles:
    """One file to be split (`data`), or files for the splits."""

    data: Path | None = None
    train: Path | None = None
    validation: Path | None = None
    test: Path | None = None


@dataclass(frozen=True)
class SplitRule:
    """Shares of validation and test, and caps."""

    validation: float = 0.2
    test: float = 0.2
    max_train: int | None = None
    max_validation: int | None = None
    max_test: int | None = None


@dataclass(frozen=True)
class Splits:
    """The three splits, and counts of what was dropped on the way."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    rows: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """What may be shown: counts, class balance, what was dropped, warnings."""
        parts = {name: getattr(self, name) for name in NAMES}
        balance = {
            name: dict(sorted(Counter(e.label for e in part if e.label).items()))
            for name, part in parts.items()
        }
        return {
            "counts": {name: len(part) for name, part in parts.items()},
            "balance": balance,
            "rows": self.rows,
            "dropped": dict(self.dropped),
            "long_texts": sum(len(e.text) > LONG for part in parts.values() for e in part),
            "warnings": _warnings(balance["train"], self.train),
        }

    def digest(self) -> str:
        """SHA-256 over the contents of the splits. Private: whoever guesses the contents could confirm the guess."""
        hashes = [f"{name}:{content_hash(e)}:{e.label}" for name in NAMES for e in getattr(self, name)]
        return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def content_hash(example: Example) -> str:
    """SHA-256 of the text (and response) after Unicode NFC, folded case and collapsed white space."""
    text = example.text if example.response is None else f"{example.text}\x1f{example.response}"
    plain = " ".join(unicodedata.normalize("NFC", text).casefold().split())
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def load_splits(
    files: DataFiles, columns: Columns, rule: SplitRule, kind: Kind, labels: Sequence[str], participant: str
) -> Splits:
    """Read and split a participant's data. Raises DataError naming file and participant if a split ends empty."""
    parts: dict[str, dict[str, Example]] = {}
    dropped: Counter[str] = Counter()
    rows = 0
    given = {"data": files.data, "train": files.train, "validation": files.validation, "test": files.test}
    for name, path in given.items():
        if path is not None:
            examples = read_examples(path, columns, kind, labels, participant)
            rows += len(examples)
            parts[name] = _unique(examples, dropped)
    pool = parts.pop("data", None)
    if pool is None:
        pool = parts.pop("train")
        parts = _without_overlap(pool, parts, dropped)
    split = _by_hash(pool, rule, {"validation", "test"} - parts.keys())
    for name, own in parts.items():
        split[name] = [own[key] for key in sorted(own)]
    caps = {"train": rule.max_train, "validation": rule.max_validation, "test": rule.max_test}
    for name, cap in caps.items():
        if cap is not None and len(split[name]) > cap:
            dropped["over_cap"] += len(split[name]) - cap
            split[name] = split[name][:cap]
    source = files.data or files.train
    for name in NAMES:
        if not split[name]:
            raise _too_few(participant, source, name, len(pool), rows)
    return Splits(
        tuple(split["train"]),
        tuple(split["validation"]),
        tuple(split["test"]),
        rows,
        dict(sorted(dropped.items())),
    )


def _unique(examples: Sequence[Example], dropped: Counter[str]) -> dict[str, Example]:
    """By content hash: empty texts out, one of equal texts kept, texts with two labels all out."""
    kept: dict[str, Example] = {}
    conflicting: set[str] = set()
    for example in examples:
        if not example.text.strip():
            dropped["empty"] += 1
            continue
        key = content_hash(example)
        if key in conflicting:
            dropped["conflicting_labels"] += 1
        elif key not in kept:
            kept[key] = example
        elif kept[key].label == example.label:
            dropped["duplicates"] += 1
        else:
            conflicting.add(key)
            del kept[key]
            dropped["conflicting_labels"] += 2
    return kept


def _without_overlap(
    pool: dict[str, Example], parts: dict[str, dict[str, Example]], dropped: Counter[str]
) -> dict[str, dict[str, Example]]:
    """Remove from train what is in validation or test, and from validation what is in test. Changes `pool`."""
    test = parts.get("test", {})
    if "validation" in parts:
        kept = {k: e for k, e in parts["validation"].items() if k not in test}
        dropped["in_two_splits"] += len(parts["validation"]) - len(kept)
        parts = {**parts, "validation": kept}
    for key in [k for k in pool if any(k in part for part in parts.values())]:
        del pool[key]
        dropped["in_two_splits"] += 1
    return parts


def _by_hash(pool: Mapping[str, Example], rule: SplitRule, wanted: set[str]) -> dict[str, list[Example]]:
    """Split by the hash read as a number in [0, 1): test first, then validation; each in the order of a second hash."""
    test = rule.test if "test" in wanted else 0.0
    validation = rule.validation if "validation" in wanted else 0.0
    split: dict[str, list[Example]] = {name: [] for name in NAMES}
    for key in sorted(pool, key=lambda k: k[32:]):
        place = int(key[:16], 16) / 2**64
        name = "test" if place < test else "validation" if place < test + validation else "train"
        split[name].append(pool[key])
    return split


def _too_few(participant: str, path: Path | None, name: str, usable: int, rows: int) -> DataError:
    if rows == 0:
        why = "It has no rows."
    else:
        why = f"{rows} rows were read, {usable} are usable after removing empty and repeated texts."
    fix = "Give it more data (some 20 different texts at least), or change the shares in participant.toml."
    return DataError(f"Participant {participant}: nothing is left for its {name} split of {path}.", why, fix)


def _warnings(balance: Mapping[str, int], train: Sequence[Example]) -> list[str]:
    if len(balance) == 1 and train[0].label is not None:
        return ["All its training texts have one class: alone it can learn nothing but that class."]
    return []
