"""Read each participant's files, and count what is in them: rows, labels, lengths, duplicates.

Without torch.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tequio.app.start.labels import labels_of
from tequio.app.start.language import language_of
from tequio.app.start.shape import Shape
from tequio.core.errors import DataError
from tequio.core.texts.words import refusal
from tequio.participant.data import Example, Kind, Paths, Reading, ReadReport
from tequio.participant.splits import content_hash

SPLITS = {"train", "training", "validation", "valid", "val", "dev", "test", "eval"}
SAMPLED = 400  # texts of a participant that are held, for language and tokens


@dataclass
class Participant:
    """Hold what a participant's files hold: counts, and the first texts for what is measured
    later.
    """

    name: str
    paths: Paths
    shape: Shape
    report: ReadReport = field(default_factory=ReadReport)
    labels: Counter[str] = field(default_factory=Counter)
    characters: array[int] = field(default_factory=lambda: array("L"))
    keys: dict[bytes, str | None] = field(default_factory=dict)
    repeated: int = 0
    rows: int = 0
    conflicting: int = 0
    sample: list[Example] = field(default_factory=list)
    language: str | None = None

    def count(self, examples: Iterable[Example]) -> None:
        """Count examples, and keep the first of them."""
        for example in examples:
            key = bytes.fromhex(content_hash(example))[:8]
            if key in self.keys:
                same = self.keys[key] == example.label
                self.repeated, self.conflicting = (
                    self.repeated + same,
                    self.conflicting + (not same),
                )
            self.keys.setdefault(key, example.label)
            self.characters.append(len(example.text) + len(example.response or ""))
            if example.label is not None:
                self.labels[example.label] += 1
            if len(self.sample) < SAMPLED:
                self.sample.append(example)
        self.language = language_of(f"{e.text} {e.response or ''}" for e in self.sample)

    @property
    def usable(self) -> int:
        """Return how many rows can be learnt."""
        return len(self.characters)

    def quantile(self, share: float) -> int:
        """Return the length in characters that this share of the texts does not exceed."""
        order = sorted(self.characters)
        return order[min(len(order) - 1, int(share * len(order)))] if order else 0

    def facts(self, labels: Collection[str]) -> dict[str, Any]:
        """Return everything that may be shown, as plain values. labels: those that may be named."""
        return {
            "name": self.name,
            **self.report.facts(),
            "rows": self.rows,
            "usable": self.usable,
            "labels": {label: self.labels[label] for label in labels},
            "characters": {"median": self.quantile(0.5), "longest": self.quantile(1.0)},
            "duplicates": self.repeated,
            "conflicting_labels": self.conflicting,
            "language": self.language,
        }


@dataclass(frozen=True)
class Survey:
    """Hold all participants, the task, and the labels of all in one order."""

    kind: Kind
    labels: tuple[str, ...]
    participants: tuple[Participant, ...]
    shared_texts: int

    @property
    def named(self) -> tuple[str, ...]:
        """Return the labels of two texts or more: one that occurs once may be a mistake, and is not
        named.
        """
        return tuple(
            label for label in self.labels if sum(p.labels[label] for p in self.participants) > 1
        )

    def facts(self, starting: bool = False) -> dict[str, Any]:
        """Return what was found, as plain values."""
        named = self.named
        return {
            "task": self.kind,
            "labels": list(named),
            "labels_of_one_text": len(self.labels) - len(named),
            "participants": [p.facts(named) for p in self.participants],
            "texts_at_several_participants": self.shared_texts,
            "remarks": self.remarks(starting),
        }

    def remarks(self, starting: bool = False) -> list[str]:
        """Return what a person should know of the whole, one sentence each, without any text.

        starting: a federation of these files is about to start.
        """
        out = []
        if starting and len(self.participants) == 1:
            out.append(
                "There is one participant. A federation of one is only local training: join with "
                "others."
            )
        if len(self.participants) > 1 and {p.name.casefold() for p in self.participants} <= SPLITS:
            what = "The files have names of splits, and each becomes a participant."
            out.append(f"{what} If they belong to one, put them into a folder of its own.")
        if once := len(self.labels) - len(self.named):
            what = f"{once} further labels occur" if once > 1 else "One further label occurs"
            out.append(
                f"{what} only once, and cannot be learnt. If this is a mistake, correct it in the "
                "file."
            )
        if self.shared_texts:
            out.append(f"{self.shared_texts} different texts occur at more than one participant.")
        for person in self.participants:
            if person.conflicting:
                out.append(
                    f"{person.name}: {person.conflicting} texts with two different labels will be "
                    "left out."
                )
            if self.kind == "classification":
                out += _missing(person, self)
            if person.shape.group is not None and len(self.participants) == 1:
                name, count = person.shape.group
                out.append(
                    f"Column {name!r} has {count} different values; with --by {name} each becomes "
                    "a participant."
                )
        languages = {p.language for p in self.participants} - {None}
        if len(languages) > 1:
            out.append(
                "Participants write in different languages: "
                f"{', '.join(sorted(map(str, languages)))}."
            )
        return out


def _missing(person: Participant, survey: Survey) -> Iterator[str]:
    absent = [label for label in survey.named if not person.labels[label]]
    if sum(count > 0 for count in person.labels.values()) == 1:
        yield (
            f"{person.name}: all its texts have one label, so alone it can learn nothing but "
            "that one."
        )
    if not absent:
        return
    names = ", ".join(absent[:8]) + (f" and {len(absent) - 8} more" if len(absent) > 8 else "")
    others = sum(p.labels[label] for label in absent for p in survey.participants)
    yield f"{person.name} has 0 texts with {names}; the others have {others}."


def survey(participants: Sequence[tuple[str, Paths, Shape]]) -> Survey:
    """Read all files. Raises DataError naming participant, file and line, without any field."""
    kinds = {shape.kind: name for name, _, shape in participants}
    if len(kinds) > 1:
        labelled, other = kinds["classification"], kinds["causal"]
        raise refusal(DataError, "several-tasks", one=str(labelled), other=str(other))
    kind = next(iter(kinds))
    labels = labels_of(participants) if kind == "classification" else ()
    read = tuple(_read(name, paths, shape, labels) for name, paths, shape in participants)
    return survey_of(kind, labels, read)


def survey_of(kind: Kind, labels: tuple[str, ...], read: tuple[Participant, ...]) -> Survey:
    """Return what participants hold together."""
    seen: Counter[bytes] = Counter(key for person in read for key in person.keys)
    return Survey(kind, labels, read, sum(count > 1 for count in seen.values()))


def _read(name: str, paths: Paths, shape: Shape, labels: Sequence[str]) -> Participant:
    person = Participant(name, paths, shape)
    reading = Reading(paths, shape.columns, shape.kind, labels, name, shape.options)
    person.count(reading)
    person.report, person.rows = reading.report, reading.report.rows
    return person
