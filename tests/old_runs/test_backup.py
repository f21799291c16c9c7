"""The drill: a coordinator's folder is backed up, lost, restored, and goes on, with the folders of
an older commit's runs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import stat
import tarfile
import threading
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from make import NAMES, background, tequio, until
from test_old_runs import check_read, check_same_end, hashes, renewed, unpacked

from tequio.app.models.verify import verify_run
from tequio.app.network.hub.backup import MANIFEST, SUMS, back_up
from tequio.app.network.hub.folder import open_coordinator_folder
from tequio.app.network.monitoring.status import read_status
from tequio.core.errors import TequioError
from tequio.ledger.record import Ledger

Patch = pytest.MonkeyPatch


def code(hub: Path, target: Path) -> str:
    with pytest.raises(TequioError) as caught:
        back_up(hub, target)
    assert caught.value.reason is not None
    return caught.value.reason.code


def check_digests(copy: Path) -> int:
    """Check every file of a backup as `sha256sum --check SHA256SUMS` does; returns how many
    there are.
    """
    lines = (copy / SUMS).read_text(encoding="utf-8").splitlines()
    for line in lines:
        expected, name = line.split("  ", 1)
        assert hashlib.sha256((copy / name).read_bytes()).hexdigest() == expected, name
    present = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()} - {SUMS}
    assert {line.split("  ", 1)[1] for line in lines} == present
    return len(lines)


def test_a_lost_folder_is_restored_from_a_folder(tmp_path: Path, monkeypatch: Patch) -> None:
    root = unpacked("network-finished", tmp_path, monkeypatch)
    hub, copy = root / "hub", root / "copies" / "monday"
    before = hashes(hub / "run")
    made = back_up(hub, copy)
    assert (made.records, made.head) == (len(before), before[-1])
    assert check_digests(copy) == made.files
    manifest = json.loads((copy / MANIFEST).read_text(encoding="utf-8"))
    assert (manifest["format"], manifest["head"]) == ("tequio-backup-1", before[-1])
    outside = {Path(path).name for path in manifest["outside"]}
    assert outside == {"base", "centre.jsonl", "slice.jsonl"}
    for path in copy.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    shutil.rmtree(hub)
    shutil.copytree(copy / "hub", hub)
    assert hashes(hub / "run") == before
    assert verify_run(hub / "run")["ok"]
    assert read_status(hub)["state"] == "finished"
    check_read("network-finished", hub / "run")


def test_a_backup_finds_its_federation_anywhere(tmp_path: Path, monkeypatch: Patch) -> None:
    root = unpacked("network-stopped", tmp_path, monkeypatch)
    back_up(root / "hub", root / "copy.tar.gz")
    assert stat.S_IMODE((root / "copy.tar.gz").stat().st_mode) == 0o600
    (root / "federation.toml").unlink()
    with tarfile.open(root / "copy.tar.gz") as archive:
        archive.extractall(root / "elsewhere", filter="tar")
    copy = root / "elsewhere" / "copy"
    check_digests(copy)
    found = open_coordinator_folder(copy / "hub")
    assert Path(found.federation).resolve() == (copy / "federation.toml").resolve()
    assert stat.S_IMODE((copy / "hub" / "tls" / "authority.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((copy / "hub").stat().st_mode) == 0o700
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == [], (
        "no unfinished copy is left"
    )


def test_a_folder_that_was_not_started_yet_is_backed_up(tmp_path: Path, monkeypatch: Patch) -> None:
    root = unpacked("network-stopped", tmp_path, monkeypatch)
    for name in ("run", "superlink"):
        shutil.rmtree(root / "hub" / name)
    (root / "copy").mkdir(mode=0o755)
    made = back_up(root / "hub", root / "copy")  # an empty folder becomes the backup
    assert (made.records, made.head) == (0, "")
    assert stat.S_IMODE((root / "copy").stat().st_mode) == 0o700
    check_digests(root / "copy")
    assert (root / "copy" / "hub" / "secret").read_bytes() == (root / "hub" / "secret").read_bytes()


def test_what_cannot_be_backed_up_is_refused(tmp_path: Path, monkeypatch: Patch) -> None:
    root = unpacked("network-finished", tmp_path, monkeypatch)
    hub = root / "hub"
    (root / "full").mkdir()
    (root / "full" / "file").touch()
    assert code(hub, root / "full") == "backup-target-taken"
    assert code(hub, root / "federation.toml") == "backup-target-taken"
    assert code(hub, hub / "copy") == "backup-inside"
    assert code(root / "site0", root / "copy") == "not-a-coordinator"
    (hub / "link").symlink_to("/etc/hostname")
    assert code(hub, root / "copy") == "backup-odd-file"
    (hub / "link").unlink()
    model = hub / "run" / "shared.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    assert code(hub, root / "copy") == "backup-unsound"
    assert not (root / "copy").exists()


def test_a_copy_of_a_folder_that_changes_is_whole_or_is_not_made(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    """A process commits one record after another: a copy that is made verifies, and one that could
    not be is not kept.
    """
    root = unpacked("network-stopped", tmp_path, monkeypatch)
    hub, over, written = root / "hub", threading.Event(), list[str]()
    written += hashes(hub / "run")

    def write(pause: float) -> None:
        with Ledger.open(hub / "run" / "ledger.sqlite") as ledger:
            while not over.wait(pause):
                written.append(ledger.append("note", {}).hash)

    for pause in (0.02, 2.0):
        over.clear()
        writer = threading.Thread(target=write, args=(pause,))
        writer.start()
        copy, made, refused = root / f"copy-{pause}", None, ""
        try:
            made = back_up(hub, copy)
        except TequioError as error:
            refused = error.as_reason().code
        finally:
            over.set()
            writer.join()
        if made is None:
            assert (refused, copy.exists()) == ("backup-outpaced", False)
            assert pause < 1.0, "five tries were not enough for a commit every two seconds"
        else:
            assert (
                verify_run(copy / "hub" / "run")["head"] == made.head == written[made.records - 1]
            )


def test_a_file_that_is_written_in_place_is_noticed(tmp_path: Path, monkeypatch: Patch) -> None:
    """While a file is changed in place no copy is made; of a log that grows the copy has the part
    that was there.
    """
    root = unpacked("network-stopped", tmp_path, monkeypatch)
    for name, mode, whole in (("server.log", "ab", True), ("model.bin", "r+b", False)):
        file, over = root / "hub" / name, threading.Event()
        file.write_bytes(b"a" * (16 << 20))

        def write(file: Path = file, mode: str = mode, over: threading.Event = over) -> None:
            with file.open(mode, buffering=0) as stream:
                while not over.wait(0.001):
                    stream.write(b"b")

        writer = threading.Thread(target=write)
        writer.start()
        try:
            if whole:
                back_up(root / "hub", root / "copy")
            else:
                assert code(root / "hub", root / "other") == "backup-outpaced"
        finally:
            over.set()
            writer.join()
    copied = (root / "copy" / "hub" / "server.log").read_bytes()
    assert (root / "hub" / "server.log").read_bytes().startswith(copied)
    assert len(copied) >= 16 << 20


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_coordinator_lost_at_work_is_restored_to_the_same_end(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    """Backed up while it listens, killed with all its processes, its folder deleted, unpacked,
    started again.
    """
    pytest.importorskip("flwr")
    finished = unpacked("network-finished", tmp_path, monkeypatch).absolute() / "hub" / "run"
    root = unpacked("network-stopped", tmp_path, monkeypatch)
    run, log, port = root / "hub" / "run", root / "log", renewed(root)
    before = hashes(run)
    start = ("coordinator", "start", "hub", "--port", str(port), "--wait", "10", "--threads", "1")
    with background(root, *start) as coordinator:
        until(lambda: "Listening" in log.read_text(encoding="utf-8"))
        said = json.loads(tequio(root, "backup", "hub", "copy.tar", "--json"))
        assert (said["records"], said["head"]) == (len(before), before[-1])
        lost = psutil.Process(coordinator.pid)
        for process in [*lost.children(recursive=True), lost]:
            process.send_signal(signal.SIGKILL)
        coordinator.wait(60)
    shutil.rmtree(root / "hub")
    with tarfile.open(root / "copy.tar") as archive:
        archive.extractall(root, filter="tar")
    check_digests(root / "copy")
    (root / "copy" / "hub").rename(root / "hub")
    log.unlink()
    with ExitStack() as running:
        coordinator = running.enter_context(background(root, *start))
        until(lambda: "Listening" in log.read_text(encoding="utf-8"))
        parts = [background(root, "participate", name, "--threads", "1") for name in NAMES]
        people = [running.enter_context(part) for part in parts]
        assert coordinator.wait(600) == 0, log.read_text(encoding="utf-8")
        assert [person.wait(120) for person in people] == [0, 0, 0]
    assert hashes(run)[: len(before)] == before
    assert all(verify_run(folder)["ok"] for folder in (run, *(Path(name, "run") for name in NAMES)))
    check_same_end(run, finished)
