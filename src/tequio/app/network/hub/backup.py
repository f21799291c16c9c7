"""A copy of the coordinator's folder that can be restored, made while the coordinator serves:

`tequio backup`.

hub/             the folder itself, with its keys: only its owner may enter it (0700), and only its owner may read a file (0600)
federation.toml  as the coordinator's folder finds it
backup.json      when and by which version it was made, the last record's number and hash, and what a restore needs besides
SHA256SUMS       the digest of every file above, as `sha256sum --check SHA256SUMS` reads it

Each database is copied at one moment. The copy counts only if the ledger's last record is the same
before and after all files were copied, and if the copied run verifies. Locks, pid files,
`vitals.json` and unfinished files are of a process, and are left out.
"""

import hashlib
import json
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tequio
from tequio.app.models.verify import verify_run
from tequio.app.network.hub.folder import CoordinatorFolder, changing, read_coordinator_folder
from tequio.config import load_federation
from tequio.core.errors import ResourceError, RunError, TequioError
from tequio.core.texts.words import refusal
from tequio.ledger.copying import copy_database, is_database
from tequio.ledger.folder import LEDGER, RUN, sync_folder, written
from tequio.ledger.query import read_query

FORMAT = "tequio-backup-1"
HUB, MANIFEST, SUMS = "hub", "backup.json", "SHA256SUMS"
TRIES = 5
ARCHIVES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz"}
LEFT_OUT = {"lock", "enrolment.lock", "vitals.json"}
LEFT_OUT_ENDS = (".tmp", ".new", ".pid", "-wal", "-shm", "-journal")
PART = 1 << 20  # bytes read at once


class _Changed(Exception):
    """A file was written while it was copied."""


@dataclass(frozen=True)
class Backup:
    """What was made: its path, the number of files and bytes, the run's last record, and what is
    not in it.
    """

    path: Path
    files: int
    bytes: int
    records: int
    head: str
    outside: tuple[str, ...]

    def facts(self) -> dict[str, Any]:
        """The same for `--json`."""
        return {**vars(self), "path": str(self.path), "outside": list(self.outside)}


def back_up(folder: Path, target: Path) -> Backup:
    """Copy a coordinator's folder to a new folder, or to a new file whose name ends in .tar or
    .tar.gz.

    Raises:
        RunError: the target exists or lies inside the folder, or the folder holds what is no
        ordinary file. ResourceError: the copy cannot be written, or the folder changed during each
        try. ConfigError: `folder` is not a coordinator's.
    """
    hub_files = read_coordinator_folder(folder)
    _check_target(folder, target)
    with written(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        place = Path(
            tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        )  # 0700
    try:
        with written(target):
            made = _made(folder, hub_files, place)
            return _finished(place, target, made)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _check_target(folder: Path, target: Path) -> None:
    empty = target.is_dir() and not any(target.iterdir()) and _archive(target) is None
    if (target.exists() or target.is_symlink()) and not empty:
        raise refusal(RunError, "backup-target-taken", path=str(target))
    if target.resolve().is_relative_to(folder.resolve()):
        raise refusal(RunError, "backup-inside", path=str(target), folder=str(folder))


def _archive(target: Path) -> str | None:
    """The mode in which tarfile writes this target; None for a folder."""
    return next((mode for end, mode in ARCHIVES.items() if target.name.endswith(end)), None)


def _made(folder: Path, hub_files: CoordinatorFolder, place: Path) -> dict[str, Any]:
    """Copy everything below `place`, and return what backup.json says."""
    head = (0, "")
    for number in range(1, TRIES + 1):
        try:
            head = _copied(folder, place / HUB)
            break
        except (_Changed, FileNotFoundError):
            shutil.rmtree(place / HUB, ignore_errors=True)
            if number == TRIES:
                facts = {"folder": str(folder), "count": TRIES}
                raise refusal(ResourceError, "backup-outpaced", **facts) from None
    federation = Path(hub_files.federation)
    if federation.is_file():
        _copy_file(federation, place / federation.name)
    manifest = {
        "format": FORMAT,
        "tequio": tequio.__version__,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "records": head[0],
        "head": head[1],
        "federation": federation.name if federation.is_file() else None,
        "outside": _outside(folder, hub_files),
    }
    _write(place / MANIFEST, json.dumps(manifest, indent=1).encode())
    return manifest


def _copied(folder: Path, copy: Path) -> tuple[int, str]:
    """Copy the folder once. Returns number and hash of its last record.

    Raises _Changed or FileNotFoundError to try again.
    """
    copy.mkdir(0o700)
    ledger = folder / RUN / LEDGER
    if begun := ledger.exists():
        (copy / RUN).mkdir(0o700)
        copy_database(ledger, copy / RUN / LEDGER)
    with changing(
        folder
    ):  # who belongs is of one moment: roster, invitations, SuperLink's list of keys
        for name in sorted({*os.listdir(folder)} - {RUN}):
            _copy_tree(folder / name, copy / name)
    if (folder / RUN).exists():
        _copy_tree(folder / RUN, copy / RUN)
    if ledger.exists() != begun:
        raise _Changed
    if not begun:
        return 0, ""
    found = verify_run(copy / RUN)
    if read_query(ledger, "SELECT hash FROM head").rows != [(found["head"],)]:
        raise _Changed
    if not found["ok"]:
        raise refusal(RunError, "backup-unsound", folder=str(folder), error=found["problems"][0])
    return found["entries"], found["head"]


def _copy_tree(source: Path, copy: Path) -> None:
    """Copy a file, or a folder with all in it, but for what is of a process only.

    Raises RunError for a link or a device.
    """
    if source.name in LEFT_OUT or source.name.endswith(LEFT_OUT_ENDS):
        return
    mode = source.lstat().st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise refusal(RunError, "backup-odd-file", path=str(source))
    try:
        inside = sorted(os.listdir(source)) if stat.S_ISDIR(mode) else []
        database = stat.S_ISREG(mode) and is_database(source)
    except PermissionError as error:
        raise refusal(
            ResourceError, "backup-unreadable", path=str(source), error=error.strerror
        ) from None
    if stat.S_ISDIR(mode):
        copy.mkdir(0o700, exist_ok=True)
        for name in inside:
            _copy_tree(source / name, copy / name)
    elif not database:
        _copy_file(source, copy)
    elif (
        not copy.exists()
    ):  # the ledger was copied first: what it names is there when the other files are copied
        copy_database(source, copy)


def _copy_file(source: Path, copy: Path) -> None:
    """Copy a file whose size and time stay the same meanwhile; of a log, the part that was there at
    the beginning.
    """
    with source.open("rb") as stream:
        before = os.fstat(stream.fileno())
        left = before.st_size
        with open(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as fresh:
            while left > 0 and (part := stream.read(min(PART, left))):
                fresh.write(part)
                left -= len(part)
            fresh.flush()
            os.fsync(fresh.fileno())
        after = os.fstat(stream.fileno())
    grows = ".log" in source.suffixes
    if left or (
        not grows and (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
    ):
        raise _Changed


def _write(path: Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _outside(folder: Path, hub_files: CoordinatorFolder) -> list[str]:
    """Every file and folder elsewhere that the coordinator opens, in order: a backup has none
    of them.
    """
    named = [folder / path for path in (hub_files.certificate, hub_files.key, hub_files.authority)]
    try:
        config = load_federation(Path(hub_files.federation))
    except TequioError:
        config = None  # a federation.toml that cannot be read is copied as it is
    if config is not None:
        named += [Path(os.path.expanduser(base.model)) for base in (config.base, *config.bases)]
        named += [*config.gate.slices.values()]
        named += [
            path for path in (config.local.data, config.centre and config.centre.data) if path
        ]
    outside = {
        str(path.absolute()) for path in named if path.exists() and not _inside(path, folder)
    }
    return sorted(outside)


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _files(place: Path) -> Iterator[Path]:
    yield from sorted(path for path in place.rglob("*") if path.is_file())


def _finished(place: Path, target: Path, made: dict[str, Any]) -> Backup:
    """Write the digests, and give the copy its name: it appears whole or not at all."""
    lines, size = [], 0
    for path in _files(place):
        with path.open("rb") as stream:
            lines.append(
                f"{hashlib.file_digest(stream, 'sha256').hexdigest()}  {path.relative_to(place)}\n"
            )
        size += path.stat().st_size
    _write(place / SUMS, "".join(lines).encode())
    mode = _archive(target)
    if mode is None:
        if target.is_dir():
            target.rmdir()  # it is empty
        os.rename(place, target)
    else:
        fresh = place / "archive"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            _write_archive(stream, mode, place, target)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(fresh, target)
    sync_folder(target.parent)
    return Backup(target, len(lines), size, made["records"], made["head"], tuple(made["outside"]))


def _write_archive(stream: Any, mode: str, place: Path, target: Path) -> None:
    """One folder named as the archive is, without its ending."""
    name = target.name
    for end in ARCHIVES:
        name = name.removesuffix(end)
    with tarfile.open(fileobj=stream, mode=mode) as archive:  # type: ignore[call-overload]
        for entry in (
            HUB,
            *sorted(path.name for path in place.iterdir() if path.name not in (HUB, "archive")),
        ):
            archive.add(place / entry, f"{name or 'backup'}/{entry}", filter=_nameless)


def _nameless(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the user's name and number: who unpacks it owns it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry
