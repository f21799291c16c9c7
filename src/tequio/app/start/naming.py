"""Names of participants and federations from names of files and folders."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from tequio.participant.reading.sources import PACKED


def plain_name(text: str, otherwise: str = "participant") -> str:
    """Return what a name may hold: accents are dropped, other signs become hyphens."""
    letters = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in letters if not unicodedata.combining(c))
    name = re.sub(r"[^A-Za-z0-9_.]+", "-", plain)
    return name.strip("_.-")[:64].rstrip("_.-") or otherwise


def names_of(files: Sequence[Path]) -> list[str]:
    """Return one name for each file, all different even where case does not count."""
    names: list[str] = []
    taken: set[str] = {"shared"}
    for number, file in enumerate(files, 1):
        stem = file.name
        while Path(stem).suffix.lower() in PACKED:
            stem = Path(stem).stem
        name = plain_name(Path(stem).stem, f"participant-{number}")
        base, count = name, 1
        while name.casefold() in taken:
            count += 1
            name = f"{base[:58]}-{count}"
        taken.add(name.casefold())
        names.append(name)
    return names
