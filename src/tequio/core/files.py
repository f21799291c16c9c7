"""Open files that others chose: only regular ones, of a bounded size, and never one that makes the
reader wait.
"""

import errno
import hashlib
import io
import os
import stat
from pathlib import Path

KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a named pipe, and only ordinary files are read"),
    (stat.S_ISSOCK, "it is a socket, and only ordinary files are read"),
    (stat.S_ISCHR, "it is a device, and only ordinary files are read"),
    (stat.S_ISBLK, "it is a device, and only ordinary files are read"),
)


def open_regular(path: Path, most: int | None = None) -> io.BufferedReader:
    """Open a regular file for reading, without waiting for whoever writes a pipe.

    Raises OSError, with the reason as its `strerror`, for anything else and for a file of more than
    `most` bytes.
    """
    _check(path, os.stat(path), most)  # before it is opened: to open a device can do something
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(path, os.fstat(handle), most)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path, most: int) -> bytes:
    """Return the bytes of a regular file. Raises OSError as `open_regular` does."""
    with open_regular(path, most) as stream:
        data = stream.read(most + 1)
    if len(data) > most:  # it grew meanwhile, or its size is not known before, as in /proc
        raise _too_large(path, len(data), most)
    return data


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a regular file, hexadecimal. Raises OSError as `open_regular` does."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_regular(path: Path, most: int | None = None) -> None:
    """Raise OSError, with the reason, unless `path` is a regular file of at most `most` bytes."""
    _check(path, os.stat(path), most)


def _check(path: Path, found: os.stat_result, most: int | None) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(found.st_mode):
        why = next(
            (words for is_kind, words in KINDS if is_kind(found.st_mode)),
            "it is not an ordinary file",
        )
        raise OSError(errno.EINVAL, why, str(path))
    if most is not None and found.st_size > most:
        raise _too_large(path, found.st_size, most)


def _too_large(path: Path, size: int, most: int) -> OSError:
    return OSError(errno.EFBIG, f"it has {size:,} bytes, and at most {most:,} are read", str(path))
