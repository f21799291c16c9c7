"""Files that a coordinator's federation.toml names and participants open: each only where it is the
coordinator's own.

A path in federation.toml means another file on each machine. So the coordinator's folder records
the SHA-256 of its files, invitations carry it, `join` shows it, and a participant opens what stands
at such a path only where it has that digest. What a participant names in participant.toml is its
own choice, and is not concerned.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tequio.app.run_files import json_table
from tequio.config import MAIN, Federation
from tequio.core.errors import BaseModelError, ConfigError, DataError, NetworkError
from tequio.core.files import digest_file
from tequio.core.texts.words import refusal
from tequio.participant.base_files import digest_base_files

FILES = "files.json"  # in a participant's folder: what its invitation said of these files
LOCAL_DATA = "[local] data"


def base_key(base: str) -> str:
    """Return the key of federation.toml that says where a base is; base: as the roster calls it."""
    return "[base] model" if base == MAIN else f"[[bases]] {base}, model"


def coordinator_digests(config: Federation) -> dict[str, str]:
    """Return the digest of each such file at the coordinator, by the key that names it.

    A base by an id of the hub is none.

    Raises DataError or BaseModelError for a file that cannot be read.
    """
    return {key: _digest(key, path) for key, path in _named(config)}


def check_unchanged(config: Federation, agreed: Mapping[str, str], begun: bool) -> None:
    """Raise NetworkError where a file at the coordinator is not the one that participants agreed to
    any more.

    begun: the run has begun, and its record says which base it has.
    """
    for key, path in _named(config):
        if (
            key in agreed
            and not (begun and key != LOCAL_DATA)
            and _digest(key, path) != agreed[key]
        ):
            raise refusal(NetworkError, "file-changed", key=key, path=str(path), digest=agreed[key])


def _named(config: Federation) -> Iterator[tuple[str, Path]]:
    if config.local.data is not None:
        yield LOCAL_DATA, config.local.data
    for base, model in [
        (MAIN, config.base.model),
        *((further.name, further.model) for further in config.bases),
    ]:
        if os.path.exists(path := os.path.expanduser(model)):
            yield base_key(base), Path(path)


def _digest(key: str, path: Path) -> str:
    """Return the SHA-256 of a file, or over the files of a base.

    Raises DataError or BaseModelError, naming it.
    """
    try:
        return digest_file(path) if key == LOCAL_DATA else digest_base_files(path)
    except IsADirectoryError:
        raise refusal(DataError, "file-is-a-folder", key=key, path=str(path)) from None
    except OSError as error:
        kind = DataError if key == LOCAL_DATA else BaseModelError
        raise refusal(
            kind, "file-unreadable", key=key, path=str(path), error=error.strerror
        ) from None


def lines(config: Federation, base: str, files: Mapping[str, str]) -> list[str]:
    """Return what `join` says of the files of the coordinator's choice that one over this base
    opens, a line each.

    config: of that base alone, its paths as the invitation has them. Raises ConfigError for one
        without a digest.
    """
    out = []
    if (data := config.local.data) is not None:
        if LOCAL_DATA not in files:
            raise refusal(ConfigError, "file-without-digest", key=LOCAL_DATA, path=data)
        terms = ", ".join(f"{name} {strength:g}" for name, strength in config.local.terms.items())
        out.append(
            f"{os.path.expanduser(data)}: texts for the local terms ({terms}). SHA-256 "
            f"{files[LOCAL_DATA]}."
        )
    if (key := base_key(base)) in files:
        path = os.path.expanduser(config.base.model)
        out.append(
            f"{path}: the base model, unless your file names another. SHA-256 over its files "
            f"{files[key]}."
        )
    return out


def read_agreed_files(folder: Path) -> dict[str, str] | None:
    """Return what the invitation said of these files;

    None for a folder that joined with an earlier version.
    """
    path = folder / FILES
    return {key: str(value) for key, value in json_table(path).items()} if path.exists() else None


def check_agreed(
    config: Federation, base: str, files: Mapping[str, str] | None, own_base: bool, begun: bool
) -> None:
    """Check each file of the coordinator's choice before a participant opens it.

    Args:
        config: of its base alone, with absolute paths.
        base: as the roster calls it.
        files: what the invitation said; None where an earlier version joined, which knew no
            digests.
        own_base: participant.toml says where the base is.
        begun: the participant has a record, which says which base it is.
    Raises:
        ConfigError: nobody said which file it must be.
        DataError, BaseModelError: it is not the coordinator's, or cannot be read.
    """
    if files is None and begun:
        return
    agreed = files or {}
    if config.local.data is not None:
        _check(LOCAL_DATA, config.local.data, agreed)
    path = Path(config.base.model).expanduser()
    if not own_base and not begun and os.path.exists(path):
        _check(base_key(base), path, agreed)


def _check(key: str, path: Path, agreed: Mapping[str, str]) -> None:
    if key not in agreed:
        if key == LOCAL_DATA:
            raise refusal(ConfigError, "file-without-digest", key=key, path=path)
        raise refusal(ConfigError, "file-of-this-machine", key=key, path=str(path))
    if (found := _digest(key, path)) != agreed[key]:
        kind, code = (
            (DataError, "file-of-another")
            if key == LOCAL_DATA
            else (BaseModelError, "base-of-another")
        )
        raise refusal(kind, code, key=key, path=str(path), digest=agreed[key], found=found)
