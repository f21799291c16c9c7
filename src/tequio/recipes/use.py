"""Using a run's models: predict, and export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from tequio.core.errors import DataError, RunError
from tequio.core.update import Dense, Update
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.base import load_base
from tequio.participant.bench import HEAD_WEIGHT, Bench
from tequio.participant.data import SUFFIXES, read_texts
from tequio.participant.export import adapter_files, save_merged
from tequio.participant.predict import classify, complete
from tequio.recipes.config import Federation
from tequio.recipes.paths import cache_folder
from tequio.recipes.run import HEAD_FILE, read_model, recorded_header

SHARED = "shared"


def predict_texts(run: Path, who: str, texts: Sequence[str], max_new_tokens: int) -> list[dict[str, Any]]:
    """One row a text: label and probabilities, or the completion. RunError if `who` has no model in this run."""
    config, models, head = open_models(run, who)
    bench = bench_of(config, head)
    bench.hold(models[who])
    if config.task.kind == "classification":
        return classify(bench, texts, config.task.label_names(), config.task.max_tokens)
    return complete(bench, texts, max_new_tokens)


def texts_of(file: Path) -> list[str]:
    """The texts of a file: the column `text` of a table, or the lines of a plain file. Raises DataError."""
    texts = read_texts(file)
    if not texts:
        raise DataError(f"{file} has no text.", f"Expected lines, or a column 'text' in one of {', '.join(SUFFIXES)}.")
    return texts


def export_models(run: Path, who: str | None, out: Path, merged: bool) -> list[dict[str, Any]]:
    """Write one PEFT folder a model into `out` (new or empty folders only), and merged models if asked."""
    config, models, head = open_models(run, who)
    full = config.adapter.kind == "full"
    if full and not merged:
        why = "This run trained whole weights, and an adapter of them would be larger than the model."
        raise RunError(f"{run} has no adapters.", why, "Use --merged.")
    bench = bench_of(config, head)
    labels = config.task.label_names()
    written: list[dict[str, Any]] = []
    for name, model in models.items():
        folder = RunFolder(out)
        bench.hold(model)
        written.append({"name": name})
        if not full:
            files = adapter_files(bench, model, config.base.model, labels)
            for file, data in files.items():
                folder.write_atomic(f"{name}/adapter/{file}", data)
            size = sum(len(data) for data in files.values())
            written[-1] |= {"adapter": str(out / name / "adapter"), "rank": bytes_rank(files), "bytes": size}
        if merged:
            save_merged(bench, model, out / name / "merged", labels)
            written[-1]["merged"] = str(out / name / "merged")
            bench = bench_of(config, head)
    return written


def bytes_rank(files: Mapping[str, bytes]) -> int:
    """The rank that an adapter's configuration states."""
    import json

    return int(json.loads(files["adapter_config.json"])["r"])


def open_models(run: Path, who: str | None) -> tuple[Federation, dict[str, Update], torch.Tensor | None]:
    """The models asked for, each checked against its digest in the ledger."""
    folder = RunFolder.open(run)
    with Ledger.open(folder.ledger_path, read_only=True) as ledger:
        header = recorded_header(ledger, folder)
        config = Federation.model_validate(header["config"])
        digests = {e.body["name"]: e.body["digest"] for e in ledger.entries("personal")}
        shared = ledger.last("shared")
    paths = {name: f"participants/{name}/personal.safetensors" for name in digests}
    if shared is not None:
        digests[SHARED], paths[SHARED] = shared.body["digest"], "shared.safetensors"
    wanted = list(digests) if who is None else [who]
    for name in wanted:
        if name not in digests:
            known = ", ".join(digests) or "none yet: the run has not come that far"
            raise RunError(f"{run} has no model of {name!r}.", f"It has: {known}.", "Name one of these.")
    start = read_model(folder, HEAD_FILE, header["head_digest"]).entries.get(HEAD_WEIGHT)
    head = start.value if isinstance(start, Dense) else None
    return config, {name: read_model(folder, paths[name], digests[name]) for name in wanted}, head


def bench_of(config: Federation, head: torch.Tensor | None, dtype: torch.dtype = torch.float32) -> Bench:
    """The base on this machine, in float32 unless speed matters more, with the head the run started from."""
    base = load_base(config.base.model, config.task.kind, dtype, cache_folder())
    return Bench(base, config.adapter.modules, config.adapter.scale, head, config.adapter.kind == "full")
