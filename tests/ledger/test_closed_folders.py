"""A run's lock follows no link, and what Tequio makes can be changed by its owner alone, whatever
the umask.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from builders import refused
from tequio.core.errors import RunError
from tequio.ledger.folder import RunFolder, own_folder
from tequio.trust.keys import write_secret


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_is_whole(tmp_path: Path) -> None:
    outside, run = tmp_path / "outside", tmp_path / "run"
    outside.write_text("precious")
    run.mkdir()
    (run / "lock").symlink_to(outside)
    with refused(RunError, "lock-is-a-link"):
        RunFolder.create(run)
    with refused(RunError, "lock-is-a-link"), RunFolder(run).lock():
        pass
    assert outside.read_text() == "precious"
    (run / "lock").unlink()
    (run / "lock").symlink_to(tmp_path / "new")
    with refused(RunError, "lock-is-a-link"), RunFolder(run).lock():
        pass
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("mask", "expected"), [(0o000, 0o755), (0o022, 0o755), (0o027, 0o750), (0o077, 0o700)]
)
def test_only_its_owner_writes_into_a_run(tmp_path: Path, mask: int, expected: int) -> None:
    with umask(mask):
        run = RunFolder.create(tmp_path / "run")
        run.write_atomic("bases/small/shared.safetensors", b"numbers")
        run.write_atomic("participants/ana/personal.safetensors", b"numbers")
    assert mode(run.path) == mode(run.path / "bases") == mode(run.path / "bases/small") == expected
    assert mode(run.path / "participants") == 0o700
    assert not mode(run.path / "bases/small/shared.safetensors") & 0o022


def test_all_folders_within_a_private_one_are_private(tmp_path: Path) -> None:
    with umask(0o000):
        hub = RunFolder(own_folder(tmp_path / "hub"))
        hub.write_atomic("tls/server.pem", b"certificate")
        write_secret(hub.path / "invitations" / "ana.json", b"token")
        private = RunFolder.create(tmp_path / "private", private=True)
        private.write_atomic("some/where/file", b"x")
    for folder in (
        hub.path / "tls",
        hub.path / "invitations",
        private.path / "some",
        private.path / "some/where",
    ):
        assert mode(folder) == 0o700, folder


@pytest.mark.parametrize(
    ("mask", "expected"), [(0o000, 0o022), (0o002, 0o002), (0o027, 0o027), (0o077, 0o077)]
)
def test_a_command_never_makes_what_anybody_can_change(mask: int, expected: int) -> None:
    program = (
        "import os; from tequio.cli.environment import prepare_process; "
        f"os.umask({mask}); prepare_process(); print(os.umask(0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == expected
