"""A participant's data as examples: the public names of `reading`, in one place."""

from collections.abc import Sequence
from pathlib import Path

from tequio.participant.reading.examples import (
    LEFT_OUT,
    Columns,
    Example,
    FileReport,
    Form,
    Kind,
    Options,
    ReadReport,
    Turn,
)
from tequio.participant.reading.predictions import TEXT_COLUMNS, Asked, read_asked
from tequio.participant.reading.reader import Reading
from tequio.participant.reading.sources import SUFFIXES, Paths

__all__ = [
    "LEFT_OUT",
    "SUFFIXES",
    "Asked",
    "Columns",
    "Example",
    "FileReport",
    "Form",
    "Kind",
    "Options",
    "Paths",
    "ReadReport",
    "Reading",
    "Turn",
    "read_asked",
    "read_examples",
    "read_texts",
]


def read_examples(
    paths: Paths,
    columns: Columns,
    kind: Kind,
    labels: Sequence[str],
    participant: str,
    options: Options | None = None,
) -> list[Example]:
    """Read the usable rows of files in order.

    Raises DataError naming participant, file and line.
    """
    return list(Reading(paths, columns, kind, labels, participant, options))


def read_texts(path: Path, columns: Sequence[str] = TEXT_COLUMNS) -> list[str | None]:
    """Read one text per row of a file to predict; None for a row without text. Raises DataError."""
    return [asked.text for asked in read_asked(path, columns)]
