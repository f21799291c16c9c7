"""Runs written at an older commit are read, verified, exported and resumed by this one.

README.md beside it says how they were made.
"""

from __future__ import annotations

import json
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from make import NAMES, ROUNDS, STOP_AT, background, free_port, machine, tequio, until

from tequio.app.models.export import export_models
from tequio.app.models.predict import predict_texts
from tequio.app.models.verify import verify_run
from tequio.app.network.monitoring.status import read_status
from tequio.app.simulation.run import resume
from tequio.cli.accounts import run_emissions
from tequio.ledger.record import Ledger
from tequio.report.write import write_report

FOLDER = Path(__file__).parent
MADE = json.loads((FOLDER / "made.json").read_text(encoding="utf-8"))
SAME_MACHINE = MADE["machine"] == machine()  # on another one the last bits of new numbers differ
CLOSE = 1e-3  # nats between two machines
Patch = pytest.MonkeyPatch


def unpacked(name: str, tmp_path: Path, monkeypatch: Patch) -> Path:
    """Unpack an old run and its federation, as the current folder: its paths begin there."""
    root = tmp_path / name
    for archive in ("federation", name):
        with tarfile.open(FOLDER / f"{archive}.tar.xz") as tar:
            tar.extractall(root, filter="tar")
    monkeypatch.chdir(root)
    return Path()


def renewed(root: Path) -> int:
    """Give a stopped network a certificate of today and a free port; return the port."""
    port = free_port()
    tequio(root, "coordinator", "renew", "hub")
    for name in NAMES:
        identity = root / name / "identity.json"
        moved = json.loads(identity.read_text(encoding="utf-8")) | {"address": f"127.0.0.1:{port}"}
        identity.write_text(json.dumps(moved), encoding="utf-8")
    return port


def records(run: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        for entry in ledger.entries():
            found.setdefault(entry.kind, []).append(entry.body)
    return found


def hashes(run: Path) -> list[str]:
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        return [entry.hash for entry in ledger.entries()]


def models(found: dict[str, list[Any]]) -> dict[str, str]:
    personal = {row["name"]: row["digest"] for row in found["personal"]}
    return personal | {"shared": found["shared"][0]["digest"]}


def losses(found: dict[str, list[Any]]) -> list[float]:
    rows = sorted(found["personal"], key=lambda row: str(row["name"]))  # a network has any order
    tests = [
        row["test"][model]["loss"] for row in rows for model in sorted({*row["test"]} - {"general"})
    ]
    return [row["mean_validation_loss"] for row in found["round"]] + tests


def check_same_end(run: Path, finished: Path) -> None:
    """Check that a resumed run has the models of the unbroken one; on another machine, as good."""
    now, then = records(run), records(finished)
    assert len(now["round"]) == ROUNDS
    assert losses(now) == pytest.approx(losses(then), abs=CLOSE)
    if SAME_MACHINE:
        assert models(now) == models(then)
        states = [[row["state_digest"] for row in found["round"]] for found in (now, then)]
        assert states[0] == states[1]


def check_read(name: str, record: Path) -> None:
    """Check that this commit finds in a record what the commit that wrote it found."""
    expected = MADE["records"][name][str(record)]
    assert verify_run(record) == expected["verify"]
    for lang in ("en", "es"):
        page, summary = write_report(record, lang, None)
        for what, means in expected["mean"].items():
            assert summary["mean"][what] == pytest.approx(means), what
        text = page.read_text(encoding="utf-8")
        assert all(row["name"] in text for row in summary["participants"])
    assert summary["finished"] == ("finished" in name)


def check_used(record: Path, names: set[str]) -> None:
    """Check that the models in a record are exported and answer."""
    rows = export_models(record, None, Path("out"), False, run_emissions(record))
    assert {row["name"] for row in rows} == names
    assert all((Path(row["adapter"]) / "adapter_model.safetensors").is_file() for row in rows)
    answers = [predict_texts(record, name, ["the nurse was kind"], 1)[0] for name in sorted(names)]
    assert {answer["label"] for answer in answers} <= {"good", "bad"}


def test_a_finished_run_is_read_and_used(tmp_path: Path, monkeypatch: Patch) -> None:
    run = unpacked("finished", tmp_path, monkeypatch) / "run"
    check_read("finished", run)
    check_used(run, {"shared", *NAMES})
    before = hashes(run)
    assert resume(run).end["outcome"] == MADE["records"]["finished"]["run"]["verify"]["outcome"]
    assert hashes(run) == before, "it is over: nothing is added"


def test_a_run_cut_off_is_resumed_to_the_same_end(tmp_path: Path, monkeypatch: Patch) -> None:
    finished = unpacked("finished", tmp_path, monkeypatch).absolute() / "run"
    run = unpacked("cut-off", tmp_path, monkeypatch) / "run"
    check_read("cut-off", run)
    before = hashes(run)
    assert len(records(run)["round"]) == STOP_AT
    end = resume(run, workers=1).end
    assert hashes(run)[: len(before)] == before
    found = verify_run(run)
    assert (found["ok"], found["outcome"]) == (True, end["outcome"])
    check_same_end(
        run, finished
    )  # not the outcome: it covers personal records, which hold more than they did


def test_a_finished_network_is_read_at_both_ends(tmp_path: Path, monkeypatch: Patch) -> None:
    pytest.importorskip("flwr")
    from tequio.app.network.coordinator.serve import Times, coordinate
    from tequio.app.network.monitoring.health import Health

    root = unpacked("network-finished", tmp_path, monkeypatch)
    hub, lines = root / "hub", list[str]()
    assert read_status(hub)["state"] == "finished"
    check_read("network-finished", hub / "run")
    check_used(hub / "run", {"shared"})
    before = hashes(hub / "run")
    health = Health("coordinator", lambda words, *_, **__: lines.append(words))
    coordinate(hub, "127.0.0.1", None, Times(1.0, 1.0), health, lambda *_: None)
    assert hashes(hub / "run") == before, "it is over: nothing is added"
    for name in NAMES:
        assert read_status(root / name)["state"] == "finished"
        check_read("network-finished", root / name / "run")
        check_used(root / name / "run", {"shared", name})


def test_a_stopped_network_is_read_at_both_ends(tmp_path: Path, monkeypatch: Patch) -> None:
    pytest.importorskip("flwr")
    root = unpacked("network-stopped", tmp_path, monkeypatch)
    stands = read_status(root / "hub")
    assert (stands["state"], stands["next"]) == ("stopped", "tequio coordinator start hub")
    check_read("network-stopped", root / "hub" / "run")
    for name in NAMES:
        assert read_status(root / name)["next"] == f"tequio participate {name}"
        check_read("network-stopped", root / name / "run")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_stopped_network_starts_again_and_ends_the_same(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    """With a certificate of today (that of the fixture lasts about a year), on a free port."""
    pytest.importorskip("flwr")
    finished = unpacked("network-finished", tmp_path, monkeypatch).absolute() / "hub" / "run"
    root = unpacked("network-stopped", tmp_path, monkeypatch)
    run, log, port = root / "hub" / "run", root / "log", renewed(root)
    before = hashes(run)
    with ExitStack() as running:
        options = ("--port", str(port), "--wait", "10", "--threads", "1")
        start = ("coordinator", "start", "hub", *options)
        coordinator = running.enter_context(background(root, *start))
        until(lambda: "Listening" in log.read_text(encoding="utf-8"))
        parts = [background(root, "participate", name, "--threads", "1") for name in NAMES]
        people = [running.enter_context(part) for part in parts]
        assert coordinator.wait(600) == 0, log.read_text(encoding="utf-8")
        assert [person.wait(120) for person in people] == [0, 0, 0]
    assert hashes(run)[: len(before)] == before
    assert all(verify_run(folder)["ok"] for folder in (run, *(Path(name, "run") for name in NAMES)))
    check_same_end(run, finished)
