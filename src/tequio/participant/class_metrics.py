"""Metrics by class on a participant's own test data, and what of them may leave: no count of one to
four texts.

Computed at the participant. Balanced accuracy and macro-F1 leave as means over classes, rounded to
whole points. A class that has fewer than 5 test texts has no figures of its own. Of the others, the
number answered right is exact only where 5 or more are right and 5 or more are wrong; else it is a
range of five numbers. Of the confusion counts, cells under 5 stay, and as many others of their row
as are needed so that what stays sums to 5 or more: nobody finds a small cell by subtraction. The
sizes of classes are in the participant's profile all the same (`data.balance`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

# confusion cells that are told: at most 20 characters each, and a message holds 2^20 of a body
MOST_CELLS = 40_000
FEW = 5  # cells under this stay at the participant
SHOWN = ("local", "personal")  # models whose classes are told one by one
Counts = NDArray[np.int64]


def class_metrics(
    labels: int, truth: Sequence[int], answered: Mapping[str, ArrayLike], train: Sequence[int]
) -> dict[str, Any]:
    """Return what may be told of the classes.

    Args:
        labels: number of classes.
        truth: true class of each test text.
        answered: class that each model answers, by model, in the order of `truth`.
        train: class of each training text; its most frequent one is the trivial baseline.

    Returns:
        balanced_accuracy, macro_f1 {model: share}; baseline {label, accuracy, balanced_accuracy};
        support [count, or None where it is under 5 or would give such a one away];
        right {model: [[low, high], or None]}; confusion [[true, answered, count]] of the personal
        model.
    """
    tables = {model: confusion(labels, truth, given) for model, given in answered.items()}
    support = np.bincount(np.asarray(truth, dtype=np.int64), minlength=labels)
    common = int(np.bincount(np.asarray(train, dtype=np.int64), minlength=labels).argmax())
    present, shown = int(np.count_nonzero(support)), published_support(support)
    return {
        "balanced_accuracy": {
            model: _points(balanced_accuracy(table)) for model, table in tables.items()
        },
        "macro_f1": {model: _points(macro_f1(table)) for model, table in tables.items()},
        "baseline": {
            "label": common,
            "accuracy": _points(float(support[common] / support.sum())),
            "balanced_accuracy": _points(1.0 / present if support[common] else 0.0),
        },
        "support": shown,
        "right": {
            m: [None if shown[i] is None else right_range(table[i], i) for i in range(labels)]
            for m, table in tables.items()
            if m in SHOWN
        },
        "confusion": published_cells(tables["personal"]) if "personal" in tables else [],
    }


def confusion(labels: int, truth: Sequence[int], answered: ArrayLike) -> Counts:
    """Count answers, shape (true class, answered class)."""
    pairs = np.asarray(truth, dtype=np.int64) * labels + np.asarray(answered).astype(np.int64)
    return np.bincount(pairs, minlength=labels * labels).reshape(labels, labels)


def balanced_accuracy(table: Counts) -> float:
    """Return the mean of the recalls, over the classes that occur in the test data."""
    support = table.sum(1)
    there = support > 0
    return float((np.diag(table)[there] / support[there]).mean())


def macro_f1(table: Counts) -> float:
    """Return the mean of F1 = 2·right / (support + answered), over the classes that occur or are
    answered.
    """
    both = table.sum(1) + table.sum(0)
    there = both > 0
    return float((2 * np.diag(table)[there] / both[there]).mean())


def published_support(support: Counts) -> list[int | None]:
    """Return the test texts of each class that may be told; the total is known, so what is hidden
    sums to 5 or more.
    """
    shown = sorted(
        (i for i, count in enumerate(support) if count >= FEW), key=lambda i: (-support[i], i)
    )
    hidden = int(support.sum()) - sum(int(support[i]) for i in shown)
    while shown and 0 < hidden < FEW:
        hidden += int(support[shown.pop()])
    return [int(count) if i in shown else None for i, count in enumerate(support)]


def right_range(row: Counts, own: int) -> list[int] | None:
    """Return the lowest and the highest number of right answers that may be told of a class;

    None for a rare class.
    """
    support, right = int(row.sum()), int(row[own])
    if support < FEW:
        return None
    if right < FEW:
        return [0, min(FEW - 1, support)]
    if support - right < FEW:
        return [max(0, support - FEW + 1), support]
    return [right, right]


def published_cells(table: Counts) -> list[list[int]]:
    """Return the cells that may be told:

    [true, answered, count]; the largest where they are very many, so that less is told.
    """
    out: list[list[int]] = []
    for i, row in enumerate(table.tolist()):
        large = sorted(
            (j for j, count in enumerate(row) if count >= FEW), key=lambda j: (-row[j], j)
        )
        while large and sum(row) - sum(row[j] for j in large) < FEW:
            large.pop()
        out += [[i, j, row[j]] for j in sorted(large)]
    return sorted(sorted(out, key=lambda cell: -cell[2])[:MOST_CELLS])


def _points(share: float) -> float:
    return round(share, 2)
