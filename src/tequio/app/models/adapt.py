"""A newcomer starts from a finished federation: its own personal model from few examples, and
whether that beat starting alone.

Nothing of the newcomer's is written into the run, and nothing leaves its machine. Its folder has a
record of its own, and its account book.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tequio.app.assembly.algorithm import resolve_algorithm
from tequio.app.assembly.context import ModelContext, build_task, read_splits
from tequio.app.assembly.manifest import begin_record, build_header, participant_row
from tequio.app.assembly.memory import resolve_dtype
from tequio.app.assembly.public_data import CENTRE
from tequio.app.models.newcomer import build_newcomer
from tequio.app.models.open import members, open_models, shared_name
from tequio.app.run_files import save
from tequio.config import MAIN, Federation, load_participant
from tequio.config.sections import RosterEntry
from tequio.core.canonical import digest_update
from tequio.core.errors import RunError
from tequio.core.texts.words import refusal
from tequio.ledger.folder import RunFolder
from tequio.measure.energy import open_meter
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.export import adapter_files
from tequio.participant.personal import personalise

MODELS = {"file": "personal.safetensors", "local_file": "local.safetensors"}


def adapt(run: Path, participant: Path, out: Path, base: str = MAIN) -> dict[str, Any]:
    """Make the newcomer's candidates from the run's shared model (that of `base`), choose on its
    validation data, measure on its test data.

    The local baseline gets the steps that a member of the run with these data and this hardware
    would have made. Writes into `out` (a new or empty folder): result.json, both models, a record
    and the account book of it and, but for whole weights, adapter/ in PEFT's format. Raises
    RunError if the run has no shared model yet, ConfigError or DataError for the newcomer's files.
    """
    file = load_participant(participant)
    opened = open_models(run, shared_name(base))[0]
    config = opened.config
    if file.name in (CENTRE, *members(run)):
        raise refusal(RunError, "newcomer-name-taken", path=participant, name=file.name, run=run)
    splits = read_splits(config, file)
    folder = RunFolder.create(out, private=True)
    adapted = opened.adapted(resolve_dtype(config))
    context = ModelContext(
        config, resolve_algorithm(config), adapted, build_task(config, adapted.base), open_meter()
    )
    newcomer = build_newcomer(context, file, splits)
    node, profile, assignment = newcomer.node, newcomer.profile, newcomer.assignment
    node = replace(node, books=node.books.opened(folder, f"participants/{file.name}"))
    with folder.lock():
        result = personalise(node, opened.model, newcomer.settings)
        save(folder, MODELS["file"], result.delivered)
        save(folder, MODELS["local_file"], result.local)
        digests = {
            "digest": digest_update(result.delivered),
            "local_digest": digest_update(result.local),
        }
        body = {
            **result.body,
            "examples": dict(profile.batches),
            "rank": assignment.rank,
            "folder": str(out),
        }
        if not adapted.full:
            adapted.fold_in(result.delivered)
            files = adapter_files(
                adapted, result.delivered, config.base.model, config.task.label_names()
            )
            for name, content in files.items():
                folder.write_atomic(f"adapter/{name}", content)
            body["adapter"] = str(folder.path / "adapter")
        folder.write_atomic("result.json", json.dumps(body, indent=2, sort_keys=True).encode())
        own = config.model_copy(
            update={"participants": [*config.participants, RosterEntry(name=file.name)]}
        )
        _record(
            folder,
            own,
            adapted,
            participant_row(profile, assignment, adapted.full),
            {**result.body, **digests, **MODELS},
            digest_update(opened.model),
        )
    return body


def _record(
    folder: RunFolder,
    config: Federation,
    adapted: AdaptedModel,
    row: Mapping[str, Any],
    personal: Mapping[str, Any],
    shared: str,
) -> None:
    """As a participant's own record of a federation.

    It is written last, so that what was cut off can be begun anew.

    shared: digest of the model that it started from.
    """
    header = build_header(config, adapted, [dict(row)]) | {"simulation": False, "provenance": []}
    header |= {"facts": {"adapted": shared}}
    with begin_record(folder, header, {MAIN: adapted}) as ledger:
        ledger.append("personal", personal)
