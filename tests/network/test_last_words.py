"""What `status` says of a process that ended on a full disk, and of a federation in which nobody is
there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tequio.app.network.hub.folder import ENROLLED, init_coordinator_folder
from tequio.app.network.monitoring.health import FILE, Health
from tequio.app.network.monitoring.status import read_status
from tequio.core.events import ignore_events

FULL = """
import resource, sys
from pathlib import Path
from tequio.app.network.monitoring.health import FILE, Health
from tequio.core.errors import ResourceError
from tequio.core.events import ignore_events
from tequio.ledger.folder import RunFolder

folder, limit = Path(sys.argv[1]), int(sys.argv[2])
health = Health("participant", ignore_events)
with health.written_to(folder):
    health.tell("connected", "connected")
    while not (folder / FILE).exists() or '"connected": true' not in (folder / FILE).read_text():
        pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # no larger file can be written, as on a full disk
    RunFolder(folder).write_atomic("model", bytes(limit + 1))
"""


def participant(folder: Path) -> Path:
    folder.mkdir()
    (folder / "identity.json").write_text(
        json.dumps({"name": "site0", "address": "127.0.0.1:9443", "node": "1"})
    )
    return folder


def test_a_participant_that_ends_by_a_full_disk_says_so(tmp_path: Path) -> None:
    folder = participant(tmp_path / "site0")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(folder), "4096"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "ResourceError" in done.stderr
    found = read_status(folder)
    assert found["state"] == "failed"
    assert "The disk or quota is full" in found["last_error"]["what"]
    assert found["next"] == f"tequio participate {folder}"
    assert (
        len([path for path in folder.iterdir() if path.name.startswith(".")]) == 0
    )  # nothing half-written


def test_the_file_takes_the_space_of_its_last_words_beforehand(tmp_path: Path) -> None:
    health = Health("participant", ignore_events)
    with health.written_to(tmp_path):
        pass
    assert (tmp_path / FILE).stat().st_size >= 4096
    assert json.loads((tmp_path / FILE).read_text())["stage"] == "ended"


def hub(make_federation: Any, tmp_path: Path, connected: list[bool], **facts: Any) -> Path:
    """A coordinator in its rounds, with these participants; the file that its process (this one)
    wrote just now.
    """
    folder = tmp_path / "hub"
    toml = make_federation(participants=len(connected))
    init_coordinator_folder(folder, toml, "127.0.0.1:9443")
    rows = {f"site{i}": {"public_key": "-", "node": str(i + 1)} for i in range(len(connected))}
    (folder / ENROLLED).write_text(json.dumps(rows))
    present = {
        str(i + 1): {"connected": on, "since": f"2026-01-01T00:00:0{i}+00:00"}
        for i, on in enumerate(connected)
    }
    found = Health("coordinator", ignore_events).facts()
    found |= {
        "stage": "rounds",
        "superlink": True,
        "present": present,
        "seen": datetime.now(UTC).isoformat(),
    }
    (folder / FILE).write_text(json.dumps(found | facts))
    return folder


@pytest.mark.parametrize(
    ("connected", "state"),
    [
        ([True, False], "rounds"),
        ([False, False], "rounds, nobody connected"),
        ([True, True], "rounds"),
    ],
)
def test_rounds_without_anybody_are_named(
    make_federation: Any, tmp_path: Path, connected: list[bool], state: str
) -> None:
    found = read_status(hub(make_federation, tmp_path, connected))
    assert found["state"] == state
    if "nobody" in state:
        assert found["note"] == {
            "code": "nobody-connected",
            "facts": {"since": "2026-01-01T00:00:01+00:00"},
        }
    else:
        assert found["note"] is None


@pytest.mark.parametrize(
    ("stage", "state"), [("rounds", "killed"), ("stopped", "stopped"), ("failed", "failed")]
)
def test_without_a_coordinator_status_says_when_the_last_one_was_there(
    make_federation: Any, tmp_path: Path, stage: str, state: str
) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    then = datetime.now(UTC) - timedelta(hours=2)
    folder = hub(
        make_federation,
        tmp_path,
        [True, True],
        stage=stage,
        process=process.pid,
        started=0.0,
        seen=then.isoformat(),
    )
    found = read_status(folder)
    assert found["state"] == state
    assert found["note"] == {
        "code": "no-coordinator",
        "facts": {"until": f"{then:%Y-%m-%d %H:%M:%S} UTC"},
    }
    assert [row["connected"] for row in found["participants"]] == [None, None]
    assert found["next"] == f"tequio coordinator start {folder}"
