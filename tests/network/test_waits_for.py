"""`tequio status` names whom a round waits for, for what, and since when; of a process that is gone
it says nothing of the kind.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

pytest.importorskip("flwr")

from network_processes import until

from builders import free_port
from tequio.app.network.hub.folder import init_coordinator_folder
from tequio.app.network.monitoring.health import Health
from tequio.app.network.monitoring.status import read_status
from tequio.cli.main import app
from tequio.core.events import ignore_events


def test_status_says_for_whom_a_round_waits_and_since_when(
    make_federation: Any, tmp_path: Path
) -> None:
    hub = tmp_path / "hub"
    init_coordinator_folder(hub, make_federation(participants=2), f"127.0.0.1:{free_port()}")
    since = (datetime.now(UTC) - timedelta(seconds=200)).isoformat(timespec="seconds")
    rows = [
        {"name": "site0", "task": "train", "since": since, "sent_again": 2},
        {"name": "site1", "task": "", "since": since, "sent_again": 0},
        {"name": "site2", "task": "evaluate", "since": since, "sent_again": 1},
    ]
    health = Health("coordinator", ignore_events)
    health.look, health.waits = (lambda: {}), (lambda: rows)
    with health.written_to(hub):
        until(lambda: bool(read_status(hub)["waits_for"]), 60)
        assert read_status(hub)["waits_for"] == rows
        clock = f"{datetime.fromisoformat(since):%H:%M:%S}"
        words = " ".join(CliRunner().invoke(app, ["status", str(hub)]).output.split())
        assert f"Waiting for site0 to answer (train) since {clock} UTC (3 min 2" in words
        assert "the task was sent again 2 times." in words
        assert "the task was sent again once." in words
        assert f"Waiting for site1 to connect since {clock} UTC" in words
        found = json.loads(CliRunner().invoke(app, ["status", str(hub), "--json"]).output)
        assert found["waits_for"] == rows
    assert read_status(hub)["waits_for"] == [], "the process has ended"
