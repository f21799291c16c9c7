"""Many runs that differ in some settings, one after the other, with one row per run and
participant.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tequio.api.federation import FEDERATION, Federation, as_federation
from tequio.api.rows import Rows
from tequio.api.running import run
from tequio.config import stored

if TYPE_CHECKING:
    from tequio.api.measures import Metric


def sweep(
    federation: Federation | str | Path | Mapping[str, object],
    grid: Mapping[str, Sequence[object]],
    folder: str | Path | None = None,
    *,
    counterfactuals: bool = False,
    workers: int = 0,
    metrics: Sequence[Metric] = (),
) -> Rows:
    """Run every combination of these settings, and return one row per run and participant.

    A run that the folder holds already is not repeated, and one that was cut off is resumed, so the
    same call continues a sweep, also with a larger grid.

    Args:
        federation: as `tequio.run` takes it.
        grid: setting -> values: `{"train.learning_rate": [1e-3, 5e-3], "seed": [0, 1]}`.
        folder: of all runs, one folder per combination. Default: `sweeps/NAME` beside
            federation.toml, or here.
        counterfactuals: as for `tequio.run`.
        workers: as for `tequio.run`.
        metrics: your own metrics, computed for the personal models: see `Run.evaluate`.

    Returns:
        Rows with the settings of the grid, the columns of `Run.rows`, each metric, and the `run`'s
        folder.

    Raises:
        TequioError: a setting of any combination is illegal, before the first run; later whatever a
        run raises.
    """
    found = as_federation(federation)
    names, rows = list(grid), []
    combinations = [
        dict(zip(names, values, strict=True)) for values in itertools.product(*grid.values())
    ]
    federations = [found.with_settings(settings) for settings in combinations]
    home = Path() if found.file is None else found.file.resolve().parent
    root = home / "sweeps" / found.name if folder is None else Path(folder)
    for settings, each in zip(combinations, federations, strict=True):
        made = run(
            each,
            root / _digest(each, counterfactuals),
            resume=True,
            counterfactuals=counterfactuals,
            workers=workers,
        )
        own: dict[str, dict[str, Any]] = {}
        if metrics:
            measured = [row for row in made.evaluate(*metrics) if row["model"] == "personal"]
            own = {row["participant"]: {k: row[k] for k in [*row][3:]} for row in measured}
        rows += [
            {**settings, **row, **own.get(row["participant"], {}), "run": str(made.folder)}
            for row in made.rows()
        ]
    return Rows(rows)


def _digest(federation: Federation, counterfactuals: bool) -> str:
    """Return a name for the folder of this combination: of its settings and of the data that came
    from Python.
    """
    facts = [stored(federation.settings), *([True] if counterfactuals else [])]
    found = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for relative, content in federation.texts() if federation.inputs else ():
        if relative != FEDERATION:
            found.update(content)
    return found.hexdigest()[:16]
