"""A pilot: one round and short personal models foretell, for each participant, whether joining will pay."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tequio.app.simulation.run import start
from tequio.app.stages import Watch, silent
from tequio.config import Federation
from tequio.ledger.record import Ledger
from tequio.participant.foretelling import foretold

ROUNDS = 1


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
