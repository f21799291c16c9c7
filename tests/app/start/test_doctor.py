"""Each check of the machine: what is in order, and what is not with a remedy."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tequio.app.start import doctor


def test_a_usual_machine_fails_nothing(tmp_path: Path) -> None:
    checks = {check.name: check for check in doctor.examine(tmp_path)}
    names = "python packages extras terminal clock cores memory folder cache proxy ports torch gpu"
    assert list(checks) == names.split()
    assert not [check for check in checks.values() if check.status == "fail"]
    assert all(check.remedy for check in checks.values() if check.status != "ok")
    assert "torch 2" in checks["torch"].found


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            'echo "ImportError: libtorch.so is not there" >&2; exit 1',
            "ImportError: libtorch.so is not there",
        ),
        ("kill -ILL $$", "the process ended with -4"),
        ("echo nonsense", "could not be tried (JSONDecodeError)"),
    ],
)
def test_a_broken_torch_is_one_line(tmp_path: Path, script: str, said: str) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    (check,) = doctor.check_torch(str(python))
    assert check.status == "fail"
    assert said in check.found
    assert "pip install" in check.remedy


def test_no_python_is_one_line(tmp_path: Path) -> None:
    (check,) = doctor.check_torch(str(tmp_path / "absent"))
    assert (check.status, check.found) == ("fail", "it could not be tried (FileNotFoundError)")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check = doctor.check_folder("cache", tmp_path / "file" / "below", "Set TEQUIO_CACHE.")
    assert (check.status, check.remedy) == ("fail", "Set TEQUIO_CACHE.")
    assert doctor.check_folder("cache", tmp_path / "new" / "one", "").status == "ok"
    assert not (tmp_path / "new").exists()


def test_little_disk_or_memory(tmp_path: Path) -> None:
    levels = [doctor._level(value, (1.0, 2.0), "found", "remedy")[0] for value in (0.5, 1.5, 2.5)]
    assert levels == ["fail", "warning", "ok"]


def test_a_clock_before_the_files(tmp_path: Path) -> None:
    assert doctor.check_clock(1.0e9).status == "fail"
    assert doctor.check_clock().status == "ok"


def test_a_proxy_is_shown_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*doctor.PROXIES, *(name.lower() for name in doctor.PROXIES)):
        monkeypatch.delenv(name, raising=False)
    assert doctor.check_proxy().status == "ok"
    monkeypatch.setenv("https_proxy", "http://ana:secret@proxy.example:3128")
    check = doctor.check_proxy()
    assert check.status == "warning"
    assert "proxy.example:3128" in check.found
    assert "secret" not in check.found + check.remedy
    assert "ana" not in check.found
    monkeypatch.setenv("https_proxy", "http://[broken")
    assert "unreadable" in doctor.check_proxy().found


def test_a_container_that_may_use_less_than_its_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    check = doctor.check_cores(tmp_path)
    assert check.status == "warning"
    assert "0.5" in check.found
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert doctor.check_cores(tmp_path).status == "ok"


def test_a_terminal_without_utf_8(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="latin-1") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        check = doctor.check_text()
    assert check.status == "warning"
    assert "PYTHONUTF8" in check.remedy
