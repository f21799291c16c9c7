"""The centre as distiller over one base: what a model predicts on public texts, and training toward
a teacher's probabilities.

Raises TrainingError where a number is NaN or infinite: a teacher that is not finite teaches nobody.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tequio.algorithms.distil.loss import distil_loss
from tequio.core.errors import TrainingError
from tequio.core.texts.words import refusal
from tequio.core.types import DistilRequest
from tequio.core.update import Update
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.loop import CLIP, adamw
from tequio.participant.text_tasks import Item, TextTask, by_length

BATCH_TOKENS = 2048  # of a prediction


@dataclass(frozen=True)
class PublicTexts:
    """Public items encoded for one base; `name` is the base's.

    Item k is the same text in every group.
    """

    name: str
    adapted: AdaptedModel
    task: TextTask
    items: Sequence[Item]
    batch_size: int
    classes: int  # labels, or words that the tokenizer knows: a base may have room for more

    @property
    def count(self) -> int:
        """Public items."""
        return len(self.items)

    def logits(self, model: Update, items: Sequence[int]) -> Tensor:
        """Logits of base + `model`, float32 (rows × classes), item after item."""
        self.adapted.fold_in(model)
        chosen = [self.items[k] for k in items]
        parts: list[Tensor] = [torch.empty(0)] * len(chosen)
        with torch.inference_mode():
            for where in by_length(chosen, BATCH_TOKENS):
                rows = self._rows([chosen[i] for i in where]).cpu()
                counts = [self.task.row_count(chosen[i]) for i in where]
                for i, part in zip(where, torch.split(rows, counts), strict=True):
                    parts[i] = part
        out = torch.cat(parts)
        if not bool(torch.isfinite(out).all()):
            raise refusal(TrainingError, "teacher-not-finite", base=self.name)
        return out.clone()  # not an inference tensor

    def distil(self, task: DistilRequest) -> tuple[Update, float, float]:
        """`task.steps` AdamW steps (rate falls linearly to 0) on batches of the task's items in
        turn, toward the teacher.
        """
        counts = [self.task.row_count(self.items[k]) for k in task.items]
        targets = torch.split(task.teacher, counts)
        self.adapted.fold_in(task.held)
        parameters = self.adapted.attach(task.rank, task.seed)
        optimizer, losses = adamw(parameters), []
        try:
            for step in range(task.steps):
                at = [
                    (step * self.batch_size + j) % len(task.items) for j in range(self.batch_size)
                ]
                wanted = torch.cat([targets[i] for i in at]).to(self.adapted.device)
                predicted = self._rows([self.items[task.items[i]] for i in at])
                loss = distil_loss(predicted, wanted, task.temperature)
                losses.append(float(loss.detach()))
                if not math.isfinite(losses[-1]):
                    now = str(losses[-1])
                    raise refusal(
                        TrainingError, "distil-diverged", base=self.name, loss=now, step=step + 1
                    )
                optimizer.param_groups[0]["lr"] = task.learning_rate * (1.0 - step / task.steps)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(parameters, CLIP, foreach=True)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            change = self.adapted.extract()
        finally:
            self.adapted.detach()
        if not change.is_finite():
            raise refusal(TrainingError, "distil-not-finite", base=self.name)
        return change, losses[0], losses[-1]

    def _rows(self, items: Sequence[Item]) -> Tensor:
        return self.task.logits(self.adapted, items)[0][:, : self.classes].float()
