"""Predict with a model of a finished run."""

import codecs
import re
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from tequio.app.models.open import SHARED, open_models
from tequio.app.run_files import config_from_header, recorded_header
from tequio.config import load_participant
from tequio.core.errors import ConfigError, DataError
from tequio.core.texts.words import refusal
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.data import SUFFIXES, read_texts
from tequio.participant.encoding import class_ids
from tequio.participant.general import answers, blended, embeddings
from tequio.participant.predict import classify, complete


def predict_texts(
    run: Path, who: str, texts: Sequence[str], max_new_tokens: int, general: bool = False
) -> list[dict[str, Any]]:
    """One row a text: label and probabilities, or the completion.

    RunError if `who` has no model in this run.

    general: with the participant's general model, see `open_models`.
    """
    opened = open_models(run, who, general)[0]
    config, adapted = opened.config, opened.adapted()
    if config.task.kind == "classification":
        rows = class_ids(adapted.base.tokenizer, texts, config.task.max_tokens)
        found = answers(adapted, opened.model, rows) if rows else torch.empty(0, 0)
        if opened.beside is not None and rows:
            shared, familiarity = opened.beside
            weights = familiarity.weights(embeddings(adapted, rows))
            found = blended(found, answers(adapted, shared, rows), weights)
        return classify(found, config.task.label_names())
    adapted.fold_in(opened.model)
    return complete(adapted, texts, max_new_tokens, config.task.max_tokens)


def predict_rows(
    run: Path, who: str, texts: Sequence[str | None], max_new_tokens: int, general: bool = False
) -> list[dict[str, Any]]:
    """Return one answer per row, each with the row's number, counted from 1; the answer of a row
    without text is None.
    """
    places = [number for number, text in enumerate(texts) if text is not None]
    found = predict_texts(
        run, who, [text for text in texts if text is not None], max_new_tokens, general
    )
    empty = dict.fromkeys(found[0]) if found else {}
    answers: list[dict[str, Any]] = [
        {"row": number, **empty} for number in range(1, len(texts) + 1)
    ]
    for place, answer in zip(places, found, strict=True):
        answers[place] |= answer
    return answers


def text_columns(run: Path, who: str) -> list[str]:
    """Return what the column with the texts may be called: as the participant's own file says,
    where it is here, else as usual.
    """
    folder = RunFolder.open(run)
    with Ledger.open(folder.ledger_path, read_only=True) as ledger:
        config = config_from_header(recorded_header(ledger, folder), folder.ledger_path)
    own: list[str] = []
    for entry in config.participants:
        if entry.file is not None and entry.file.is_file() and who in (entry.name, SHARED):
            with suppress(ConfigError):
                data = load_participant(entry.file).data
                own += [name for name in (data.text, data.prompt) if name is not None]
    return list(dict.fromkeys([*own, "text", "prompt"]))


def read_prediction_texts(
    file: Path, columns: Sequence[str] = ("text", "prompt")
) -> list[str | None]:
    """Return one text per row of a file, or of standard input where it is `-`; a row without text
    is None.

    Raises DataError.

    Standard input is read as JSON where it begins with { or [, as a table where its first line has
    one of `columns`, else as plain lines.
    """
    if str(file) != "-":
        texts, name = read_texts(file, columns), str(file)
    else:
        raw = sys.stdin.buffer.read()
        first = (
            raw.removeprefix(codecs.BOM_UTF8)
            .lstrip()
            .split(b"\n", 1)[0]
            .decode("utf-8", "replace")
            .strip()
        )
        heads = {field.strip().strip('"') for field in re.split(r"[,;\t|]", first)}
        ending = (
            ".jsonl" if first.startswith(("{", "[")) else ".csv" if heads & set(columns) else ".txt"
        )
        with tempfile.TemporaryDirectory() as folder:
            (copy := Path(folder) / f"standard-input{ending}").write_bytes(raw)
            texts, name = read_texts(copy, columns), "Standard input"
    if not any(text is not None for text in texts):
        raise refusal(DataError, "no-text-to-predict", file=name, names=list(SUFFIXES))
    return texts
