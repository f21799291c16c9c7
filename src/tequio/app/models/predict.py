"""Predict with a model of a finished run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tequio.app.models.open import open_models
from tequio.core.errors import DataError
from tequio.participant.data import SUFFIXES, Asked, read_asked
from tequio.participant.predict import classify, complete


def predict_texts(run: Path, who: str, texts: Sequence[str], max_new_tokens: int) -> list[dict[str, Any]]:
    """One row a text: label and probabilities, or the completion. RunError if `who` has no model in this run."""
    opened = open_models(run, who)[0]
    config, adapted = opened.config, opened.adapted()
    adapted.fold_in(opened.model)
    if config.task.kind == "classification":
        return classify(adapted, texts, config.task.label_names(), config.task.max_tokens)
    return complete(adapted, texts, max_new_tokens, config.task.max_tokens)


def predict_rows(run: Path, who: str, rows: Sequence[Asked], max_new_tokens: int) -> list[dict[str, Any]]:
    """Return one answer per row of a file, with the row's number (`row`); a row without text has `empty` instead."""
    answers = iter(predict_texts(run, who, [row.text for row in rows if row.text is not None], max_new_tokens))
    return [{"row": row.row, **_answer(row, answers)} for row in rows]


def _answer(row: Asked, answers: Iterator[dict[str, Any]]) -> dict[str, Any]:
    return {"empty": True} if row.text is None else next(answers)


def read_prediction_rows(file: Path) -> list[Asked]:
    """Read the rows of a file: the column `text` of a table, or the lines of a plain file. Raises DataError."""
    rows = read_asked(file)
    if all(row.text is None for row in rows):
        raise DataError(f"{file} has no text.", f"Expected lines, or a column 'text' in one of {', '.join(SUFFIXES)}.")
    return rows
