"""Export the models of a finished run: PEFT adapters, merged models, model cards."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tequio.app.models.agreement import Comparison
from tequio.app.models.model_card import card_text
from tequio.app.models.open import Opened, open_models
from tequio.core.errors import ConfigError, RunError
from tequio.core.texts.words import refusal
from tequio.core.update import HEAD_PREFIX, Update
from tequio.ledger.folder import RunFolder
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.export import DEFAULT_RANK, adapter_files, factored, save_merged

DTYPES = ("float32", "bfloat16", "float16")


def export_models(
    run: Path,
    who: str | None,
    out: Path,
    merged: bool,
    emissions: Mapping[str, Any] | None = None,
    rank: int | None = DEFAULT_RANK,
    dtype: str | None = None,
) -> list[dict[str, Any]]:
    """Write one PEFT folder per model into `out` (new or empty folders only), and merged models if
    asked.

    Args:
        run: the run's folder.
        who: one model by name; None: all.
        out: where the folders are written.
        merged: also write whole models.
        emissions: for the model card, as `co2_eq_emissions` wants them; None: no card.
        rank: the largest rank of an adapter; None: the exact one.
        dtype: precision of a merged model; None: that of the base's files.
    Returns:
        One row per model: paths, rank, bytes, and the agreement with the original where it was
        measured.
    Raises:
        RunError: the run has no such model, or no adapters. ConfigError: dtype is not one of
        DTYPES.
    """
    written: list[dict[str, Any]] = []
    active_models: dict[str, AdaptedModel] = {}
    precision = parse_dtype(dtype)
    for opened in open_models(run, who):
        if opened.full and not merged:
            raise refusal(RunError, "no-adapters", run=str(run))
        adapted = active_models.get(opened.base) or opened.adapted()
        active_models = {} if merged else {opened.base: adapted}  # merging uses an adapted model up
        adapted.fold_in(opened.model)
        comparison = Comparison(opened, adapted, run)
        row: dict[str, Any] = {"name": opened.name}
        if not opened.full:
            row |= _adapter(opened, adapted, comparison, RunFolder(out), emissions, rank)
        if merged:
            row |= _merged(opened, adapted, comparison, out, emissions, precision)
        written.append(row)
    return written


def parse_rank(text: str) -> int | None:
    """Return the rank that `--rank` asks for; None, the exact one, for 0 and full.

    Raises ConfigError.
    """
    if text in ("0", "full"):
        return None
    if not text.isdecimal():
        raise refusal(
            ConfigError,
            "option-unfit",
            option="--rank",
            value=text,
            names=["full", "0", "1", "2", "…"],
        )
    return int(text)


def parse_dtype(text: str | None) -> torch.dtype | None:
    """Return the precision that `--dtype` asks for. Raises ConfigError."""
    if text is None:
        return None
    if text not in DTYPES:
        raise refusal(ConfigError, "option-unfit", option="--dtype", value=text, names=list(DTYPES))
    dtype: torch.dtype = getattr(torch, text)
    return dtype


def _adapter(
    opened: Opened,
    adapted: AdaptedModel,
    comparison: Comparison,
    folder: RunFolder,
    emissions: Mapping[str, Any] | None,
    rank: int | None,
) -> dict[str, Any]:
    """Write the adapter of one model."""
    small = factored(opened.model, rank)
    adapted.fold_in(small)
    agreement = comparison.agreement()
    files = adapter_files(
        adapted, small, opened.config.base.model, opened.config.task.label_names()
    )
    if emissions is not None:
        files["README.md"] = card_text(
            opened, emissions, "adapter", bytes_rank(files), agreement
        ).encode()
    for file, data in files.items():
        folder.write_atomic(f"{opened.name}/adapter/{file}", data)
    return {
        "adapter": str(folder.path / opened.name / "adapter"),
        "rank": bytes_rank(files),
        "exact_rank": _matrix_rank(small if rank is None else factored(opened.model)),
        "bytes": sum(len(data) for data in files.values()),
        "agreement": None if agreement is None else agreement.facts(),
    }


def _matrix_rank(model: Update) -> int:
    """Return the largest rank of a factored model's matrices."""
    return Update(
        {n: e for n, e in model.entries.items() if not n.startswith(HEAD_PREFIX)}, model.spec
    ).max_rank()


def _merged(
    opened: Opened,
    adapted: AdaptedModel,
    comparison: Comparison,
    out: Path,
    emissions: Mapping[str, Any] | None,
    dtype: torch.dtype | None,
) -> dict[str, Any]:
    """Write the whole model; `adapted` only computes with it afterwards."""
    folder = out / opened.name / "merged"
    save_merged(adapted, opened.model, folder, opened.config.task.label_names(), dtype)
    agreement = comparison.agreement()
    if emissions is not None:
        card = card_text(opened, emissions, "merged", agreement=agreement)
        RunFolder(out).write_atomic(f"{opened.name}/merged/README.md", card.encode())
    return {
        "merged": str(folder),
        "merged_dtype": str(dtype or adapted.base.stored).removeprefix("torch."),
        "merged_agreement": None if agreement is None else agreement.facts(),
    }


def bytes_rank(files: Mapping[str, bytes]) -> int:
    """Return the rank that an adapter's configuration states."""
    return int(json.loads(files["adapter_config.json"])["r"])
