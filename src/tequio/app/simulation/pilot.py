"""A pilot: one round and short personal models foretell, for each participant, whether joining will
pay.
"""

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
    """Return one row per participant, as `foretold` makes it.

    The whole pipeline runs with one round in a folder that is deleted. The model trained alone gets
    the steps that the run
    will give it: that is what joining has to beat. Only validation data are looked at for the
        forecast, so the test data
    stay unseen by any decision.
    """
    first = 0 if config.centre is None else config.centre.first
    train = config.train.model_copy(update={"rounds": first + ROUNDS})
    short, rounds = config.model_copy(update={"train": train}), config.train.rounds - first
    with tempfile.TemporaryDirectory(prefix="tequio-pilot-") as folder:
        outcome = start(short, Path(folder) / "run", False, watch=watch, alone_rounds=rounds)
        with Ledger.open(outcome.folder / "ledger.sqlite", read_only=True) as ledger:
            return [foretold(dict(entry.body)) for entry in ledger.entries("personal")]
