"""Which model a participant keeps, decided by its own validation texts and by how little few of
them can say.

`shrunk`, the rule: the shared model, fine-tuned at home and taken a part of the way there. The part
    is the one that the
validation texts favour, pulled toward PRIOR as if PRIOR_TEXTS further texts had favoured that.
Another candidate (the base, a model trained alone, a mix) is kept only where it is clearly ahead:
such models are the best of many checkpoints on these same texts, so their lead is flattered, and
the fewer the texts the more. `one_error`, the rule of records of before: the least validation loss,
but the shared model within one standard error.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tequio.core.seeds import derive
from tequio.core.update import Update
from tequio.participant.text_tasks import Losses

CHOICE_RULE, EARLIER_RULE = "shrunk", "one_error"  # of new records, and of those that name none
SHARED, PRIVATE = "shared", "private"
PRIOR, PRIOR_TEXTS = 0.75, 100
CLEAR = 2.0  # standard errors by which another candidate has to lead
RESAMPLES = 200
WITHIN = 1.01  # a general model's own loss, over that of the model kept

Recipe = Mapping[str, float]
"""A candidate as a sum of parts: {"shared": 1, "private": 0.7}; {} is the base."""


@dataclass(frozen=True)
class Choice:
    """What is kept, and the facts of why, for the record."""

    name: str
    facts: Mapping[str, Any]


def private_share(evaluated: Mapping[float, Losses], seed: int) -> tuple[float, float]:
    """Return (the share of the fine-tuning to take, the share that the validation texts favour by
    themselves).

    evaluated: losses by share, 0 for the shared model. Favoured is the mean, over resamples of the
        texts, of the share
    of least loss (bagging: Breiman 1996), so two shares that the texts cannot tell apart both
    count.
    """
    shares = np.array(sorted(evaluated))
    totals = np.stack([evaluated[share].total for share in shares])
    texts = totals.shape[1]
    drawn = np.random.default_rng(derive(seed, "share")).integers(0, texts, (RESAMPLES, texts))
    favoured = float(shares[totals[:, drawn].sum(2).argmin(0)].mean())
    return (texts * favoured + PRIOR_TEXTS * PRIOR) / (texts + PRIOR_TEXTS), favoured


def shrunk(evaluated: Mapping[str, Losses], middle: str, family: frozenset[str]) -> Choice:
    """Keep `middle`, unless a candidate outside `family` leads it by more than CLEAR standard
    errors.

    family: the shared model and what lies between it and its fine-tuning.
    """
    others = {name: losses for name, losses in evaluated.items() if name not in family}
    facts: dict[str, Any] = {"rule": "shrunk", "texts": len(evaluated[middle].total)}
    if others:
        best = lowest(others)
        ahead, error = lead(evaluated[middle], others[best])
        facts |= {"best": best, "lead": ahead, "error": error if math.isfinite(error) else None}
        if ahead > CLEAR * error:
            return Choice(best, facts | {"rule": "clear_lead"})
    return Choice(middle, facts)


def one_error(evaluated: Mapping[str, Losses]) -> Choice:
    """Keep the candidate of least loss; the shared model, unless that one is better by more than
    one standard error.

    The one-standard-error rule (Breiman et al. 1984, section 3.4.3), on paired differences.
    """
    best = lowest(evaluated)
    if SHARED not in evaluated or best == SHARED:
        return Choice(best, {"rule": "lowest_loss", "best": best})
    ahead, error = lead(evaluated[SHARED], evaluated[best])
    chosen = best if ahead > error else SHARED
    rule = "lowest_loss" if chosen == best else "within_one_error"
    return Choice(
        chosen,
        {
            "rule": rule,
            "best": best,
            "lead": ahead,
            "error": error if math.isfinite(error) else None,
        },
    )


def general_share(on_the_way: Mapping[float, Losses]) -> float:
    """Return how far from the shared model (0) to the model that is kept (1) a model for
    everybody's texts goes.

    It is the least of the shares looked at whose own loss is within 1 % of the kept model's.
    """
    most = WITHIN * on_the_way[1.0].scores().loss
    return min(share for share, losses in on_the_way.items() if losses.scores().loss <= most)


def towards(shared: Update, own: Update, share: float) -> Update:
    """Return (1 − share)·shared + share·own."""
    if share in (0.0, 1.0):
        return own if share else shared
    return shared.scaled(1.0 - share).plus(own.scaled(share))


def lowest(evaluated: Mapping[str, Losses]) -> str:
    """Return the candidate of least mean loss."""
    return min(evaluated, key=lambda name: (evaluated[name].scores().loss, name))


def lead(of: Losses, over: Losses) -> tuple[float, float]:
    """Return by how much the mean loss of `over` lies below that of `of`, and the standard error of
    that, paired.
    """
    ahead = of.per_example() - over.per_example()
    return float(ahead.mean()), float(ahead.std(ddof=1)) / math.sqrt(len(ahead)) if len(
        ahead
    ) > 1 else math.inf


def fair_lead(checkpoints: Sequence[Losses], over: Losses, seed: int) -> dict[str, float] | None:
    """Return by how much `over` lies below the best of a fit's checkpoints;

    None where too few texts can be measured.

    The checkpoint of least loss flatters itself on the texts that chose it. So it is chosen on each
    resample of the texts, and measured on those that are not in it (out of bag: Breiman 1996).

    Returns:
        lead, its standard error, and alone, the mean loss of the checkpoints so chosen.
    """
    losses = np.stack([each.per_example() for each in checkpoints])
    texts = losses.shape[1]
    drawn = np.random.default_rng(derive(seed, "fair lead")).integers(0, texts, (RESAMPLES, texts))
    best = losses[:, drawn].mean(2).argmin(0)
    left_out = np.ones((RESAMPLES, texts), dtype=bool)
    np.put_along_axis(left_out, drawn, False, axis=1)
    times = left_out.sum(0)
    measured = times > 0
    if measured.sum() < 2:
        return None
    alone = (losses[best] * left_out).sum(0)[measured] / times[measured]
    ahead = alone - over.per_example()[measured]
    error = float(ahead.std(ddof=1)) / math.sqrt(len(ahead))
    return {"lead": float(ahead.mean()), "error": error, "alone": float(alone.mean())}
