"""A participant whose base is in shards among two processes (torchrun, gloo), in a federation
across a network, as a user starts it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("flwr")

from network_processes import ALONE, background, federation, kinds, tequio, until

from builders import free_port
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.core.canonical import unpack
from tequio.ledger.record import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@contextmanager
def team(log: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [*TORCHRUN, "-m", "tequio.cli.main", "participate", str(folder), *ALONE]
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env={**os.environ})
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def test_in_shards_it_trains_and_one_of_its_processes_dies(
    make_federation: Any, tmp_path: Path
) -> None:
    """Where one process dies the other does not wait for it; started again it goes on, and the end
    is that of whole bases.
    """
    pieces = {
        "reduce": "fedit",
        "upload": "topk",
        "upload_settings": {"density": 0.5},
    }  # what it leaves out, the first one keeps
    more = {"train": {"rounds": 4}, "adapter": {"ranks": [2]}, "algorithm": pieces}
    toml = make_federation(kind="causal", participants=2, centre=False, **more)
    one = start(load_federation(toml), tmp_path / "one", False).folder
    own = toml.parent / "participants" / "site0.toml"
    own.write_text(
        own.read_text().replace(
            "[hardware]", "[team]\nshard_base = true\n\n[hardware]\nprobe = true"
        )
    )
    hub, log = tmp_path / "hub" / "run", tmp_path / "site0.log"
    with (
        federation(tmp_path, toml, f"127.0.0.1:{free_port()}") as folders,
        background(tmp_path / "site1.log", "participate", folders["site1"], *ALONE),
    ):
        with team(log, folders["site0"]) as launcher:
            until(
                lambda: (hub / "ledger.sqlite").exists() and "round" in kinds(hub / "ledger.sqlite")
            )
            first, second = sorted(
                psutil.Process(launcher.pid).children(), key=lambda p: p.environ()["RANK"]
            )
            second.send_signal(signal.SIGKILL)
            assert launcher.wait(60) != 0
            assert not first.is_running()
        with team(log, folders["site0"]) as launcher:
            until(lambda: (hub / "report.en.html").exists())
            assert launcher.wait(60) == 0
    models = [unpack((run / "shared.safetensors").read_bytes()) for run in (one, hub)]
    assert models[0].norm() > 0.0
    assert models[0].minus(models[1]).norm() <= 1e-2 * models[0].norm()
    tequio("verify", folders["site0"] / "run")
    assert "site0" in tequio("predict", folders["site0"] / "run", "site0", "the nurse", "--json")
    with Ledger.open(folders["site0"] / "run" / "ledger.sqlite", read_only=True) as ledger:
        header = next(iter(ledger.entries())).body
    assert "weights in shards among 2 processes" in header["base"]["path"]
    assert header["facts"]["told"]["speed"] > 0.0
