"""Predict with a model of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tequio.app.models.open import open_models
from tequio.core.errors import DataError
from tequio.participant.data import SUFFIXES, read_texts
from tequio.participant.predict import classify, complete


def predict_texts(run: Path, who: str, texts: Sequence[str], max_new_tokens: int) -> list[dict[str, Any]]:
    """One row a text: label and probabilities, or the completion. RunError if `who` has no model in this run."""
    opened = open_models(run, who)[0]
    config, adapted = opened.config, opened.adapted()
    adapted.fold_in(opened.model)
    if config.task.kind == "classification":
        return classify(adapted, texts, config.task.label_names(), config.task.max_tokens)
    return complete(adapted, texts, max_new_tokens)


def read_prediction_texts(file: Path) -> list[str]:
    """The texts of a file: the column `text` of a table, or the lines of a plain file. Raises DataError."""
    texts = read_texts(file)
    if not texts:
        raise DataError(f"{file} has no text.", f"Expected lines, or a column 'text' in one of {', '.join(SUFFIXES)}.")
    return texts
