"""How far an exported model answers as the original does, on validation data of the participants at
hand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tequio.app.assembly.context import build_task, read_splits
from tequio.app.models.open import Opened
from tequio.app.run_files import json_table
from tequio.config import load_participant
from tequio.core.errors import TequioError
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.text_tasks import Classification, Item, TextTask, by_length, pad

MOST = 500  # texts (or blocks of tokens) compared at most


@dataclass(frozen=True)
class Agreement:
    """What was compared:

    `equal` is the share of equal predictions; of a causal model the losses are compared.

    count: validation texts, or blocks of tokens of a causal model. loss and exported: nats per
        token.
    """

    count: int
    equal: float | None = None
    loss: float | None = None
    exported: float | None = None

    def facts(self) -> dict[str, Any]:
        """Return the figures that were measured."""
        found = {
            "count": self.count,
            "equal": self.equal,
            "loss": self.loss,
            "exported_loss": self.exported,
        }
        return {key: value for key, value in found.items() if value is not None}


class Comparison:
    """Validation data of those whose model this is, and what the original answers on them."""

    def __init__(self, opened: Opened, adapted: AdaptedModel, run: Path) -> None:
        """Read the data, and ask the original, which `adapted` holds now."""
        self.adapted = adapted
        self.task: TextTask = build_task(opened.config, adapted.base)
        self.items = validation_items(opened, self.task, run)
        self.original = self._ask() if self.items else None

    def agreement(self) -> Agreement | None:
        """Return how what `adapted` holds now compares with the original;

        None where no validation data are at hand.
        """
        if self.original is None:
            return None
        now, before = self._ask(), self.original
        if isinstance(self.task, Classification):
            return Agreement(len(now), equal=float((now == before).mean()))
        return Agreement(len(self.items), loss=float(before[0]), exported=float(now[0]))

    def _ask(self) -> NDArray[np.float64]:
        """Return the predicted class of each text, or the loss per token of all of them
        together.
        """
        if isinstance(self.task, Classification):
            return predictions(self.adapted, self.task, self.items)
        losses = self.task.losses(self.adapted, self.items)
        return np.array([losses.total.sum() / losses.terms.sum()])


def predictions(
    adapted: AdaptedModel, task: Classification, items: Sequence[Item]
) -> NDArray[np.float64]:
    """Return the class that the model predicts for each text."""
    found = np.zeros(len(items))
    with adapted.base.looking():
        for where in by_length(items, task.batch_tokens):
            ids, mask = pad(
                [items[i].ids for i in where], task.tokenizer.pad_token_id, adapted.device
            )
            found[where] = adapted.class_logits(ids, mask).argmax(1).double().cpu().numpy()
    return found


def validation_items(opened: Opened, task: TextTask, run: Path) -> list[Item]:
    """Return at most MOST encoded validation texts: the participant's, or everybody's for a shared
    model.

    Data that are not on this machine, or cannot be read any more, count as not at hand.
    """
    members = opened.config.participants
    named = [entry for entry in members if entry.name == opened.name] or members
    items: list[Item] = []
    for entry in named:
        file = entry.file or _home_file(run)
        if file is None:
            continue
        try:
            splits = read_splits(opened.config, load_participant(file, entry.name))
            items += task.encode(splits.validation, entry.name)[0]
        except TequioError:
            continue
    return items[:: max(1, -(-len(items) // MOST))]


def _home_file(run: Path) -> Path | None:
    """Return the participant's own file where `run` is the record in its home folder."""
    identity = run.resolve().parent / "identity.json"
    if not identity.is_file():
        return None
    try:
        named = json_table(identity).get("participant")
    except TequioError:
        return None
    return Path(named) if isinstance(named, str) else None
