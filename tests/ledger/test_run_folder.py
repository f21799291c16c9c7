"""The run's folder: what may become one, one writer at a time, and files that are whole or
absent.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ledger_workers import MEGABYTE, child, hold_lock, received, write_for_ever, write_until_full

from builders import refused
from tequio.core.errors import ResourceError, RunBusy, RunError
from tequio.ledger.folder import (
    COORDINATOR_FILE,
    IDENTITY,
    RunFolder,
    open_to_others,
    own_folder,
    resume_command,
)
from tequio.ledger.record import Ledger


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs" / "one")


def test_create_then_open(folder: RunFolder) -> None:
    assert folder.ledger_path == folder.path / "ledger.sqlite"
    with refused(RunError, "not-a-run", path=str(folder.path), file="ledger.sqlite"):
        RunFolder.open(folder.path)
    Ledger.create(folder.ledger_path, {}).close()
    assert RunFolder.open(folder.path).path == folder.path


def test_the_folder_around_a_run_names_the_run(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "try" / "run").ledger_path.touch()
    with refused(RunError, "not-a-run-but-around-one", run=str(tmp_path / "try" / "run")):
        RunFolder.open(tmp_path / "try")
    with refused(RunError, "not-a-run", path=str(tmp_path)):
        RunFolder.open(tmp_path)


def test_a_private_folder_and_what_is_one_participants_are_closed_to_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        whole, there = RunFolder.create(tmp_path / "a" / "run"), tmp_path / "there"
        whole.write_atomic("participants/north/personal.safetensors", b"")
        whole.write_atomic("bases/large/participants/north/personal.safetensors", b"")
        there.mkdir()
        RunFolder.create(there, private=True)
        own_folder(tmp_path / "new" / "one")
    finally:
        os.umask(before)
    closed = (
        "a/run/participants",
        "a/run/participants/north",
        "a/run/bases/large/participants/north",
        "there",
        "new/one",
    )
    assert [name for name in closed if open_to_others(tmp_path / name)] == []
    assert [
        name
        for name in ("a", "a/run", "a/run/bases/large", "new")
        if not open_to_others(tmp_path / name)
    ] == []


def test_the_command_that_goes_on_is_that_of_who_has_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"north": IDENTITY, "hub": COORDINATOR_FILE, "alone": "federation.toml"}
    for home, file in made.items():
        (tmp_path / home / "run").mkdir(parents=True)
        (tmp_path / home / file).touch()
    monkeypatch.chdir(tmp_path)
    assert [resume_command(Path(home) / "run") for home in made] == [
        "tequio participate north",
        "tequio coordinator start hub",
        "tequio run --resume alone/run",
    ]
    monkeypatch.chdir(tmp_path / "hub" / "run")
    assert resume_command(Path(".")) == f"tequio coordinator start {tmp_path.resolve() / 'hub'}"


def test_create_takes_an_empty_folder_or_a_start_that_was_cut_off(
    tmp_path: Path, folder: RunFolder
) -> None:
    (tmp_path / "empty").mkdir()
    assert RunFolder.create(tmp_path / "empty").path == tmp_path / "empty"
    folder.write_atomic("federation.toml", b"")
    assert RunFolder.create(folder.path).path == folder.path


def test_create_refuses_what_is_in_use_for_something_else(
    tmp_path: Path, folder: RunFolder
) -> None:
    Ledger.create(folder.ledger_path, {}).close()
    with refused(RunError, "run-exists", path=str(folder.path)):
        RunFolder.create(folder.path)
    with refused(RunError, "folder-in-use"):
        RunFolder.create(tmp_path / "runs")
    assert os.listdir(tmp_path / "runs") == ["one"]
    (tmp_path / "file").write_text("")
    with refused(RunError, "path-is-a-file", path=str(tmp_path / "file")):
        RunFolder.create(tmp_path / "file")


def test_a_second_process_is_reported_who_holds_the_lock(folder: RunFolder) -> None:
    with child(hold_lock, folder.path) as (process, connection):
        assert connection.poll(60)
        assert connection.recv() == process.pid
        with (
            refused(RunBusy, "run-busy", path=str(folder.path), process=str(process.pid)),
            folder.lock(),
        ):
            pass
        process.kill()
        process.join()
        with folder.lock():
            assert (folder.path / "lock").read_text() == f"{os.getpid()}\n"


def test_the_lock_is_free_after_use_and_after_an_error(folder: RunFolder) -> None:
    with pytest.raises(ZeroDivisionError), folder.lock():
        raise ZeroDivisionError
    with folder.lock(), refused(RunBusy, "run-busy", process=str(os.getpid())), folder.lock():
        pass
    with folder.lock():
        pass


def test_write_atomic_replaces_and_makes_subfolders(folder: RunFolder) -> None:
    assert folder.write_atomic("models/anna/adapter.safetensors", b"one").read_bytes() == b"one"
    path = folder.write_atomic("models/anna/adapter.safetensors", b"two")
    assert path == folder.path / "models" / "anna" / "adapter.safetensors"
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["adapter.safetensors"]


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "a/../../x",
        "/tmp/x",
        "",
        ".",
        "..",
        "a/",
        "a\0b",
        "lock",
        "ledger.sqlite",
        "ledger.sqlite-journal",
    ],
)
def test_a_name_that_leaves_the_folder_or_hits_the_record_is_refused(
    folder: RunFolder, name: str
) -> None:
    with refused(RunError, "file-name-refused", file=repr(name)):
        folder.write_atomic(name, b"x")
    assert os.listdir(folder.path) == ["lock"]


def test_a_link_that_leads_out_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    (folder.path / "out").symlink_to(tmp_path)
    with refused(RunError, "file-name-refused", file="'out/x'"):
        folder.write_atomic("out/x", b"x")
    assert not (tmp_path / "x").exists()


def test_a_folder_in_the_way_is_our_error_and_leaves_nothing(folder: RunFolder) -> None:
    (folder.path / "report.html").mkdir()
    with refused(ResourceError, "write-failed", path=str(folder.path / "report.html")):
        folder.write_atomic("report.html", b"x")
    assert sorted(os.listdir(folder.path)) == ["lock", "report.html"]


def test_a_full_disk_keeps_the_old_file(folder: RunFolder) -> None:
    """A real limit of 1 MB a file in the child, which writes 3 MB."""
    path = folder.write_atomic("report.html", b"old")
    with child(write_until_full, folder.path) as (process, connection):
        assert connection.poll(60)
        error = connection.recv()
        process.join()
    assert error["error"] == "ResourceError"
    assert str(path) in error["what"]
    assert error["fix"] == "Free space, then give the command again."  # there is no ledger yet
    assert path.read_bytes() == b"old"
    assert sorted(os.listdir(folder.path)) == ["lock", "report.html"]


def test_kill_9_while_writing_leaves_a_whole_file(folder: RunFolder) -> None:
    for pause in (0.0, 0.007, 0.013, 0.021, 0.034):
        with child(write_for_ever, folder.path) as (process, connection):
            assert connection.poll(60)
            time.sleep(pause)
            process.kill()
            process.join()
            assert len(received(connection)) >= 1
        data = (folder.path / "report.html").read_bytes()
        assert data in (b"a" * 2 * MEGABYTE, b"b" * 2 * MEGABYTE)


@pytest.mark.parametrize(
    ("marker", "command"),
    [
        (None, "then continue with `tequio run --resume RUN`."),
        (IDENTITY, "then give the command again, for instance `tequio participate HOME`."),
        (COORDINATOR_FILE, "then continue with `tequio coordinator start HOME`."),
    ],
)
def test_a_write_that_fails_names_the_command_that_goes_on(
    tmp_path: Path, marker: str | None, command: str
) -> None:
    """In a run's folder, a participant's and a coordinator's; in what is made anew, the same
    command again.
    """
    home, run = tmp_path / "home", tmp_path / "home" / "run"
    folder = RunFolder.create(run)
    Ledger.create(folder.ledger_path, {}).close()
    if marker is not None:
        (home / marker).write_text("{}")
    (run / "participants" / "a" / "salt").mkdir(parents=True)  # a folder in the way
    with pytest.raises(ResourceError) as caught:
        folder.write_atomic("participants/a/salt", b"x")
    assert (
        caught.value.fix
        == f"Repair that, {command.replace('RUN', str(run)).replace('HOME', str(home))}"
    )
    with (
        Ledger.open(folder.ledger_path, read_only=True) as ledger,
        pytest.raises(ResourceError) as caught,
    ):
        ledger.append("round", {})
    assert caught.value.fix.endswith(command.replace("RUN", str(run)).replace("HOME", str(home)))
    (home / ".bundle.new" / "x").mkdir(parents=True)
    with pytest.raises(ResourceError) as caught:
        RunFolder(home / ".bundle.new").write_atomic("x", b"")
    assert caught.value.fix == "Repair that, then give the command again."
