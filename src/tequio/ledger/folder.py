"""The folder of one run: where its ledger lies, the lock for its one writer, and files written
whole.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from tequio.core.errors import ResourceError, RunBusy, RunError
from tequio.core.texts.words import refusal

LEDGER = "ledger.sqlite"
LOCK = "lock"
IDENTITY, COORDINATOR_FILE, RUN, BUNDLE = "identity.json", "coordinator.json", "run", "bundle"
"""Across a network the run is a folder in that of a participant or of a coordinator, which such a
file tells; bundle: of one who left.
"""
# in a run: folders of what is one participant's, closed to others of the machine
PARTICIPANTS = "participants"

# of a folder that others may read, as far as the umask lets them; only its owner writes there
OPEN = 0o755
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


class RunFolder:
    """A run's folder. `create` makes one, `open` finds one; `path` is the folder itself."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, private: bool = False) -> RunFolder:
        """A new folder, or an empty one, or one whose run was cut off before its ledger was
        written.

        private: nobody but its owner may enter it.
        Raises RunError if it holds a run already or anything else, ResourceError if it cannot be
        written.
        """
        if (path / LEDGER).exists():
            facts = {"path": str(path), "command": resume_command(path)}
            raise refusal(RunError, "record-exists" if private else "run-exists", **facts)
        if path.exists() and not path.is_dir():
            raise refusal(RunError, "path-is-a-file", path=str(path))
        with written(path):
            path.mkdir(OPEN, parents=True, exist_ok=True)
            if any(path.iterdir()) and not (path / LOCK).exists():
                raise refusal(RunError, "folder-in-use", path=str(path))
            os.close(_open_lock(path / LOCK))
            sync_folder(path)
        if private:
            own_folder(path)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run. Raises RunError if there is no ledger in it."""
        if not (path / LEDGER).is_file():
            code = "not-a-run-but-around-one" if (path / RUN / LEDGER).is_file() else "not-a-run"
            raise refusal(RunError, code, path=str(path), run=str(path / RUN), file=LEDGER)
        return cls(path)

    @property
    def ledger_path(self) -> Path:
        """Where this run's ledger lies."""
        return self.path / LEDGER

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only writer while inside.

        The kernel frees the lock when the process ends, however it ends.

        Raises RunBusy, naming the process that holds it; ResourceError if the lock cannot be made.
        """
        with written(self.path / LOCK):
            handle = _open_lock(self.path / LOCK)
        try:
            self._take(handle)
            yield
        finally:
            os.close(handle)

    def _take(self, handle: int) -> None:
        with written(self.path / LOCK):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
                process = pid if pid.isdecimal() else None
                raise refusal(RunBusy, "run-busy", path=str(self.path), process=process) from None
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)

    def write_atomic(self, relative: str, data: bytes, private: bool = False) -> Path:
        """Write a file of the run whole or not at all: the old bytes or the new are there, durably.

        `relative` is a path inside the folder with `/`; missing subfolders are made. Returns the
        file's path.
        private: only its owner may read it. Raises RunError if `relative` leaves the folder,
            ResourceError if it cannot be written.
        """
        target = self._inside(relative)
        unique = f".{target.name}.{os.getpid()}-{threading.get_ident()}.tmp"
        fresh = target.with_name(unique)
        with written(target):
            _make_folders(target.parent, self.path)
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                with open(os.open(fresh, flags, 0o600 if private else 0o644), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                replace_durably(fresh, target)
            except BaseException:
                with suppress(OSError):
                    fresh.unlink(missing_ok=True)
                raise
        return target

    def _inside(self, relative: str) -> Path:
        pure = PurePosixPath(relative)
        unsafe = pure.is_absolute() or ".." in pure.parts or "\0" in relative or not pure.name
        unsafe = (
            unsafe
            or relative.endswith("/")
            or pure.parts[0] == LOCK
            or pure.parts[0].startswith(LEDGER)
        )
        target = self.path / pure
        if unsafe or not target.parent.resolve().is_relative_to(self.path.resolve()):
            facts = {"file": repr(relative), "path": str(self.path), "taken": [LOCK, LEDGER]}
            raise refusal(RunError, "file-name-refused", **facts)
        return target


def _open_lock(path: Path) -> int:
    """Open a run's lock, made if need be.

    Raises RunError for a link: what it leads to would be overwritten.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise refusal(RunError, "lock-is-a-link", path=str(path)) from None


def replace_durably(fresh: Path, target: Path) -> None:
    """Give `fresh` (already synced) the name `target`, and sync the folder.

    Raises ResourceError.
    """
    with written(target):
        os.replace(fresh, target)
        sync_folder(target.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_folders(path: Path, run: Path) -> None:
    if path.is_dir():
        return
    _make_folders(path.parent, run)
    within = path.relative_to(run).parts if path.is_relative_to(run) else ()
    closed = PARTICIPANTS in within or (run.is_dir() and not open_to_others(run))
    path.mkdir(0o700 if closed else OPEN, exist_ok=True)
    sync_folder(path.parent)


def own_folder(path: Path) -> Path:
    """A folder that nobody but its owner may enter: made, or closed if it is there.

    Raises ResourceError.
    """
    with written(path):
        path.mkdir(0o700, parents=True, exist_ok=True)
        if open_to_others(path):
            try:
                path.chmod(0o700)
            except PermissionError:
                raise refusal(ResourceError, "folder-open-to-others", path=str(path)) from None
    return path


def open_to_others(path: Path) -> bool:
    """Whether other users of this machine may list, enter or change it."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def network_command(run: Path) -> str | None:
    """The command that goes on with a run across a network, from the name and place of its
    folder;

    None for another one.
    """
    if run.name == RUN and (run.parent / IDENTITY).exists():
        return f"tequio participate {run.parent}"
    if run.name == RUN and (run.parent / COORDINATOR_FILE).exists():
        return f"tequio coordinator start {run.parent}"
    return None


def resume_command(run: Path) -> str:
    """The command that goes on with the run in this folder."""
    return network_command(run) or network_command(run.resolve()) or f"tequio run --resume {run}"


def go_on(path: Path) -> str:
    """The command that goes on with the run to which a file belongs, for the end of a sentence;
    what has no ledger yet is begun again.
    """
    for folder in path.parents:
        if (named := network_command(folder)) is not None:
            again = (
                "continue with"
                if (folder.parent / COORDINATOR_FILE).exists()
                else "give the command again, for instance"
            )
            return f"then {again} `{named}`."
        if folder.name.startswith("."):  # what is made there appears whole or not at all
            break
        if (folder / LEDGER).exists():
            return f"then continue with `tequio run --resume {folder}`."
    return "then give the command again."


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Turns the system's errors within into ResourceError, naming `path`."""
    try:
        yield
    except OSError as error:
        found = {
            "write-no-space": error.errno in _NO_SPACE,
            "write-read-only": error.errno in _NOT_WRITABLE,
        }
        code = next((code for code, holds in found.items() if holds), "write-failed")
        said = error.strerror or str(error)
        raise refusal(ResourceError, code, path=str(path), error=said, next=go_on(path)) from error
