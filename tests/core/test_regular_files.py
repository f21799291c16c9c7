"""Only ordinary files are opened, of a bounded size, and no pipe lets its reader wait."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from tequio.core.files import check_regular, digest_file, open_regular, read_regular


def test_an_ordinary_file_is_read_and_hashed_also_by_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "words", tmp_path / "link"
    path.write_bytes(b"some words")
    link.symlink_to(path)
    for name in (path, link):
        check_regular(name, 10)
        assert read_regular(name, 10) == b"some words"
        assert digest_file(name) == hashlib.sha256(b"some words").hexdigest()
    with open_regular(path) as stream:
        assert os.get_inheritable(stream.fileno()) is False


def test_anything_else_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name, words in (
            ("pipe", "named pipe"),
            ("socket", "socket"),
            ("/dev/zero", "device"),
            (".", "folder"),
        ):
            for read in (open_regular, check_regular, digest_file):
                with pytest.raises(OSError, match=words) as caught:
                    read(tmp_path / name)
                assert words in str(caught.value.strerror)


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)  # sparse
    with pytest.raises(OSError, match="1,099,511,627,776 bytes, and at most 1,000 are read"):
        read_regular(path, 1000)
    with pytest.raises(OSError, match="at most 10 are read"):  # of a size that is not known before
        read_regular(Path("/proc/self/status"), 10)
