"""Reading texts to predict: one entry per row of a file, with its number."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tequio.core.errors import DataError
from tequio.core.texts.words import refusal
from tequio.participant.reading.examples import Columns, Options
from tequio.participant.reading.labels import BadRow
from tequio.participant.reading.names import found, usual
from tequio.participant.reading.opened import Opened, open_file
from tequio.participant.reading.shapes import text_at
from tequio.participant.reading.sources import SUFFIXES, ending, files_of
from tequio.participant.reading.streams import Source, text_of
from tequio.participant.reading.wanted import Wanted

WHO = "Texts to predict:"
TEXT_COLUMNS = ("text", "prompt")


@dataclass(frozen=True)
class Asked:
    """Hold one row: its number from 1 (the header and blank lines do not count), and its text.

    text: None where the row has none.
    """

    row: int
    text: str | None


def read_asked(
    path: Path, columns: Sequence[str] = TEXT_COLUMNS, options: Options | None = None
) -> list[Asked]:
    """Read of a table the first of `columns` that it has, of any other file its lines.

    Raises DataError.

    Where `text` is among `columns` and the table has none of them, another usual name of texts will
    do.
    """
    files = files_of(path, WHO)
    if len(files) > 1:
        raise refusal(DataError, "several-files", path=path, count=len(files))
    (file,) = files
    source, options = Source(file, WHO), options or Options()
    if ending(file) not in SUFFIXES:
        lines = (line.strip() for line in text_of(source, options.encoding).lines())
        return [Asked(number, line or None) for number, line in enumerate(lines, 1)]
    opened = open_file(source, Wanted("causal", Columns(text=columns[0])), options)
    return list(_asked(opened, columns))


def _asked(opened: Opened, columns: Sequence[str]) -> Iterator[Asked]:
    column = _column(opened.names, columns) if opened.fixed else None
    if opened.fixed and column is None:
        raise _no_text(opened, columns, opened.names, "")
    for number, (line, row) in enumerate(opened.read({column} if column else None), 1):
        where = f"{opened.unit} {line}"
        name = column or _column(tuple(row), columns)
        if name is None:
            raise _no_text(opened, columns, tuple(row), where)
        try:
            text = text_at(row, name)
        except BadRow as error:
            raise error.at(opened.source.at(where)) from None
        yield Asked(number, text if text.strip() else None)


def _column(names: tuple[str, ...], columns: Sequence[str]) -> str | None:
    if given := [name for name in columns if name in names]:
        return given[0]
    if names == ("1",):
        return "1"
    return usual("prompt", names) or usual("text", names) if "text" in columns else None


def _no_text(
    opened: Opened, columns: Sequence[str], names: tuple[str, ...], where: str
) -> DataError:
    why = found(names, opened.genuine, opened.shown, ())[0]
    return refusal(
        DataError, "no-text-column", file=opened.source.at(where), names=list(columns), why=why
    )
