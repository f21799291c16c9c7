"""A newcomer starts from a finished federation: its own personal model from few examples, and whether that beat starting alone.

Nothing of the newcomer's is written into the run, and nothing leaves its machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tequio.core.canonical import pack
from tequio.core.errors import RunError
from tequio.ledger.folder import RunFolder
from tequio.measure.energy import open_meter
from tequio.participant.export import adapter_files
from tequio.participant.personal import personalise
from tequio.planning.allotment import allot
from tequio.recipes.config import MAIN, load_participant
from tequio.recipes.ground import Ground, dtype_of, node_of, splits_of, task_of
from tequio.recipes.told import full_steps, hardware_of, settings_of, told_of_node, workload_of
from tequio.recipes.use import members, open_models, shared_of


def adapt(run: Path, participant: Path, out: Path, base: str = MAIN) -> dict[str, Any]:
    """Make the newcomer's candidates from the run's shared model (that of `base`), choose on its validation data, measure on its test data.

    The local baseline gets the steps that a member of the run with these data and this hardware would have made. Writes into `out`
    (a new or empty folder): result.json, personal.safetensors and, but for whole weights, adapter/ in PEFT's format. Raises RunError
    if the run has no shared model yet, ConfigError or DataError for the newcomer's files.
    """
    file = load_participant(participant)
    opened = open_models(run, shared_of(base))[0]
    config = opened.config
    if file.name in members(run):
        why = "A member already has its personal model there."
        raise RunError(f"{participant}: {file.name!r} is a member of {run}.", why, "Give the newcomer another name.")
    splits = splits_of(config, file)
    folder = RunFolder.create(out)
    bench = opened.bench(dtype_of(config))
    node = node_of(Ground(config, bench, task_of(config, bench.base), open_meter()), file, splits, None)
    examples = len(node.data.train)
    told = told_of_node(node, file.hardware, {})
    work = workload_of(config, told, full_steps(config, examples), bench)
    allotment = allot(hardware_of(file.name, file.hardware, None, bench.full), work)
    result = personalise(node, opened.model, settings_of(config, examples, file.name, allotment))
    body = {
        **result.body,
        "examples": {k: len(getattr(node.data, k)) for k in ("train", "validation", "test")},
        "rank": allotment.rank,
    }
    folder.write_atomic("personal.safetensors", pack(result.delivered))
    if not bench.full:
        bench.hold(result.delivered)
        files = adapter_files(bench, result.delivered, config.base.model, config.task.label_names())
        for name, data in files.items():
            folder.write_atomic(f"adapter/{name}", data)
        body["adapter"] = str(folder.path / "adapter")
    folder.write_atomic("result.json", json.dumps(body, indent=2, sort_keys=True).encode())
    return body
