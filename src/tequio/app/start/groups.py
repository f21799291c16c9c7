"""Split one table among participants by a column, into files below the new folder (`--by
COLUMN`).
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tequio.app.start.naming import plain_name
from tequio.app.start.shape import LABEL_LENGTH, Shape
from tequio.app.start.survey import Participant
from tequio.core.errors import DataError
from tequio.core.texts.words import refusal
from tequio.participant.data import Columns, Example, Options
from tequio.participant.reading.labels import BadRow, Labels, is_missing
from tequio.participant.reading.opened import open_file
from tequio.participant.reading.shapes import Missing, Plan, example, plan_for
from tequio.participant.reading.sources import files_of
from tequio.participant.reading.streams import Source
from tequio.participant.reading.wanted import Wanted

MOST = 100  # participants


def rows_by(
    path: Any, column: str, shape: Shape, labels: tuple[str, ...]
) -> tuple[dict[str, list[Example]], int]:
    """Return the usable rows by participant, and how many rows name none. Raises DataError."""
    wanted = Wanted(shape.kind, shape.columns, Labels(labels))
    groups: dict[str, list[Example]] = {}
    spelled: dict[str, str] = {}
    nobody = 0
    for file in files_of(path, "--by:"):
        opened = open_file(Source(file, "--by:"), wanted, shape.options)
        if opened.fixed and column not in opened.names:
            raise refusal(DataError, "column-missing", file=opened.source.at(), column=column)
        plans: dict[tuple[str, ...], Plan] = {}
        for place, row in opened.read(None):
            value = row.get(column)
            if is_missing(value) or not isinstance(value, str | int):
                nobody += 1
                continue
            made = _example(
                row, plans, wanted, opened.classes, opened.source, f"{opened.unit} {place}"
            )
            if made is None:
                continue
            name = plain_name(str(value)[:LABEL_LENGTH])
            if spelled.setdefault(name.casefold(), name) not in groups and len(groups) == MOST:
                raise refusal(
                    DataError, "too-many-owners", file=opened.source.at(), column=column, most=MOST
                )
            groups.setdefault(spelled[name.casefold()], []).append(made)
    if not groups:
        raise refusal(DataError, "no-owner", column=column, rows=nobody)
    return groups, nobody


def _example(
    row: Mapping[str, Any],
    plans: dict[tuple[str, ...], Plan],
    wanted: Wanted,
    classes: Mapping[str, tuple[str, ...]],
    source: Source,
    place: str,
) -> Example | None:
    names = tuple(row)
    try:
        if names not in plans:
            plans[names] = plan_for(names, wanted, ())
        return example(row, plans[names], wanted, classes)[0]
    except Missing as error:
        raise refusal(
            DataError, "column-missing", file=source.at(place), column=error.column
        ) from None
    except BadRow as error:
        raise error.at(source.at(place)) from None


def write_groups(groups: Mapping[str, list[Example]], folder: Path) -> dict[str, Path]:
    """Write each participant's rows as JSON lines in standard columns; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    out = {}
    for name, rows in groups.items():
        out[name] = folder / f"{name}.jsonl"
        private = os.open(out[name], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(private, "w", encoding="utf-8") as stream:
            stream.writelines(json.dumps(_row(e), ensure_ascii=False) + "\n" for e in rows)
    return out


def _row(made: Example) -> dict[str, Any]:
    if made.turns is not None:
        return {"messages": [{"role": role, "content": text} for role, text in made.turns]}
    if made.response is not None:
        return {"prompt": made.text, "response": made.response}
    return {"text": made.text} if made.label is None else {"text": made.text, "label": made.label}


def participants_of(groups: Mapping[str, list[Example]], shape: Shape) -> tuple[Participant, ...]:
    """Return the participants that the groups make, counted."""
    own = Shape(shape.kind, Columns(), Options(), shape.opened)
    people = tuple(
        Participant(name, Path(f"{name}.jsonl"), own, rows=len(rows))
        for name, rows in groups.items()
    )
    for person in people:
        person.count(groups[person.name])
    return people
