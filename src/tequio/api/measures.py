"""Your own metrics on each participant's own test data, for the personal and the shared model of a
simulation.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tequio.api.rows import Rows
from tequio.app.assembly.context import build_task, read_splits
from tequio.app.models.open import Opened, open_models, shared_name
from tequio.app.run_files import config_from_header, recorded_header, salt_file
from tequio.config import load_participant
from tequio.core.canonical import digest_json
from tequio.core.errors import ConfigError, RunError
from tequio.core.texts.words import refusal
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.general import answers
from tequio.participant.predict import classify
from tequio.participant.splits import Splits

Metric = Callable[[Sequence[Mapping[str, Any]], Sequence[str]], float]
"""metric(answers, labels): rows as `Run.predict` returns them, and the right labels, one per
text.
"""


def evaluate(run: Path, metrics: Sequence[Metric]) -> Rows:
    """Return one row per participant and model:

    `participant`, `model`, `texts`, and each metric by its name.

    Raises:
        RunError: the task is no classification, a participant has no model or no file here, or its
        data changed. ConfigError: a metric has no name, the name of another column, or gives no
        number.
    """
    names = [_name(metric) for metric in metrics]
    if twice := sorted(
        {n for n in names if names.count(n) > 1 or n in ("participant", "model", "texts")}
    ):
        raise refusal(ConfigError, "metric-name-taken", names=twice)
    folder = RunFolder.open(run)
    with Ledger.open(folder.ledger_path, read_only=True) as ledger:
        header = recorded_header(ledger, folder)
    config = config_from_header(header, folder.ledger_path)
    if config.task.kind != "classification":
        raise refusal(RunError, "metric-needs-classes", run=str(run))
    adapted: dict[str, AdaptedModel] = {}
    rows = []
    for entry in config.participants:
        models = {
            "personal": open_models(run, entry.name)[0],
            "shared": open_models(run, shared_name(entry.base))[0],
        }
        own = models["personal"]
        splits = _splits(own, folder, header)
        if own.base not in adapted:
            adapted[own.base] = own.adapted()
        base = adapted[own.base]
        task, labels = build_task(own.config, base.base), own.config.task.label_names()
        items, _ = task.encode(splits.test, entry.name)
        right = [labels[item.target[0]] for item in items]
        for model, opened in models.items():
            said = classify(answers(base, opened.model, [item.ids for item in items]), labels)
            found = {
                n: _number(n, metric(said, right)) for n, metric in zip(names, metrics, strict=True)
            }
            rows.append({"participant": entry.name, "model": model, "texts": len(items), **found})
    return Rows(rows)


def _name(metric: Metric) -> str:
    name = getattr(metric, "name", None) or getattr(metric, "__name__", None)
    if not isinstance(name, str):
        raise refusal(ConfigError, "metric-without-name", type=type(metric).__name__)
    return name


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise refusal(
            ConfigError, "metric-no-number", name=name, type=type(value).__name__
        ) from None


def _splits(opened: Opened, folder: RunFolder, header: Mapping[str, Any]) -> Splits:
    """Return a participant's data, which must be those of the run."""
    entry = next(e for e in opened.config.participants if e.name == opened.name)
    if entry.file is None:
        raise refusal(RunError, "metric-needs-data", run=str(folder.path), name=opened.name)
    splits = read_splits(opened.config, load_participant(entry.file, entry.name))
    salt = folder.path / salt_file(entry.name)
    committed = header.get("commitment", {}).get(entry.name)
    if not salt.is_file() or digest_json([salt.read_text(), splits.digest()]) != committed:
        raise refusal(RunError, "metric-data-changed", run=str(folder.path), name=opened.name)
    return splits
