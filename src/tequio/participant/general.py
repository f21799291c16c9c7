"""A participant's general model of a classification task: its own answers and the shared model's,
averaged text by text.

The more a text is like the participant's own training texts, the more its own answers count (as
FedALT's learned mixer of an own and a rest-of-the-world adapter, arXiv 2503.11880, with nothing to
learn). Like means near in the embedding of the base, which neither
model has moved: a text's cosine with the nearest training text, as a rank among those of the
    training texts themselves.

    p(y|x) = w·p_own(y|x) + (1 − w)·p_shared(y|x),  w = .2 + .7·min(1, 2·rank)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tequio.core.update import Update
from tequio.participant.adapted_model import AdaptedModel, embed
from tequio.participant.text_tasks import Item, Losses, by_length, pad

LEAST, MOST = 0.2, 0.9  # of the own answers
FULL = 0.5  # rank from which they count the most
TOKENS = 2048  # padded, of a batch
MOST_TEXTS = 1000  # training texts that are remembered: spread over all


@dataclass(frozen=True)
class Familiarity:
    """What tells how like one's own training texts a text is. texts: their embeddings (texts ×
    hidden), of unit length.
    """

    texts: Tensor

    def weights(self, embeddings: Tensor) -> Tensor:
        """Return how much the own answers count for each of these (rows × hidden):

        (rows), from LEAST to MOST.
        """
        if len(self.texts) < 2:
            return torch.full((len(embeddings),), (LEAST + MOST) / 2.0)
        own = self.texts @ self.texts.T
        own.fill_diagonal_(-2.0)  # not with itself
        near = (embeddings @ self.texts.T).amax(1)
        rank = torch.searchsorted(own.amax(1).sort().values, near) / len(own)
        return LEAST + (MOST - LEAST) * (rank / FULL).clamp(max=1.0)


def learn(adapted: AdaptedModel, items: Sequence[Item]) -> Familiarity:
    """Return the familiarity of these training items, or of as many of them as are remembered."""
    step = -(-len(items) // MOST_TEXTS)
    return Familiarity(embeddings(adapted, [item.ids for item in items[::step]]))


def embeddings(adapted: AdaptedModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return what the base alone makes of texts as token ids: (rows × hidden), of unit length."""
    with adapted.as_base():
        return _computed(adapted, rows, lambda ids, mask: embed(adapted.model, ids, mask))


def answers(adapted: AdaptedModel, model: Update, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the log probabilities that base + `model` gives: (rows × classes)."""
    adapted.fold_in(model)
    return _computed(
        adapted, rows, lambda ids, mask: F.log_softmax(adapted.class_logits(ids, mask), 1)
    )


def _computed(
    adapted: AdaptedModel, rows: Sequence[Sequence[int]], of: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """One row per text, whatever batches they go in; on the CPU."""
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    items = [Item(tuple(row), ()) for row in rows]
    with adapted.base.looking():
        for where in by_length(items, TOKENS):
            part = of(
                *pad([rows[i] for i in where], adapted.base.tokenizer.pad_token_id, adapted.device)
            )
            for place, row in zip(where, part.float().cpu(), strict=True):
                found[place] = row
    return torch.stack(found)


def blended(own: Tensor, shared: Tensor, weights: Tensor) -> Tensor:
    """Return the log probabilities of both, averaged: own, shared (rows × classes), weights (rows)
    of the own.
    """
    part = weights[:, None]
    return torch.logaddexp(own + part.log(), shared + (1.0 - part).log())


def losses_of(found: Tensor, items: Sequence[Item]) -> Losses:
    """Return the losses of log probabilities (rows × classes), as `Classification.losses` has them
    of a model.
    """
    truth = torch.tensor([item.target[0] for item in items])
    total, best = F.nll_loss(found, truth, reduction="none"), found.argmax(1)
    right = (best == truth).double().numpy()
    return Losses(total.double().numpy(), np.ones(len(items)), right, best.double().numpy())
