"""Find the labels of all participants by reading their column of labels."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tequio.app.start.shape import LABEL_LENGTH, Shape
from tequio.core.errors import DataError
from tequio.core.texts.words import refusal, refuse_first
from tequio.participant.data import Paths
from tequio.participant.reading.labels import form_of, is_missing
from tequio.participant.reading.opened import open_file
from tequio.participant.reading.reader import reader_name
from tequio.participant.reading.sources import files_of
from tequio.participant.reading.streams import Source
from tequio.participant.reading.wanted import Wanted

MANY = 300  # labels at most
ENOUGH = 20  # rows from which a value of several words that occurs once is taken for a text
SEVERAL = 4  # words
TRUTH = {"true": "1", "false": "0"}
WHOLE = re.compile(r"-?[0-9]+")


@dataclass
class _Value:
    """Hold a value's spellings with counts, and the first place where it stands."""

    source: Source
    place: str
    column: str
    spellings: Counter[str] = field(default_factory=Counter)

    def commonest(self) -> str:
        return min(self.spellings, key=lambda s: (-self.spellings[s], s))


def labels_of(participants: Sequence[tuple[str, Paths, Shape]]) -> tuple[str, ...]:
    """Return the labels of all participants, each in its commonest spelling.

    Raises DataError where the values are no classes, naming the column or the place, without any
    value.
    """
    values: dict[str, _Value] = {}
    for name, paths, shape in participants:
        for path in files_of(paths, reader_name(name)):
            _count(Source(path, reader_name(name)), shape, values)
    _merge_truth(values)
    rows = sum(value.spellings.total() for value in values.values())
    shape = participants[0][2]
    column = shape.shown(str(shape.columns.label))
    found = {"no-classes": len(values) > min(MANY, max(2, rows // 2)), "one-value": len(values) < 2}
    refuse_first(DataError, found, column=column, count=len(values), rows=rows)
    for value in values.values():
        if (
            rows >= ENOUGH
            and value.spellings.total() == 1
            and len(value.commonest().split()) >= SEVERAL
        ):
            raise refusal(
                DataError,
                "label-like-a-text",
                file=value.source.at(value.place),
                column=value.column,
            )
    return tuple(sorted((value.commonest() for value in values.values()), key=_order))


def _order(label: str) -> tuple[bool, float, str]:
    """Put numbers first, in their order."""
    return (False, float(label), "") if WHOLE.fullmatch(label) else (True, 0.0, label)


def _count(source: Source, shape: Shape, values: dict[str, _Value]) -> None:
    opened = open_file(source, Wanted("classification", shape.columns), shape.options)
    column = str(shape.columns.label)
    names, shown = opened.classes.get(column, ()), shape.shown(column)
    wanted = {name for name in shape.columns.given().values() if name in opened.names}
    for number, row in opened.read(wanted if opened.fixed else None):
        value, place = row.get(column), f"{opened.unit} {number}"
        if is_missing(value):
            continue
        if isinstance(value, int) and not isinstance(value, bool) and names:
            if not 0 <= value < len(names):
                continue
            value = names[value]
        if not isinstance(value, str | bool | int | float):
            raise refusal(DataError, "several-labels", file=source.at(place), column=shown)
        spelling = value.strip() if isinstance(value, str) else form_of(value)
        if len(spelling) > LABEL_LENGTH or not spelling.isprintable():
            raise refusal(
                DataError, "label-unfit", file=source.at(place), column=shown, most=LABEL_LENGTH
            )
        values.setdefault(form_of(value), _Value(source, place, shown)).spellings[spelling] += 1


def _merge_truth(values: dict[str, _Value]) -> None:
    """Count true and 1, false and 0 as one where files mix them."""
    if not set(values) <= {"true", "false", "0", "1"} or len(values) <= 2:
        return
    for word, digit in TRUTH.items():
        if word in values and digit in values:
            values[digit].spellings.update(values.pop(word).spellings)
        elif word in values:
            values[digit] = values.pop(word)


def words_of(labels: Sequence[str]) -> Mapping[str, str]:
    """Return a description of each label for the start of the head, or none where labels are
    codes.
    """
    plain = {label: " ".join(label.replace("_", " ").replace("-", " ").split()) for label in labels}
    letters = all(sum(c.isalpha() for c in words) >= 3 for words in plain.values())
    return plain if letters else {}
