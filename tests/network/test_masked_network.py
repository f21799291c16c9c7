"""Masked rounds of real processes over TLS: the sums of one process, with one participant killed on
the way.
"""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from network_processes import ALONE, background, federation, tequio, until

from builders import free_port
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.core.canonical import unpack
from tequio.ledger.record import Ledger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
MASKED: dict[str, Any] = {
    "participants": 5,
    "algorithm": {"reduce": "ffa", "weights": "uniform"},
    "privacy": {"mode": "masked"},
}


def rounds(ledger: Path) -> list[dict[str, Any]]:
    with Ledger.open(ledger, read_only=True) as opened:
        return [dict(entry.body) for entry in opened.entries("round")]


def test_five_processes_open_the_sums_of_one(make_federation: Any, tmp_path: Path) -> None:
    toml = make_federation(**MASKED)
    one = start(load_federation(toml), tmp_path / "one", False).folder
    with federation(tmp_path, toml, f"127.0.0.1:{free_port()}") as folders, ExitStack() as stack:
        hub = tmp_path / "hub" / "run"
        for name, folder in folders.items():
            stack.enter_context(background(tmp_path / f"{name}.log", "participate", folder, *ALONE))
        until(lambda: (hub / "report.en.html").exists())
    alone, shared = (unpack((run / "shared.safetensors").read_bytes()) for run in (one, hub))
    assert shared.norm() > 1e-3
    assert shared.minus(alone).norm() < 1e-6 * max(1.0, alone.norm())
    for body in rounds(hub / "ledger.sqlite"):
        assert body["validation"] == {}
        own = [row for row in body["train"] if row["name"] != "centre"]
        assert len(own) == 5
        assert all(row["norm"] is None and row["loss_last"] is None for row in own)
    assert json.loads(tequio("verify", hub, "--json"))["ok"]
    shown = [
        json.loads(tequio("members", folder, "--json"))["members"] for folder in folders.values()
    ]
    assert len({row["fingerprint"] for row in shown}) == 1
    assert shown[0]["fingerprint"] in tequio("status", folders["site2"])
    assert "fingerprint" in (tmp_path / "site1.log").read_text()
    assert "Validation loss" in tequio("status", tmp_path / "hub")


def lost(body: dict[str, Any]) -> bool:
    """Whether site3 was in a round and fell out of it."""
    return any(row["name"] == "site3" and row["status"] == "failed" for row in body["admissions"])


def test_a_participant_killed_in_a_round_drops_out_of_it(
    make_federation: Any, tmp_path: Path
) -> None:
    toml = make_federation(**MASKED, train={"rounds": 4, "quorum": 4})
    with federation(tmp_path, toml, f"127.0.0.1:{free_port()}") as folders, ExitStack() as stack:
        hub = tmp_path / "hub" / "run"
        ledger, people = hub / "ledger.sqlite", dict[str, Any]()
        for name, folder in folders.items():
            people[name] = stack.enter_context(
                background(tmp_path / f"{name}.log", "participate", folder, *ALONE)
            )
        log = tmp_path / "site3.log"
        until(
            lambda: any(f"round {r}: secure sum, train: share" in log.read_text() for r in (2, 3))
        )
        people["site3"].send_signal(signal.SIGKILL)
        people["site3"].wait()
        until(lambda: any(lost(body) for body in rounds(ledger)))
        stack.enter_context(background(log, "participate", folders["site3"], *ALONE))
        until(lambda: (hub / "report.en.html").exists())
    made = rounds(ledger)
    assert len(made) == 4
    short = next(body for body in made if lost(body))
    assert short["accepted"]
    assert short["sums"]["train"]["members"] == 4.0
    assert max(body["sums"]["train"]["members"] for body in made) == 5.0
    assert json.loads(tequio("verify", hub, "--json"))["ok"]


def test_a_coordinator_killed_midway_ends_with_the_same_model(
    make_federation: Any, tmp_path: Path
) -> None:
    """The participants' processes live on, and take part in no second sum of a round."""
    toml = make_federation(**{**MASKED, "participants": 3, "train": {"rounds": 3}})
    one = start(load_federation(toml), tmp_path / "one", False).folder
    hub, log = tmp_path / "hub", tmp_path / "coordinator.log"
    sums = hub / "run" / "sums" / "train.safetensors"
    with ExitStack() as stack:
        with federation(tmp_path, toml, f"127.0.0.1:{free_port()}", kill=True) as folders:
            for name, folder in folders.items():
                stack.enter_context(
                    background(tmp_path / f"{name}.log", "participate", folder, *ALONE)
                )
            until(
                sums.exists
            )  # the sum of round 1 is opened, and the round is most likely not in the record yet
        log.write_text("")
        stack.enter_context(background(log, "coordinator", "start", hub, "--wait", "60", *ALONE))
        until(lambda: (hub / "run" / "report.en.html").exists())
    assert len(rounds(hub / "run" / "ledger.sqlite")) == 3
    alone, shared = (
        unpack((run / "shared.safetensors").read_bytes()) for run in (one, hub / "run")
    )
    assert shared.minus(alone).norm() < 1e-6 * max(1.0, alone.norm())
    assert json.loads(tequio("verify", hub / "run", "--json"))["ok"]
