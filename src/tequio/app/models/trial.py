"""Try an earlier run's shared model at home, before joining: would it pay?

Nothing is written, sent or joined.
"""

from pathlib import Path
from typing import Any

from tequio.app.assembly.context import ModelContext, build_model_context, read_splits
from tequio.app.models.newcomer import build_newcomer
from tequio.app.models.open import open_models, shared_name
from tequio.config import MAIN, Federation, ParticipantFile
from tequio.core.errors import RunError
from tequio.core.texts.words import refusal
from tequio.core.update import Dense, Update
from tequio.participant.adapted_model import HEAD_WEIGHT
from tequio.participant.exported import exported_folder, read_exported
from tequio.participant.foretelling import foretold
from tequio.participant.personal import personalise

FIX = "Try the model of a run with the federation's base, modules and labels."


def try_at_home(
    config: Federation, file: ParticipantFile, source: Path, base: str = MAIN
) -> dict[str, Any]:
    """Make the participant's personal model from an earlier shared model, as `adapt` does, and
    foretell from it.

    Args:
        config: the federation to join, for this participant's base.
        file: the participant's own.
        source: a run's folder, or a shared model as `tequio export` wrote it.
        base: of an earlier run with several, which one.

    Returns:
        The row of `foretold`, with the numbers of texts, and the candidates' losses on validation
        data.

    Raises:
        RunError, UpdateError: there is no such model, or it was made for another base or other
        labels.
    """
    splits = read_splits(config, file)
    context, shared = _opened(config, file, source, base)
    newcomer = build_newcomer(context, file, splits)
    result = personalise(newcomer.node, shared, newcomer.settings)
    more = {"examples": dict(newcomer.profile.batches), "candidates": result.body["candidates"]}
    return {**foretold(result.body), **more}


def _opened(
    config: Federation, file: ParticipantFile, source: Path, base: str
) -> tuple[ModelContext, Update]:
    """Return the federation's base in memory, and the shared model to try as a change of it."""
    folder, labels = exported_folder(source), config.task.label_names()
    if folder is not None:
        context = build_model_context(config, {file.name: file})
        return context, read_exported(folder, context.adapted, config.base.model, labels)
    earlier = open_models(source, shared_name(base))[0]
    if earlier.config.task.kind != config.task.kind or earlier.config.task.label_names() != labels:
        raise refusal(RunError, "model-unfit", path=source, key="task")
    context = build_model_context(config, {file.name: file})
    adapted, model = context.adapted, earlier.model
    if earlier.model.spec != adapted.spec:
        raise refusal(RunError, "model-unfit", path=source, key="base")
    if earlier.head is not None:  # it began from other words for the labels, perhaps
        moved = earlier.head - adapted.head_start[HEAD_WEIGHT].cpu()
        model = model.plus(Update({HEAD_WEIGHT: Dense(moved)}, adapted.spec))
    return context, model
