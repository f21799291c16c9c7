"""Kills at the moments that lost something:

SuperLink while it starts, the coordinator while personal models are made.

Whole processes. The outcome is that of an undisturbed run in another folder, bit for bit.
"""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from network_processes import ALONE, background, federation, kinds, tequio, until

from builders import free_port
from tequio.ledger.record import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def kill_superlink_as_it_starts(hub: Path) -> None:
    written = hub / "superlink" / "superlink.pid"
    until(lambda: written.exists() and bool(written.read_text()))
    os.kill(int(written.read_text()), signal.SIGKILL)


def whole(root: Path, toml: Path, disturbed: bool) -> tuple[str, dict[str, Any]]:
    """(its outcome, its ledger's records by kind); disturbed:

    SuperLink is killed at the start, the coordinator at the end.
    """
    hub, address = root / "hub", f"127.0.0.1:{free_port()}"
    record, log = hub / "run" / "ledger.sqlite", root / "coordinator.log"
    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        if disturbed:
            pool.submit(kill_superlink_as_it_starts, hub)
        folders = stack.enter_context(federation(root, toml, address))
        people = {
            name: stack.enter_context(
                background(root / f"{name}.log", "participate", folder, *ALONE)
            )
            for name, folder in folders.items()
        }
        if disturbed:
            assert "starts it again" in log.read_text(), "SuperLink was killed before it listened"
            until(lambda: "All rounds are done." in log.read_text())
            health = json.loads((hub / "vitals.json").read_text())
            with suppress(ProcessLookupError):
                os.kill(int(health["process"]), signal.SIGKILL)
            assert "end" not in kinds(record), "it was killed too late"
            stack.enter_context(background(log, "coordinator", "start", hub, *ALONE))
        until(lambda: record.exists() and "end" in kinds(record))
        for name, process in people.items():
            assert process.wait(120) == 0, (root / f"{name}.log").read_text()
            assert json.loads(tequio("status", folders[name], "--json"))["state"] == "finished"
            assert "delivered" in kinds(folders[name] / "run" / "ledger.sqlite")
        until(lambda: (hub / "run" / "report.en.html").exists())
    found: dict[str, Any] = {}
    with Ledger.open(record, read_only=True) as ledger:
        for entry in ledger.entries():
            found.setdefault(entry.kind, []).append(dict(entry.body))
    verified = json.loads(tequio("verify", hub / "run", "--json"))
    assert verified["ok"]
    return str(verified["outcome"]), found


def test_kills_at_start_and_end_change_no_model_and_no_outcome(
    make_federation: Any, tmp_path: Path
) -> None:
    outcomes, models = [], []
    for folder, disturbed in (("plain", False), ("broken", True)):
        toml = make_federation(participants=3, folder=folder, train={"rounds": 3, "patience": 9})
        (tmp_path / f"run-{folder}").mkdir()
        outcome, found = whole(tmp_path / f"run-{folder}", toml, disturbed)
        assert "missing" not in found
        outcomes.append(outcome)
        models.append({row["name"]: row["digest"] for row in found["personal"]})
    assert len(models[0]) == 3
    assert models[0] == models[1]
    assert outcomes[0] == outcomes[1]
