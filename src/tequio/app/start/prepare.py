"""From files to a federation ready to run:

`look`, then `tequio.app.start.proposal.propose`, then `write`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tequio.app.start.groups import participants_of, rows_by, write_groups
from tequio.app.start.naming import names_of
from tequio.app.start.shape import shape_of
from tequio.app.start.survey import Survey, survey, survey_of
from tequio.core.errors import ConfigError, DataError, ResourceError
from tequio.core.texts.words import refusal
from tequio.participant.data import Columns, Example, Kind, Options
from tequio.participant.reading.sources import files_of

MOST_FOLDERS = 1000


@dataclass(frozen=True)
class Look:
    """Hold what was found, and the rows by participant where a column splits them."""

    found: Survey
    groups: Mapping[str, list[Example]]
    without_group: int = 0


def columns_of(pairs: Sequence[str]) -> Columns:
    """Read `ROLE=NAME` pairs. Raises ConfigError."""
    given: dict[str, str] = {}
    roles = list(Columns.__dataclass_fields__)
    for pair in pairs:
        role, equals, name = pair.partition("=")
        if role not in roles or not equals or not name:
            known = [f"{role}=NAME" for role in roles]
            raise refusal(ConfigError, "option-unfit", option="--column", value=pair, names=known)
        given[role] = name
    return Columns(**given)


def look(
    files: Sequence[Path],
    by: str | None = None,
    columns: Columns | None = None,
    options: Options | None = None,
    task: Kind | None = None,
) -> Look:
    """Read the files and count what is in them; one participant per file, or per value of
    column `by`.

    A single folder or pattern means each of its files. Raises DataError naming the file.
    """
    own, how = columns or Columns(), options or Options()
    paths = [path.expanduser().absolute() for path in files]
    if len(paths) == 1:
        paths = files_of(paths[0], "tequio:")
    if len(set(paths)) < len(paths):
        double = next(path for number, path in enumerate(paths) if path in paths[:number])
        raise refusal(DataError, "named-twice", path=double)
    if by is not None and len(paths) > 1:
        raise refusal(ConfigError, "several-files-by", count=len(paths))
    names = names_of(paths)
    shapes = [(n, p, shape_of(p, n, own, how, task)) for n, p in zip(names, paths, strict=True)]
    found = survey(shapes)
    if by is None:
        return Look(found, {})
    groups, without = rows_by(paths[0], by, shapes[0][2], found.labels)
    return Look(
        survey_of(found.kind, found.labels, participants_of(groups, shapes[0][2])), groups, without
    )


def new_folder(out: Path | None, name: str) -> Path:
    """Return the folder to write: `out`, or the first of NAME, NAME-2, ... that is not there.

    Raises ConfigError.
    """
    if out is None:
        candidates = (
            Path(name if number == 1 else f"{name}-{number}") for number in range(1, MOST_FOLDERS)
        )
        out = next((path for path in candidates if not path.exists()), Path(name))
    if (out / "federation.toml").exists():
        raise refusal(ConfigError, "folder-written-before", path=str(out / "federation.toml"))
    return out


def check(proposal: Any, folder: Path) -> dict[str, dict[str, int]]:
    """Return the texts of each split by participant.

    Raises DataError where a participant has too few.
    """
    from tequio.app.assembly.context import read_splits
    from tequio.config import Federation, ParticipantFile, validated

    config = validated(
        {
            **proposal.federation,
            "participants": [{"name": p["name"]} for p in proposal.participants],
        },
        Federation,
        folder / "federation.toml",
    )
    own = folder / "participants"
    files = (
        validated(person, ParticipantFile, own / f"{person['name']}.toml")
        for person in proposal.participants
    )
    return {file.name: read_splits(config, file).facts()["counts"] for file in files}


def write(proposal: Any, seen: Look, folder: Path) -> Path:
    """Write the files of a proposal, and the rows by participant where a column splits them; return
    federation.toml.
    """
    from tequio.app.start.proposal import with_files
    from tequio.config.templates import write_federation

    if seen.groups:
        try:
            proposal = with_files(proposal, write_groups(seen.groups, folder / "data"))
        except FileExistsError:
            raise refusal(ConfigError, "data-folder-in-use", path=str(folder / "data")) from None
        except OSError as error:
            raise refusal(
                ResourceError, "folder-unwritable", path=str(folder), error=error.strerror
            ) from None
    return write_federation(folder, proposal.federation, proposal.participants)
