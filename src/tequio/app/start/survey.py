"""Read each participant's files, and count what is in them: rows, labels, lengths, duplicates. Without torch."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tequio.app.start.language import language_of
from tequio.app.start.shape import LABEL_LENGTH, Shape
from tequio.core.errors import DataError
from tequio.participant.data import Example, Kind, Paths, Reading, ReadReport
from tequio.participant.reading.labels import form_of, is_missing
from tequio.participant.reading.opened import open_file
from tequio.participant.reading.reader import reader_name
from tequio.participant.reading.sources import files_of
from tequio.participant.reading.streams import Source
from tequio.participant.reading.wanted import Wanted
from tequio.participant.splits import content_hash

MANY = 300  # labels at most
SPLITS = {"train", "training", "validation", "valid", "val", "dev", "test", "eval"}
SAMPLED = 400  # texts of a participant that are held, for language and tokens
TRUTH = {"true": "1", "false": "0"}
Spellings = dict[str, Counter[str]]


@dataclass
class Participant:
    """Hold what a participant's files hold: counts, and the first texts for what is measured later."""

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
                self.repeated, self.conflicting = self.repeated + same, self.conflicting + (not same)
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

    def facts(self) -> dict[str, Any]:
        """Return everything that may be shown, as plain values."""
        return {
            "name": self.name,
            **self.report.facts(),
            "rows": self.rows,
            "usable": self.usable,
            "labels": dict(self.labels),
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

    def facts(self, starting: bool = False) -> dict[str, Any]:
        """Return what was found, as plain values."""
        return {
            "task": self.kind,
            "labels": list(self.labels),
            "participants": [p.facts() for p in self.participants],
            "texts_at_several_participants": self.shared_texts,
            "remarks": self.remarks(starting),
        }

    def remarks(self, starting: bool = False) -> list[str]:
        """Return what a person should know of the whole, one sentence each, without any text.

        starting: a federation of these files is about to start.
        """
        out = []
        if starting and len(self.participants) == 1:
            out.append("There is one participant. A federation of one is only local training: join with others.")
        if len(self.participants) > 1 and {p.name.casefold() for p in self.participants} <= SPLITS:
            what = "The files have names of splits, and each becomes a participant."
            out.append(f"{what} If they belong to one, put them into a folder of its own.")
        if self.shared_texts:
            out.append(f"{self.shared_texts} different texts occur at more than one participant.")
        for person in self.participants:
            if person.conflicting:
                what = f"{person.conflicting} texts with two different labels will be left out"
                out.append(f"{person.name}: {what}.")
            if self.kind == "classification":
                out += _missing(person, self)
            if person.shape.group is not None and len(self.participants) == 1:
                name, count = person.shape.group
                out.append(
                    f"Column {name!r} has {count} different values; with --by {name} each becomes a participant."
                )
        languages = {p.language for p in self.participants} - {None}
        if len(languages) > 1:
            out.append(f"Participants write in different languages: {', '.join(sorted(map(str, languages)))}.")
        return out


def _missing(person: Participant, survey: Survey) -> Iterator[str]:
    absent = [label for label in survey.labels if not person.labels[label]]
    if len(survey.labels) - len(absent) == 1:
        yield f"{person.name}: all its texts have one label, so alone it can learn nothing but that one."
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
        what = f"The files are for different tasks: {labelled} has texts with labels, {other} has not."
        fix = "Start with files of one kind, or choose with --task or --column label=NAME."
        raise DataError(what, "A federation learns one task.", fix)
    kind = next(iter(kinds))
    labels: tuple[str, ...] = ()
    if kind == "classification":
        labels = _labels(participants)
    read = tuple(_read(name, paths, shape, labels) for name, paths, shape in participants)
    return survey_of(kind, labels, read)


def survey_of(kind: Kind, labels: tuple[str, ...], read: tuple[Participant, ...]) -> Survey:
    """Return what participants hold together."""
    seen: Counter[bytes] = Counter(key for person in read for key in person.keys)
    shared = sum(count > 1 for count in seen.values())
    return Survey(kind, labels, read, shared)


def _read(name: str, paths: Paths, shape: Shape, labels: Sequence[str]) -> Participant:
    person = Participant(name, paths, shape)
    reading = Reading(paths, shape.columns, shape.kind, labels, name, shape.options)
    person.count(reading)
    person.report, person.rows = reading.report, reading.report.rows
    return person


def _labels(participants: Sequence[tuple[str, Paths, Shape]]) -> tuple[str, ...]:
    """Return the labels of all participants, each in its commonest spelling."""
    spellings: Spellings = {}
    first: Shape | None = None
    for name, paths, shape in participants:
        first = first or shape
        for path in files_of(paths, reader_name(name)):
            _count(Source(path, reader_name(name)), shape, spellings)
    _merge_truth(spellings)
    rows = sum(sum(counter.values()) for counter in spellings.values())
    column = first.shown(str(first.columns.label)) if first else ""
    if len(spellings) > MANY or len(spellings) > max(2, rows // 2):
        what = f"Column {column} has {len(spellings)} different values in {rows} rows."
        fix = "Name the column of labels: --column label=NAME. If there are none: --task causal."
        raise DataError(what, "These are no classes.", fix)
    if len(spellings) < 2:
        what = f"Column {column} has the same value in all {rows} rows that have one."
        fix = "Name the column of labels: --column label=NAME. If there are none: --task causal."
        raise DataError(what, "Classification needs two or more.", fix)
    chosen = [min(counter, key=lambda s: (-counter[s], s)) for counter in spellings.values()]
    return tuple(sorted(chosen, key=_order))


def _order(label: str) -> tuple[bool, float, str]:
    """Put numbers first, in their order."""
    return (False, float(label), "") if label.lstrip("-").isdecimal() else (True, 0.0, label)


def _count(source: Source, shape: Shape, spellings: Spellings) -> None:
    opened = open_file(source, Wanted("classification", shape.columns), shape.options)
    column = str(shape.columns.label)
    names, shown = opened.classes.get(column, ()), shape.shown(column)
    wanted = {name for name in shape.columns.given().values() if name in opened.names}
    for place, row in opened.read(wanted if opened.fixed else None):
        value = row.get(column)
        if is_missing(value):
            continue
        if isinstance(value, int) and not isinstance(value, bool) and names:
            if not 0 <= value < len(names):
                continue
            value = names[value]
        if not isinstance(value, str | bool | int | float):
            why = "Several labels per text are not supported."
            fix = "Give each text one label, or name another column: --column label=NAME."
            raise source.fault(f"column {shown} holds no single value.", why, fix, f"{opened.unit} {place}")
        spelling = value.strip() if isinstance(value, str) else form_of(value)
        if len(spelling) > LABEL_LENGTH:
            why = f"It has more than {LABEL_LENGTH} characters."
            fix = "Name the column of labels: --column label=NAME."
            raise source.fault(f"column {shown} holds no label.", why, fix, f"{opened.unit} {place}")
        spellings.setdefault(form_of(value), Counter())[spelling] += 1


def _merge_truth(spellings: Spellings) -> None:
    """Count true and 1, false and 0 as one where files mix them."""
    if not set(spellings) <= {"true", "false", "0", "1"} or len(spellings) <= 2:
        return
    for word, digit in TRUTH.items():
        if word in spellings and digit in spellings:
            spellings[digit].update(spellings.pop(word))
        elif word in spellings:
            spellings[digit] = spellings.pop(word)


def words_of(labels: Sequence[str]) -> Mapping[str, str]:
    """Return a description of each label for the start of the head, or none where labels are codes."""
    plain = {label: " ".join(label.replace("_", " ").replace("-", " ").split()) for label in labels}
    letters = all(sum(c.isalpha() for c in words) >= 3 for words in plain.values())
    return plain if letters else {}
