"""Which files a path means: a file, the data files of a folder, a pattern, or a list of these."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from tequio.core.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".xlsx")
PACKED = (".gz", ".zst", ".bz2", ".xz")
PLAIN = (".txt", ".tab", ".dat", ".data")
Paths = Path | Sequence[Path]


def ending(path: Path) -> str:
    """Return a file's ending in lower case, without that of its compression."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in PACKED else suffix


def files_of(paths: Paths, who: str) -> list[Path]:
    """Return the files that a path or several mean, in order, each once.

    A folder means its files with an accepted ending, hidden ones aside; it is not searched deeper.
    Raises DataError where there is no such file.
    """
    every = [paths] if isinstance(paths, Path) else paths
    out = dict.fromkeys(file for path in every for file in _files(path, who))
    if not out:
        raise DataError(f"{who} no file is named.", "The list of paths is empty.", "Name a file under [data].")
    return list(out)


def _files(path: Path, who: str) -> list[Path]:
    try:
        if path.is_dir():
            return _inside(path, who)
        if path.exists():
            return [path]
        if glob.has_magic(str(path)):
            found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
            found = [file for file in found if file.is_file()]
            if not found:
                raise DataError(f"{who} no file matches {path}.", "", "Correct the pattern under [data].")
            return found
        raise DataError(
            f"{who} there is no file {path}.", "", f"Correct the path, for participants under [data].{_near(path)}"
        )
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it holds a NUL"
        raise DataError(f"{who} {path} cannot be read ({why}).") from None


def _inside(folder: Path, who: str) -> list[Path]:
    found = sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and not file.name.startswith((".", "~$")) and ending(file) in SUFFIXES
    )
    if not found:
        accepted = f"Accepted: {', '.join(SUFFIXES)}, also compressed ({', '.join(PACKED)})."
        raise DataError(f"{who} {folder} is a folder", "without a data file in it.", accepted)
    return found


def _near(path: Path) -> str:
    """Return a hint to a file of the same stem in the same folder, if there is one."""
    stem = path.name.split(".", 1)[0].casefold()
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        return ""
    near = [n for n in names if stem and n.split(".", 1)[0].casefold() == stem and n != path.name]
    return f" There is {near[0]} in that folder." if near else ""
