"""kill -9 at every stage of real runs in real processes; each, resumed, ends with the outcome of an unbroken run, to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

WORKER = """
import os, sys, json
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"
import torch
torch.set_num_threads(1)
from pathlib import Path
from tequio.recipes.config import load_federation
from tequio.recipes.run import resume, start

said = 0
def watch(stage, what, done, of):
    global said
    said += 1
    print(said, stage, flush=True)
    if said == int(sys.argv[4]):
        os.kill(os.getpid(), 9)

path, out, workers = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[5])
if sys.argv[3] == "resume":
    outcome = resume(out, watch, workers)
else:
    config = load_federation(path)
    outcome = start(config, out, not config.bases, watch=watch, workers=workers)
print(json.dumps(dict(outcome.end)), flush=True)
"""


def work(path: Path, out: Path, mode: str, kill_at: int, workers: int = 1) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WORKER, str(path), str(out), mode, str(kill_at), str(workers)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


SPARSE = {"reduce": "rolora", "upload": "topk", "upload_settings": {"density": 0.1}, "feedback": 0.9}
BUFFERED = {"pace": "buffered", "round_seconds": 10.0, "rounds": 4, "patience": 9}

RING = {"centre": False, "algorithm": {"weights": "uniform"}, "topology": {"kind": "ring"}}


@pytest.mark.slow
@pytest.mark.parametrize(
    "sections", [{}, {"algorithm": SPARSE, "adapter": {"modules": ["dense"]}}, {"train": BUFFERED}, RING]
)
def test_kill_at_every_stage_and_resume_gives_the_unbroken_outcome(
    make_federation: Any, tmp_path: Path, sections: dict[str, Any]
) -> None:
    path = make_federation(participants=2, **sections)
    if "train" in sections:  # site1 is slow: its updates are in flight when the process is killed
        slow = path.parent / "participants" / "site1.toml"
        slow.write_text(slow.read_text().replace("[hardware]\n", "[hardware]\ntokens_per_second = 10.0\n"))
    unbroken = work(path, tmp_path / "unbroken", "start", -1)
    assert unbroken.returncode == 0, unbroken.stderr
    lines = unbroken.stdout.splitlines()
    expected = json.loads(lines[-1])
    stages = len(lines) - 1
    assert {line.split()[1] for line in lines[:-1]} == {"prepare", "rounds", "personal", "counterfactuals", "general"}
    # one run killed again and again, one stage later each time, until it gets to the end
    out = tmp_path / "killed"
    first = work(path, out, "start", 3)
    assert first.returncode == -signal.SIGKILL
    kills = 1
    for kill_at in range(2, 2 * stages):
        again = work(path, out, "resume", kill_at, workers=1 + kill_at % 2)  # now alone, now side by side
        if again.returncode == 0:
            break
        assert again.returncode == -signal.SIGKILL, again.stderr
        kills += 1
    assert kills >= 4
    assert json.loads(again.stdout.splitlines()[-1]) == expected


@pytest.mark.slow
def test_two_bases_that_teach_each_other_are_killed_in_each_round_and_end_the_same(
    make_two_bases: Any, tmp_path: Path
) -> None:
    path, out = make_two_bases(participants=2), tmp_path / "killed"
    unbroken = work(path, tmp_path / "unbroken", "start", -1)
    assert unbroken.returncode == 0, unbroken.stderr
    assert work(path, out, "start", 4).returncode == -signal.SIGKILL  # in the first round, one group done
    for kill_at in (7, 6, 3):
        assert work(path, out, "resume", kill_at).returncode == -signal.SIGKILL
    again = work(path, out, "resume", -1)
    assert json.loads(again.stdout.splitlines()[-1]) == json.loads(unbroken.stdout.splitlines()[-1])


@pytest.mark.slow
def test_kill_at_random_moments_of_the_clock(make_federation: Any, tmp_path: Path) -> None:
    """Not at stages of ours but whenever: while a file or a transaction is being written, too."""
    path = make_federation(participants=2)
    expected = json.loads(work(path, tmp_path / "unbroken", "start", -1).stdout.splitlines()[-1])
    out = tmp_path / "killed"
    mode = "start"
    for attempt in range(12):
        command = [sys.executable, "-c", WORKER, str(path), str(out), mode, "-1", "2"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()  # it has started to work
        time.sleep(0.15 * attempt + 0.2)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        rest, stderr = process.communicate()
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, stderr
        mode = "resume" if (out / "ledger.sqlite").exists() else "start"
    final = work(path, out, mode, -1) if process.returncode != 0 else None
    said = (final.stdout if final else rest).splitlines()[-1]
    assert json.loads(said) == expected


@pytest.mark.slow
def test_two_runs_cannot_write_one_folder(make_federation: Any, tmp_path: Path) -> None:
    path, out = make_federation(participants=2), tmp_path / "run"
    assert work(path, out, "start", 4).returncode == -signal.SIGKILL
    command = [sys.executable, "-c", WORKER, str(path), str(out), "resume", "-1", "1"]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.stdout.readline()
    os.kill(holder.pid, signal.SIGSTOP)  # it holds the lock and goes no further
    second = work(path, out, "resume", -1)
    os.kill(holder.pid, signal.SIGKILL)
    holder.communicate()
    assert second.returncode != 0
    assert "RunBusy" in second.stderr
    assert str(holder.pid) in second.stderr
    assert work(path, out, "resume", -1).returncode == 0
