"""Which files a path means: a file, the data files of a folder, a pattern, or a list of these."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from tequio.core.errors import DataError
from tequio.core.texts.words import refusal

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
        raise refusal(DataError, "no-file-named", who=who)
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
            if found:
                return found
        raise refusal(DataError, "data-file-missing", file=f"{who} {path}", names=_near(path))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "NUL"
        raise refusal(DataError, "unreadable", path=f"{who} {path}", error=why) from None


def _inside(folder: Path, who: str) -> list[Path]:
    found = sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and not file.name.startswith((".", "~$")) and ending(file) in SUFFIXES
    )
    if not found:
        raise refusal(
            DataError, "folder-without-data", folder=f"{who} {folder}", names=[*SUFFIXES, *PACKED]
        )
    return found


def _near(path: Path) -> list[str] | None:
    """Return the files of the same stem in the same folder, if there are any."""
    stem = path.name.split(".", 1)[0].casefold()
    try:
        names = sorted(os.listdir(path.parent))
    except OSError:
        return None
    near = [n for n in names if stem and n.split(".", 1)[0].casefold() == stem and n != path.name]
    return near[:3] or None
