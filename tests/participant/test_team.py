"""Two processes (gloo) that share each batch make the steps of one, but for rounding."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tequio.core.canonical import unpack
from tequio.participant.tasks import Item
from tequio.participant.team import ALONE, Team

WORKER = Path(__file__).parent / "team_worker.py"


def run(processes: int, toml: Path, batch_size: int, out: Path) -> dict[str, Any]:
    """What the first process wrote; one process is started without torchrun."""
    torchrun = (
        [] if processes == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    )
    command = [sys.executable, *torchrun, str(WORKER), str(toml), str(batch_size), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    facts: dict[str, Any] = json.loads((out / f"{processes}.json").read_text())
    return facts


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kind", "batch_size"), [("classification", 5), ("causal", 1)])
def test_two_processes_make_the_steps_of_one(make_federation: Any, tmp_path: Path, kind: str, batch_size: int) -> None:
    """A batch of 5 is parted in 3 and 2; of a batch of 1 the second process has nothing, and adds a gradient of 0."""
    toml = make_federation(kind=kind, participants=1, rows=60, centre=False)
    one, two = (run(processes, toml, batch_size, tmp_path) for processes in (1, 2))
    for what in ("update", "personal"):
        models = [unpack((tmp_path / f"{n}.{what}").read_bytes(), what) for n in (1, 2)]
        assert models[0].minus(models[1]).norm() <= 1e-3 * models[0].norm(), what
    assert two["tokens"] == one["tokens"]
    assert two["chosen"] == one["chosen"]
    for figure in ("first", "last", "test"):
        assert two[figure] == pytest.approx(one[figure], rel=1e-4), figure
    assert two["joules"] > 0.0
    assert (one["refused"], two["refused"]) == (False, True)  # a local term: several processes share plain steps only


def test_the_parts_of_a_batch_are_the_batch() -> None:
    batch = [Item((i,), (0,)) for i in range(7)]
    parts = [Team(rank, 3).part(batch) for rank in range(3)]
    assert [len(part) for part in parts] == [3, 2, 2]
    assert sorted(item.ids for part in parts for item in part) == [item.ids for item in batch]
    assert ALONE.part(batch) == batch
    assert ALONE.hand_on(b"as it is") == b"as it is"
