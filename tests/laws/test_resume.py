"""kill -9 at every stage of real runs in real processes; each, resumed, ends with the outcome of an
unbroken run, to the bit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).parent / "resume_worker.py"


@dataclass(frozen=True)
class Done:
    """A run that ended: its status (−9: killed) and what it said."""

    status: int
    said: str


class Runs:
    """Runs in processes of their own, forked from one that has everything imported."""

    def __init__(self, log: Path) -> None:
        quiet = {"OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self.log = log
        self.parent = subprocess.Popen(
            [sys.executable, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **quiet},
        )

    def begin(self, path: Path, out: Path, mode: str, kill_at: int, workers: int = 1) -> int:
        """Start one; its process number."""
        assert self.parent.stdin is not None
        assert self.parent.stdout is not None
        self.log.unlink(missing_ok=True)
        wanted = {
            "path": str(path),
            "out": str(out),
            "mode": mode,
            "kill_at": kill_at,
            "workers": workers,
        }
        self.parent.stdin.write(json.dumps({**wanted, "log": str(self.log)}) + "\n")
        self.parent.stdin.flush()
        return int(self.parent.stdout.readline())

    def end(self) -> Done:
        """Wait for it."""
        assert self.parent.stdout is not None
        return Done(int(self.parent.stdout.readline()), self.log.read_text())

    def __call__(self, path: Path, out: Path, mode: str, kill_at: int, workers: int = 1) -> Done:
        """One from start to end."""
        self.begin(path, out, mode, kill_at, workers)
        return self.end()

    def close(self) -> None:
        """No more runs."""
        for pipe in (self.parent.stdin, self.parent.stdout):
            if pipe is not None:
                pipe.close()
        self.parent.wait(60)


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Runs]:
    """One run at a time."""
    runs = Runs(tmp_path / "run.log")
    yield runs
    runs.close()


SPARSE = {
    "reduce": "rolora",
    "upload": "topk",
    "upload_settings": {"density": 0.1},
    "feedback": 0.9,
}
BUFFERED = {"pace": "buffered", "round_seconds": 10.0, "rounds": 4, "patience": 9}

RING = {"centre": False, "algorithm": {"weights": "uniform"}, "topology": {"kind": "ring"}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "sections",
    [{}, {"algorithm": SPARSE, "adapter": {"modules": ["dense"]}}, {"train": BUFFERED}, RING],
)
def test_kill_at_every_stage_and_resume_gives_the_unbroken_outcome(
    make_federation: Any, tmp_path: Path, work: Runs, sections: dict[str, Any]
) -> None:
    path = make_federation(participants=2, **sections)
    if "train" in sections:  # site1 is slow: its updates are in flight when the process is killed
        slow = path.parent / "participants" / "site1.toml"
        slow.write_text(
            slow.read_text().replace("[hardware]\n", "[hardware]\ntokens_per_second = 10.0\n")
        )
    unbroken = work(path, tmp_path / "unbroken", "start", -1)
    assert unbroken.status == 0, unbroken.said
    lines = unbroken.said.splitlines()
    expected = json.loads(lines[-1])
    stages = len(lines) - 1
    assert {line.split()[1] for line in lines[:-1]} == {
        "prepare",
        "rounds",
        "personal",
        "counterfactuals",
        "general",
    }
    # one run killed again and again, one stage later each time, until it gets to the end
    out = tmp_path / "killed"
    first = work(path, out, "start", 3)
    assert first.status == -signal.SIGKILL
    kills = 1
    for kill_at in range(2, 2 * stages):
        again = work(
            path, out, "resume", kill_at, workers=1 + kill_at % 2
        )  # now alone, now side by side
        if again.status == 0:
            break
        assert again.status == -signal.SIGKILL, again.said
        kills += 1
    assert kills >= 4
    assert json.loads(again.said.splitlines()[-1]) == expected


@pytest.mark.slow
def test_two_bases_that_teach_each_other_are_killed_in_each_round_and_end_the_same(
    make_two_bases: Any, tmp_path: Path, work: Runs
) -> None:
    path, out = make_two_bases(participants=2), tmp_path / "killed"
    unbroken = work(path, tmp_path / "unbroken", "start", -1)
    assert unbroken.status == 0, unbroken.said
    assert (
        work(path, out, "start", 4).status == -signal.SIGKILL
    )  # in the first round, one group done
    for kill_at in (7, 6, 3):
        assert work(path, out, "resume", kill_at).status == -signal.SIGKILL
    again = work(path, out, "resume", -1)
    assert json.loads(again.said.splitlines()[-1]) == json.loads(unbroken.said.splitlines()[-1])


@pytest.mark.slow
def test_shifted_rounds_are_killed_one_by_one_and_keep_their_hours(
    make_shifted: Any, tmp_path: Path, work: Runs
) -> None:
    path, out = make_shifted(kg_co2e=0.16, minimum=0.3), tmp_path / "killed"
    unbroken = work(path, tmp_path / "unbroken", "start", -1)
    assert unbroken.status == 0, unbroken.said
    assert work(path, out, "start", 5).status == -signal.SIGKILL
    for kill_at in (4, 5, 6):
        assert work(path, out, "resume", kill_at).status == -signal.SIGKILL
    again = work(path, out, "resume", -1)
    assert json.loads(again.said.splitlines()[-1]) == json.loads(unbroken.said.splitlines()[-1])


@pytest.mark.slow
def test_kill_at_random_moments_of_the_clock(
    make_federation: Any, tmp_path: Path, work: Runs
) -> None:
    """Not at stages of ours but whenever: while a file or a transaction is being written, too."""
    path = make_federation(participants=2)
    expected = json.loads(work(path, tmp_path / "unbroken", "start", -1).said.splitlines()[-1])
    out = tmp_path / "killed"
    mode = "start"
    for attempt in range(12):
        pid = work.begin(path, out, mode, -1, 2)
        while not (work.log.exists() and work.log.read_text()):
            time.sleep(0.01)  # until it has started to work
        time.sleep(0.15 * attempt)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        ended = work.end()
        if ended.status == 0:
            break
        assert ended.status == -signal.SIGKILL, ended.said
        mode = "resume" if (out / "ledger.sqlite").exists() else "start"
    final = work(path, out, mode, -1) if ended.status != 0 else ended
    assert json.loads(final.said.splitlines()[-1]) == expected


@pytest.mark.slow
def test_two_runs_cannot_write_one_folder(make_federation: Any, tmp_path: Path, work: Runs) -> None:
    path, out = make_federation(participants=2), tmp_path / "run"
    assert work(path, out, "start", 4).status == -signal.SIGKILL
    second = Runs(tmp_path / "second.log")
    holder = second.begin(path, out, "resume", -1)
    while not (second.log.exists() and second.log.read_text()):
        time.sleep(0.01)
    os.kill(holder, signal.SIGSTOP)  # it holds the lock and goes no further
    refused = work(path, out, "resume", -1)
    os.kill(holder, signal.SIGKILL)
    assert second.end().status == -signal.SIGKILL
    second.close()
    assert refused.status != 0
    assert "RunBusy" in refused.said
    assert str(holder) in refused.said
    assert work(path, out, "resume", -1).status == 0
