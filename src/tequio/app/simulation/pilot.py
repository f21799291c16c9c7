"""A pilot: one round and short personal models foretell, for each participant, whether joining will pay."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tequio.app.simulation.run import start
from tequio.app.stages import Watch, silent
from tequio.config import Federation
from tequio.ledger.record import Ledger

ROUNDS = 1
SURE = 1.96  # standard errors on both sides of a forecast


def run_pilot(config: Federation, watch: Watch = silent) -> list[dict[str, Any]]:
    """Return one row per participant: benefit (share of the local model's loss that is saved), low, high, verdict.

    The whole pipeline runs with one round in a folder that is deleted; the model trained alone gets as few steps. Only
    validation data are looked at for it, so the test data of the run itself stay unseen by any decision.
    verdict: `pays` where the whole interval lies above 0, `does_not_pay` where it lies below, else `open`.
    """
    train = config.train.model_copy(update={"rounds": ROUNDS})
    with tempfile.TemporaryDirectory(prefix="tequio-pilot-") as folder:
        outcome = start(config.model_copy(update={"train": train}), Path(folder) / "run", False, watch=watch)
        with Ledger.open(outcome.folder / "ledger.sqlite", read_only=True) as ledger:
            return [foretold(dict(entry.body)) for entry in ledger.entries("personal")]


def foretold(body: dict[str, Any]) -> dict[str, Any]:
    """The forecast that a participant's personal model of a short run allows; benefit is None where nothing compares."""
    row: dict[str, Any] = {"name": body["name"], "benefit": None, "low": None, "high": None, "verdict": "open"}
    found, local = body["choice"].get("over_local"), body["candidates"].get("local")
    if found is None or local is None or local["loss"] <= 0.0:
        return row
    benefit, spread = found["lead"] / local["loss"], SURE * found["error"] / local["loss"]
    low, high = benefit - spread, benefit + spread
    verdict = "pays" if low > 0.0 else "does_not_pay" if high < 0.0 else "open"
    return {**row, "benefit": benefit, "low": low, "high": high, "verdict": verdict}
