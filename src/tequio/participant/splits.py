"""Splitting by content: a text falls into train, validation or test by its own hash, on every
machine and in any order.

So the same text is never in two splits, a longer file only adds, and a cap takes a prefix of an
order by hash. Where a cap is given, files are read twice: first for the hashes, then for the texts
that the caps take.
"""

import hashlib
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from tequio.core.errors import ConfigError, DataError
from tequio.core.reason import Reason
from tequio.core.texts.words import refusal, refuse_first
from tequio.participant.data import Columns, Example, Kind, Options, Paths, Reading, ReadReport

LONG = 100_000  # characters
NAMES = ("train", "validation", "test")
Keyed = Mapping[
    bytes, Any
]  # by the bytes of the content hash: the example, or a number in its place
DROPPED = (
    "conflicting_labels",
    "duplicates",
    "empty",
    "in_two_splits",
    "no_prompt",
    "no_response",
    "over_cap",
    "unlabelled",
)
LATER = (
    "no_prompt",
    "no_response",
    "unlabelled",
)  # stated where they count: earlier records have no such keys


@dataclass(frozen=True)
class DataFiles:
    """Files to be split (`data`), or files for the splits:

    `train`, and what of `validation` and `test` there is.

    Each is a path (a file, a folder or a pattern) or several.
    """

    data: Paths | None = None
    train: Paths | None = None
    validation: Paths | None = None
    test: Paths | None = None


@dataclass(frozen=True)
class SplitRule:
    """Shares of validation and test where they are split off by hash, and the most examples of each
    split.
    """

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
    reading: Mapping[str, ReadReport] = field(default_factory=dict, compare=False)
    """What the reader found, by source (`train`, ...).

    It names files and columns: not for the ledger.
    """

    def facts(self) -> dict[str, Any]:
        """What may be shown: counts, class balance, what was dropped, warnings.

        Counts of rows, never their content.

        `rows` = the sum of `counts` + the sum of `dropped`.
        """
        parts = {name: getattr(self, name) for name in NAMES}
        balance = {
            name: dict(sorted(Counter(e.label for e in part if e.label).items()))
            for name, part in parts.items()
        }
        return {
            "counts": {name: len(part) for name, part in parts.items()},
            "balance": balance,
            "rows": self.rows,
            "dropped": {name: n for name, n in self.dropped.items() if n or name not in LATER},
            "long_texts": sum(_is_long(e) for part in parts.values() for e in part),
            "warnings": _warnings(balance["train"]),
        }

    def digest(self) -> str:
        """SHA-256 over the contents of the splits.

        Private: whoever guesses the contents could confirm the guess.
        """
        hashes = [
            f"{name}:{content_hash(e)}:{e.label}" for name in NAMES for e in getattr(self, name)
        ]
        return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def content_hash(example: Example) -> str:
    """SHA-256 of the text (and response) after Unicode NFC, folded case and collapsed white
    space.
    """
    parts = (example.text,) if example.response is None else (example.text, example.response)
    plain = "\x1f".join(" ".join(unicodedata.normalize("NFC", p).casefold().split()) for p in parts)
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def load_splits(
    files: DataFiles,
    columns: Columns,
    rule: SplitRule,
    kind: Kind,
    labels: Sequence[str],
    participant: str,
    minimum: int = 1,
    options: Options | None = None,
) -> Splits:
    """Read and split a participant's data; each split has at least `minimum` examples.

    Raises DataError naming file and participant, ConfigError where files, shares or caps contradict
    each other.
    """
    _check(files, rule, participant, minimum)
    paths = {"train": files.data or files.train, "validation": files.validation, "test": files.test}
    sources = {
        name: Reading(path, columns, kind, labels, participant, options)
        for name, path in paths.items()
        if path is not None
    }
    capped = any(getattr(rule, f"max_{name}") is not None for name in NAMES)
    dropped: Counter[str] = Counter(dict.fromkeys(DROPPED, 0))
    found: dict[str, Keyed] = {}
    for name, source in sources.items():
        found[name], counts = _hashed(source) if capped else _unique(source)
        dropped.update({**counts, **source.report.left_out})
    given, overlap = _without_overlap(found)
    usable = {name: len(part) for name, part in given.items()}
    split, over = _capped(_by_hash(given, rule), rule)
    dropped.update({"in_two_splits": overlap, "over_cap": over})
    rows = {name: source.report.rows for name, source in sources.items()}
    for name in NAMES:
        if len(split[name]) < minimum:
            source_name = name if name in given else "train"
            what = f"Participant {participant}, {_shown(paths[source_name])}"
            share = None if given.keys() >= {*NAMES} else _shares(given, rule)[name]
            read = (rows[source_name], usable[source_name])
            raise _too_few(what, name, (len(split[name]), minimum), read, share)
    examples = _collected(sources, split, given) if capped else _flat(found)
    train, validation, test = (tuple(examples[key] for key in split[name]) for name in NAMES)
    reports = {name: source.report for name, source in sources.items()}
    return Splits(train, validation, test, sum(rows.values()), dict(dropped), reports)


def _shown(paths: Paths | None) -> str:
    return str(paths) if isinstance(paths, str | PurePath) else ", ".join(map(str, paths or ()))


def _flat(found: Mapping[str, Keyed]) -> dict[bytes, Example]:
    """Return all examples by hash; of equal ones that of the split that has it (test before
    validation before train).
    """
    return {key: e for name in NAMES for key, e in found.get(name, {}).items()}


def _hashed(examples: Iterable[Example]) -> tuple[Keyed, Counter[str]]:
    """Do as `_unique`, without holding the examples: the keys that it would return, and its counts.

    Per key one number is held: how often it came, its label's number, and whether it came with
    another label too.
    """
    seen: dict[bytes, int] = {}
    labels: dict[str | None, int] = {}
    shared: dict[int, int] = {}  # equal numbers as one object
    rows = 0
    for example in examples:
        key, label = _key(example), labels.setdefault(example.label, len(labels))
        state = seen.get(key, label << 1)
        state = (state + (1 << 32)) | (state >> 1 & 0x7FFFFFFF != label)
        seen[key] = shared.setdefault(state, state)
        rows += 1
    conflicting = [(key, state >> 32) for key, state in seen.items() if state & 1]
    for key, _ in conflicting:
        del seen[key]
    lost = sum(times for _, times in conflicting)
    return seen, Counter(duplicates=rows - lost - len(seen), conflicting_labels=lost)


def _collected(
    sources: Mapping[str, Reading], split: Mapping[str, Sequence[bytes]], given: Mapping[str, Keyed]
) -> dict[bytes, Example]:
    """Read the sources again, and return the examples that the splits take, by hash.

    Raises DataError if one is gone.
    """
    wanted = {key for keys in split.values() for key in keys}
    out: dict[bytes, Example] = {}
    for name, source in sources.items():
        own = wanted & given[name].keys()
        for example in source:
            key = _key(example)
            if key in own and (key not in out or _before(example, out[key])):
                out[key] = example
    if len(out) < len(wanted):
        raise refusal(DataError, "data-changed-while-read")
    return out


def _key(example: Example) -> bytes:
    return bytes.fromhex(content_hash(example))


def _before(one: Example, other: Example) -> bool:
    """Return whether one of two equal texts is first in code points."""
    return (one.text, one.response or "") < (other.text, other.response or "")


def _check(files: DataFiles, rule: SplitRule, participant: str, minimum: int) -> None:
    explicit = {name for name in NAMES if getattr(files, name) is not None}
    shares = _shares(explicit, rule)
    found = {
        "data-files-clash": bool(explicit) if files.data is not None else "train" not in explicit,
        "split-empty": any(
            name not in explicit and not 0 < share < 1 for name, share in shares.items()
        ),
    }
    refuse_first(ConfigError, found, name=participant, validation=rule.validation, test=rule.test)
    caps = {
        name: cap
        for name in NAMES
        if (cap := getattr(rule, f"max_{name}")) is not None and cap < minimum
    }
    for name, cap in caps.items():
        raise refusal(
            ConfigError,
            "split-below-minimum",
            name=participant,
            split=name,
            cap=cap,
            minimum=minimum,
        )


def _shares(given: Iterable[str], rule: SplitRule) -> dict[str, float]:
    """The share of the pool that goes into each split; a split with a file of its own takes nothing
    from the pool.
    """
    own = set(given)
    validation = 0.0 if "validation" in own else rule.validation
    test = 0.0 if "test" in own else rule.test
    return {"train": 1.0 - validation - test, "validation": validation, "test": test}


def _unique(examples: Iterable[Example]) -> tuple[dict[bytes, Example], Counter[str]]:
    """Return examples by hash: of equal texts the first in code points, and none of those with two
    labels; and counts.
    """
    unique: dict[bytes, Example] = {}
    times: Counter[bytes] = Counter()
    conflicting: set[bytes] = set()
    for example in examples:
        key = _key(example)
        times[key] += 1
        other = unique.setdefault(key, example)
        if other.label != example.label:
            conflicting.add(key)
        elif _before(example, other):
            unique[key] = example
    lost = sum(times[key] for key in conflicting)
    for key in conflicting:
        del unique[key]
    repeated = times.total() - lost - len(unique)
    return unique, Counter(duplicates=repeated, conflicting_labels=lost)


def _without_overlap(given: Mapping[str, Keyed]) -> tuple[dict[str, Keyed], int]:
    """Remove from train what is in validation or test, and from validation what is in test; and how
    many those are.
    """
    taken: set[bytes] = set()
    unique: dict[str, Keyed] = {}
    for name in reversed(NAMES):
        if name in given:
            part = given[name]
            unique[name] = {key: part[key] for key in part if key not in taken} if taken else part
            taken |= given[name].keys()
    return unique, sum(len(given[name]) - len(unique[name]) for name in unique)


def _by_hash(given: Mapping[str, Keyed], rule: SplitRule) -> dict[str, list[bytes]]:
    """Split the hashes of train's pool by their first 64 bits, read as a number in [0, 1): test
    first, then validation.

    Each split is in the order of the hash's second half, so that a cap does not depend on where the
    shares cut.
    """
    shares = _shares(given, rule)
    parts: dict[str, set[bytes]] = {name: set(given.get(name, ())) for name in NAMES[1:]} | {
        "train": set()
    }
    for key in given["train"]:
        place = int.from_bytes(key[:8], "big") / 2**64
        name = (
            "test"
            if place < shares["test"]
            else "validation"
            if place < 1.0 - shares["train"]
            else "train"
        )
        parts[name].add(key)
    return {name: sorted(parts[name], key=_rank) for name in NAMES}


def _rank(key: bytes) -> bytes:
    return key[16:]


def _capped(
    split: Mapping[str, list[bytes]], rule: SplitRule
) -> tuple[dict[str, list[bytes]], int]:
    """Return the first `max_*` hashes of each split, and how many were left out."""
    unique = {name: split[name][: getattr(rule, f"max_{name}")] for name in NAMES}
    return unique, sum(len(split[name]) - len(unique[name]) for name in NAMES)


def enough(minimum: int, share: float) -> int:
    """Different texts with which a split of this share falls short of `minimum` less than once in a
    hundred times.
    """
    return math.ceil((minimum + 2.5 * math.sqrt(minimum) + 2.0) / share)


def _too_few(
    what: str, name: str, has: tuple[int, int], read: tuple[int, int], share: float | None
) -> DataError:
    (count, minimum), (rows, usable) = has, read
    if usable == 0:
        return refusal(
            DataError, "no-usable-example", what=what, split=name, rows=rows, minimum=minimum
        )
    facts = {
        "what": what,
        "split": name,
        "count": count,
        "minimum": minimum,
        "rows": rows,
        "usable": usable,
    }
    if share:
        return refusal(
            DataError, "split-share-too-small", **facts, share=share, fewest=enough(minimum, share)
        )
    return refusal(DataError, "split-too-small", **facts)


def _is_long(example: Example) -> bool:
    return len(example.text) > LONG or len(example.response or "") > LONG


def _warnings(balance: Mapping[str, int]) -> list[dict[str, Any]]:
    return [Reason("one-class").as_record()] if len(balance) == 1 else []
