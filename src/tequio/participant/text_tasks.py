"""The two tasks: text classification and causal language modelling.

Each encodes examples, gives a loss, and scores.

Classification: cross-entropy in nats per example. Causal: cross-entropy in nats per token, on the
assistant's turns only where there are any. How texts become token ids: `encoding`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tequio.core.errors import DataError
from tequio.core.texts.words import refusal
from tequio.core.types import Scores
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.data import Example
from tequio.participant.encoding import IGNORE as IGNORE
from tequio.participant.encoding import Counts, Encoder, class_ids
from tequio.participant.encoding import Item as Item
from tequio.participant.encoding import prompt_ids as prompt_ids
from tequio.participant.encoding import token_ids as token_ids

RUNGS, SHORTEST_RUNG = (
    8,
    16,
)  # widths of causal batches: at most so many, and their least step in tokens


@dataclass(frozen=True)
class Losses:
    """Per example: summed loss, how many terms it sums, whether the class was right (NaN for
    causal), and the class answered.
    """

    total: NDArray[np.float64]
    terms: NDArray[np.float64]
    right: NDArray[np.float64]
    answered: NDArray[np.float64] | None = (
        None  # index of the class; None where there are no classes, or nobody asked
    )

    def scores(self) -> Scores:
        """Means over the set."""
        accuracy = (
            float(self.right.mean()) if len(self.right) and not np.isnan(self.right).any() else None
        )
        return Scores(
            loss=float(self.total.sum() / self.terms.sum()),
            examples=len(self.total),
            accuracy=accuracy,
        )

    def harm(self) -> NDArray[np.float64]:
        """What the gate looks at: wrong (1) or right (0) where there are classes, else the loss of
        each example.
        """
        return self.per_example() if np.isnan(self.right).any() else 1.0 - self.right

    def per_example(self) -> NDArray[np.float64]:
        """Losses whose plain mean is `scores().loss`: totals over the mean number of terms."""
        per: NDArray[np.float64] = self.total / self.terms.mean()
        return per


class TextTask(Protocol):
    """What the local loop needs to know of a task."""

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest item."""

    @property
    def batch_tokens(self) -> int:
        """Padded tokens of a batch of evaluation, at most."""

    def encode(self, examples: Sequence[Example], who: str) -> tuple[list[Item], Counts]:
        """Return items, and how many texts were cut or left out.

        Raises DataError if nothing is left.
        """

    def loss(self, adapted: AdaptedModel, items: Sequence[Item]) -> Tensor:
        """Mean training loss of a batch, with gradient."""

    def totals(self, adapted: AdaptedModel, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Summed loss of each item, and how many terms it sums: the training loss in parts, with
        gradient.
        """

    def logits(self, adapted: AdaptedModel, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Logits (rows × classes) and true classes (rows) of a batch: a row an example, or a target
        token.

        With gradient.
        """

    def losses(self, adapted: AdaptedModel, items: Sequence[Item]) -> Losses:
        """Losses of a set, without gradient, in the order given."""

    def row_count(self, item: Item) -> int:
        """How many rows of `logits` an item has."""


@dataclass(frozen=True)
class Classification:
    """Text to one of `labels`."""

    tokenizer: Any
    labels: tuple[str, ...]
    max_tokens: int
    batch_tokens: int = 2048

    def encode(self, examples: Sequence[Example], who: str) -> tuple[list[Item], Counts]:
        """Return one item per text, cut at `max_tokens`."""
        index = {label: i for i, label in enumerate(self.labels)}
        texts = [e.text for e in examples]
        rows = self.tokenizer(texts, truncation=False, verbose=False)["input_ids"] if texts else []
        encoded = class_ids(self.tokenizer, texts, self.max_tokens)
        items = [
            Item(tuple(ids), (index[str(e.label)],))
            for ids, e in zip(encoded, examples, strict=True)
        ]
        return items, Counts(cut=sum(len(row) > self.max_tokens for row in rows))

    def loss(self, adapted: AdaptedModel, items: Sequence[Item]) -> Tensor:
        """Cross-entropy, nats an example."""
        return F.cross_entropy(*self.logits(adapted, items))

    def totals(self, adapted: AdaptedModel, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Each item's cross-entropy, and 1; without a class 0 and 0."""
        logits, truth = self.logits(adapted, items)
        return F.cross_entropy(logits, truth, reduction="none", ignore_index=IGNORE), (
            truth != IGNORE
        ).float()

    def logits(self, adapted: AdaptedModel, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """(batch × labels), (batch)."""
        ids, mask = pad([i.ids for i in items], self.tokenizer.pad_token_id, adapted.device)
        return adapted.class_logits(ids, mask), torch.tensor(
            [i.target[0] for i in items], device=adapted.device
        )

    def losses(self, adapted: AdaptedModel, items: Sequence[Item]) -> Losses:
        """Loss and right-or-wrong of each example."""
        total, right, answered = (np.zeros(len(items)) for _ in range(3))
        with adapted.base.looking():
            for where in by_length(items, self.batch_tokens):
                ids, mask = pad(
                    [items[i].ids for i in where], self.tokenizer.pad_token_id, adapted.device
                )
                logits = adapted.class_logits(ids, mask)
                truth = torch.tensor([items[i].target[0] for i in where], device=adapted.device)
                total[where] = (
                    F.cross_entropy(logits, truth, reduction="none").double().cpu().numpy()
                )
                best = logits.argmax(1)
                right[where], answered[where] = (
                    (best == truth).double().cpu().numpy(),
                    best.double().cpu().numpy(),
                )
        return Losses(total, np.ones(len(items)), right, answered)

    def row_count(self, item: Item) -> int:
        """One."""
        return 1


@dataclass(frozen=True)
class Causal:
    """Next token; loss on the response only where there is a prompt."""

    tokenizer: Any
    max_tokens: int
    batch_tokens: int = 1024

    @property
    def rung(self) -> int:
        """Return the step of the widths to which batches are padded: at most eight widths, so that
        few shapes are prepared.
        """
        return min(self.max_tokens, max(SHORTEST_RUNG, math.ceil(self.max_tokens / RUNGS)))

    @cached_property
    def encoder(self) -> Encoder:
        """Return what encodes texts for this task."""
        return Encoder(self.tokenizer, self.max_tokens)

    def encode(self, examples: Sequence[Example], who: str) -> tuple[list[Item], Counts]:
        """Return documents packed into blocks of `max_tokens`, or one item per pair or chat."""
        items, counts = self.encoder.encode(examples)
        if examples and not items:
            raise refusal(DataError, "pairs-too-long", who=who, tokens=self.max_tokens)
        return items, counts

    def loss(self, adapted: AdaptedModel, items: Sequence[Item]) -> Tensor:
        """Cross-entropy, nats a target token."""
        losses, _ = self._losses(adapted, items)
        return losses.mean()

    def totals(self, adapted: AdaptedModel, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Summed cross-entropy of each block, and its target tokens."""
        losses, counts = self._losses(adapted, items)
        own = torch.zeros(counts.shape, dtype=torch.float32, device=losses.device)
        return own.masked_scatter(counts, losses).sum(1), counts.sum(1).float()

    def logits(self, adapted: AdaptedModel, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """(target tokens × vocabulary) in the base's precision, (target tokens)."""
        ids, mask = pad(
            [i.ids for i in items], self.tokenizer.pad_token_id, adapted.device, self.rung
        )
        truth, _ = pad([i.target for i in items], IGNORE, adapted.device, self.rung)
        counts = truth[:, 1:] != IGNORE
        return adapted.token_logits(ids, mask)[:, :-1][counts], truth[:, 1:][counts]

    def losses(self, adapted: AdaptedModel, items: Sequence[Item]) -> Losses:
        """Summed loss and number of target tokens of each block."""
        total, terms = np.zeros(len(items)), np.zeros(len(items))
        with adapted.base.looking():
            for where in by_length(items, self.batch_tokens, self.rung):
                own, count = self.totals(adapted, [items[i] for i in where])
                total[where], terms[where] = (
                    own.double().cpu().numpy(),
                    count.double().cpu().numpy(),
                )
        return Losses(total, terms, np.full(len(items), np.nan))

    def row_count(self, item: Item) -> int:
        """Tokens that are predicted: all but the first, without those of a prompt."""
        return sum(t != IGNORE for t in item.target[1:])

    def _losses(self, adapted: AdaptedModel, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
        """Nats of the target tokens, row by row, and where they are (batch × longest − 1)."""
        ids, mask = pad(
            [i.ids for i in items], self.tokenizer.pad_token_id, adapted.device, self.rung
        )
        truth, _ = pad([i.target for i in items], IGNORE, adapted.device, self.rung)
        counts = truth[:, 1:] != IGNORE
        return adapted.token_losses(ids, mask, truth[:, 1:], counts), counts


def pad(
    rows: Sequence[Sequence[int]], value: int, device: torch.device, rung: int = 1
) -> tuple[Tensor, Tensor]:
    """Rows of unequal length as (batch × longest) ids and mask, int64; the longest is rounded up to
    a multiple of `rung`.
    """
    longest = _rounded(max(len(row) for row in rows), rung)
    ids = torch.tensor([list(row) + [value] * (longest - len(row)) for row in rows], device=device)
    mask = torch.tensor(
        [[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device
    )
    return ids, mask


def _rounded(length: int, rung: int) -> int:
    return -(-length // rung) * rung


def by_length(items: Sequence[Item], batch_tokens: int, rung: int = 1) -> Iterator[list[int]]:
    """Positions in batches of similar length, each of at most `batch_tokens` padded tokens (or one
    item).
    """
    batch: list[int] = []
    for i in sorted(range(len(items)), key=lambda i: (len(items[i].ids), i)):
        if batch and (len(batch) + 1) * _rounded(len(items[i].ids), rung) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def batches(items: Sequence[Item], size: int, seed: int) -> Iterator[list[Item]]:
    """Endless shuffled batches; inside a window of eight batches texts of like length go
    together.
    """
    rng = np.random.default_rng(seed)
    while True:
        order = rng.permutation(len(items))
        for start in range(0, len(order), size * 8):
            window = sorted(order[start : start + size * 8], key=lambda i: len(items[i].ids))
            parts = [window[i : i + size] for i in range(0, len(window), size)]
            for k in rng.permutation(len(parts)):
                yield [items[i] for i in parts[k]]
