"""Find out what a file is for: the kind of task, its columns, and whether it has a header."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from tequio.core.errors import DataError
from tequio.core.texts.words import refusal
from tequio.participant.data import Columns, Kind, Options
from tequio.participant.reading.labels import form_of, is_missing
from tequio.participant.reading.names import PREFERENCE, found, looks_like_name, nearest, usual
from tequio.participant.reading.opened import Opened, open_file
from tequio.participant.reading.reader import reader_name
from tequio.participant.reading.shapes import twice_as_long
from tequio.participant.reading.sources import files_of
from tequio.participant.reading.streams import Source
from tequio.participant.reading.wanted import Wanted

Row = Mapping[str, Any]
SAMPLE_ROWS = 1000  # rows by which columns are judged
LABEL_LENGTH = 60  # characters of a label at most
FEW = 50  # different values of a column of labels that is found by its values, at most
_ENGLISH = (
    "site hospital participant client school airline clinic centre center source region "
    "country city shop store"
)
_SPANISH = "sitio escuela clinica clínica centro empresa región país pais"
GROUPS = frozenset(
    f"{_ENGLISH} department company organisation organization institution {_SPANISH}".split()
)


@dataclass(frozen=True)
class Shape:
    """Say how a file is to be read.

    columns: role -> column, all given. group: a column by which the rows could be split among
    participants, with its number of values. genuine: the names of columns are no data.
    """

    kind: Kind
    columns: Columns
    options: Options
    opened: Opened
    group: tuple[str, int] | None = None

    @property
    def data(self) -> dict[str, Any]:
        """Return the keys of [data] that say so; standard names are left out."""
        keys: dict[str, Any] = {
            role: name for role, name in self.columns.given().items() if name != role
        }
        if False in (self.opened.form.header, self.options.header):
            keys["header"] = False
        return {**keys, **{k: v for k, v in vars(self.options).items() if v is not None}}

    def shown(self, column: str) -> str:
        """Return a column's name for the screen; its position where the name may be data."""
        if self.opened.genuine or looks_like_name(column) or column.isdigit():
            return repr(column)
        return (
            f"number {self.opened.names.index(column) + 1}"
            if column in self.opened.names
            else "without a plain name"
        )


def shape_of(
    path: Any, who: str, given: Columns, options: Options, task: Kind | None = None
) -> Shape:
    """Look at the first file that `path` means. Raises DataError that names file and remedy."""
    source = Source(files_of(path, reader_name(who))[0], reader_name(who))
    opened, rows = _opened(source, given, options)
    names = list(opened.names) or list(dict.fromkeys(name for row in rows for name in row))
    if unknown := [name for name in given.given().values() if name not in names]:
        why, shown = found(names, opened.genuine or not opened.fixed, opened.shown, ())
        near = nearest(unknown[0], shown)
        raise refusal(
            DataError, "data-column-missing", file=source.at(), names=unknown, why=why, nearest=near
        )
    kind = task or _kind(names, rows, given)
    columns = _labelled(source, names, rows, given, opened) if kind == "classification" else given
    headless = opened.form.header is False and options.header is None
    options = replace(options, header=False) if headless else options
    return Shape(kind, columns, options, opened, _group(names, rows, set(columns.given().values())))


def _opened(source: Source, given: Columns, options: Options) -> tuple[Opened, list[Row]]:
    """Open a file; where no name says whether a table has a header, find it by the column of
    labels.
    """
    wanted = Wanted("classification", given)
    try:
        opened = open_file(source, wanted, options)
    except DataError:
        if options.header is not None or not _is_table(source, wanted, options):
            raise
        opened = open_file(source, wanted, replace(options, header=False))
    if options.header is None and opened.form.header and not wanted.is_header(opened.names):
        bare = open_file(source, wanted, replace(options, header=False))
        rows = _rows(bare)
        labels = label_columns(bare.names, rows[1:])
        if any(_form(rows[0].get(name)) in _values(name, rows[1:]) for name in labels):
            return bare, rows
    return opened, _rows(opened)


def _is_table(source: Source, wanted: Wanted, options: Options) -> bool:
    """Return whether a plain text has rows of several fields without a header, among them a
    label.
    """
    try:
        bare = open_file(source, wanted, replace(options, header=False))
    except DataError:
        return False
    return len(bare.names) > 1 and len(label_columns(bare.names, _rows(bare))) > 0


def _rows(opened: Opened) -> list[Row]:
    return [row for _, row in islice(opened.read(None), SAMPLE_ROWS)]


def _form(value: Any) -> str:
    if isinstance(value, str | bool | int | float) and not is_missing(value):
        return form_of(value)
    return ""


def _values(name: str, rows: Sequence[Row]) -> set[str]:
    return {form for row in rows if (form := _form(row.get(name)))}


def label_columns(
    names: Sequence[str], rows: Sequence[Row], taken: Collection[str] = ()
) -> list[str]:
    """Return the columns whose values look like classes: few, short, and each several times."""
    return [name for name in names if name not in taken and _is_classes(name, rows)]


def _is_classes(name: str, rows: Sequence[Row]) -> bool:
    values = [row.get(name) for row in rows]
    if not all(value is None or isinstance(value, str | bool | int | float) for value in values):
        return False
    forms = [form for value in values if (form := _form(value))]
    distinct = set(forms)
    if any(len(form) > LABEL_LENGTH or "\n" in form for form in distinct):
        return False
    return 2 <= len(distinct) <= min(FEW, len(forms) // 3) and len(forms) > 0.5 * len(rows)


def _kind(names: Sequence[str], rows: Sequence[Row], given: Columns) -> Kind:
    """Choose the task that the columns suggest."""
    if given.label or (
        given.text and (usual("label", names) or label_columns(names, rows, {given.text}))
    ):
        return "classification"
    if given.messages or given.prompt or given.response or given.text:
        return "causal"
    chat = usual("messages", names)
    if chat and any(
        isinstance(row.get(chat), list) or str(row.get(chat))[:1] == "[" for row in rows
    ):
        return "causal"
    prompt = usual("prompt", names)
    if prompt and usual("response", names, {prompt}):
        return "causal"
    if all(name in names for name in PREFERENCE):
        return "causal"
    if usual("label", names) and len(names) > 1:
        return "classification"
    others = [name for name in names if name.strip().casefold() not in GROUPS]
    return "classification" if len(names) > 1 and label_columns(others, rows) else "causal"


def _labelled(
    source: Source, names: Sequence[str], rows: Sequence[Row], given: Columns, opened: Opened
) -> Columns:
    taken = set(given.given().values())
    label = given.label or usual("label", names, taken)
    if label is None:
        possible = [n for n in names if n.strip().casefold() not in GROUPS]
        found = label_columns(possible, rows, taken)
        if len(found) != 1:
            raise _which(source, "label", found, opened)
        label = found[0]
    text = given.text or usual("text", names, taken | {label})
    if text is None:
        text = _longest([name for name in names if name != label], rows)
    if text is None:
        raise _which(source, "text", [], opened)
    return replace(given, text=text, label=label)


def _which(source: Source, role: str, found: Sequence[str], opened: Opened) -> DataError:
    certain = opened.genuine or opened.form.header is False or not opened.fixed or opened.shown
    shown = [name for name in found if certain and (looks_like_name(name) or name.isdigit())]
    return refusal(DataError, "column-unclear", file=source.at(), role=role, names=shown or None)


def _longest(names: Sequence[str], rows: Sequence[Row]) -> str | None:
    """Return the column whose different texts are together at least twice as long as those of any
    other.
    """
    texts = {n: {v for row in rows if isinstance(v := row.get(n), str)} for n in names}
    return twice_as_long(names, {n: sum(map(len, values)) for n, values in texts.items()})


def _group(
    names: Sequence[str], rows: Sequence[Row], taken: Collection[str]
) -> tuple[str, int] | None:
    """Return a column that may say to which participant a row belongs."""
    for name in names:
        if name.strip().casefold() in GROUPS and name not in taken and looks_like_name(name):
            count = len(_values(name, rows))
            if 2 <= count <= FEW and count <= len(rows) // 3:
                return name, count
    return None
