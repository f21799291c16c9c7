"""The verdict on each participant's personal model, from what is recorded: codes and numbers, no
words.

One measure leads everywhere: texts answered right in classification, loss in language modelling.
Records of before have a bootstrap interval and no counts of pairs; the counts are then estimated
from it, and the same interval is computed from them.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tequio.measure.statistics import Interval
from tequio.measure.verdicts import SMALLEST, Z95, Pairs, fall, judge, paired_proportions
from tequio.report.data.records import Json, interval, table
from tequio.report.format import finite

VERDICTS = ("gains", "loses", "no_difference", "too_few", "kept_local")
UNKNOWN: Json = {
    **dict.fromkeys(("verdict", "measure", "effect", "examples", "pairs", "needed", "wanted")),
    "estimated": False,
}


def smallest_effect(config: Mapping[str, Any]) -> float:
    """The smallest effect that matters, as [equity] says it."""
    given = finite(table(config.get("equity")).get("smallest_effect"))
    return given if given is not None and 0.0 < given <= 0.5 else SMALLEST


def outcome(body: Mapping[str, Any], comparison: str | None, causal: bool, smallest: float) -> Json:
    """verdict, measure, effect (share of texts, or of the loss), examples, pairs, estimated (the
    pairs), needed, wanted.

    Args:
        body: a `personal` record.
        comparison: the model it is judged against, `local` or `base`.
        causal: whether the task is language modelling.
        smallest: the smallest effect that matters, as a share.
    """
    given = table(table(body.get("gains")).get(f"personal_over_{comparison}"))
    own, other = (
        table(table(body.get("test")).get(model)) for model in ("personal", comparison or "")
    )
    loss, accuracy = interval(given.get("loss")), interval(given.get("accuracy"))
    if loss is None and accuracy is None:
        return dict(UNKNOWN)
    by_loss = causal or accuracy is None
    made = (
        _by_loss(given, loss, other, own, smallest)
        if by_loss
        else _by_pairs(given, accuracy, own, other, smallest)
    )
    out = UNKNOWN | {"measure": "loss" if by_loss else "accuracy"} | made
    same = (
        bool(own)
        and finite(own.get("loss")) is not None
        and own == other
        and (loss or {}).get("mean") == 0.0
    )
    if same:  # one model: there is nothing to estimate
        out |= {"effect": dict.fromkeys(("mean", "low", "high"), 0.0)}
    if comparison == "local" and body.get("chosen") == "local":
        return out | {"verdict": "kept_local", "needed": None, "wanted": None}
    return out | {"verdict": "no_difference", "needed": None, "wanted": None} if same else out


def counted(people: Sequence[Json]) -> dict[str, int]:
    """How many have each verdict; `unknown` is without one."""
    counts = Counter(p["verdict"] for p in people)
    return {key: counts[key] for key in VERDICTS} | {"unknown": counts[None]}


def relative(given: Mapping[str, Any], other: float | None) -> Json | None:
    """The fall of the loss as a share of the other model's, with its interval; never above 1."""
    found = _log_ratio(given, interval(given.get("loss")), other)
    return None if found is None else {key: fall(value) for key, value in asdict(found).items()}


def _by_pairs(
    given: Mapping[str, Any],
    accuracy: Json | None,
    own: Mapping[str, Any],
    other: Mapping[str, Any],
    smallest: float,
) -> Json:
    pairs, estimated = Pairs.read(table(given.get("pairs"))), False
    if pairs is None and accuracy is not None:
        pairs = _estimated(accuracy, own, other)
        estimated = pairs is not None
    effect = Interval(**(accuracy or {})) if pairs is None else paired_proportions(pairs)
    count = _examples(own) if pairs is None else pairs.examples
    said = judge(effect, count or 0, smallest, pairs)
    return {
        "verdict": said.code,
        "effect": asdict(effect),
        "examples": count,
        "pairs": None if pairs is None else asdict(pairs),
        "estimated": estimated,
        "needed": said.needed if count else None,
        "wanted": said.wanted,
    }


def _estimated(accuracy: Json, own: Mapping[str, Any], other: Mapping[str, Any]) -> Pairs | None:
    """Counts that fit both accuracies and the width of a bootstrap interval: n·var = (b + c)/n −
    ((b − c)/n)².
    """
    n, first, second = (
        finite(own.get("examples")),
        finite(own.get("accuracy")),
        finite(other.get("accuracy")),
    )
    if (
        not n
        or n < 2
        or n > 1e9
        or first is None
        or second is None
        or not (0 <= first <= 1 and 0 <= second <= 1)
    ):
        return None
    size, right, before = int(n), round(first * n), round(second * n)
    more = right - before
    half = min(1.0, max(0.0, accuracy["high"] - accuracy["low"]) / 2)
    both_ways = n * (n * (half / Z95) ** 2 + (more / n) ** 2)
    differing = min(
        max(math.ceil(both_ways - 1e-9), abs(more)), min(right + before, 2 * size - right - before)
    )
    differing -= (differing - more) % 2  # b + c and b − c are both odd, or both even
    better, worse = (differing + more) // 2, (differing - more) // 2
    return Pairs(right - better, better, worse, size - right - worse)


def _by_loss(
    given: Mapping[str, Any],
    loss: Json | None,
    other: Mapping[str, Any],
    own: Mapping[str, Any],
    smallest: float,
) -> Json:
    examples = _examples(own)
    ratio = _log_ratio(given, loss, finite(other.get("loss")))
    if (
        ratio is None
    ):  # losses that allow no ratio, or a record without them: the sign is all there is
        said = (
            "gains"
            if loss and loss["low"] > 0.0
            else "loses"
            if loss and loss["high"] < 0.0
            else "too_few"
        )
        return {"verdict": "too_few" if "log_ratio" in given else said, "examples": examples}
    found = judge(ratio, examples or 0, smallest)
    return {
        "verdict": found.code,
        "effect": {key: fall(value) for key, value in asdict(ratio).items()},
        "examples": examples,
        "needed": found.needed if examples else None,
        "wanted": None if found.wanted is None else fall(found.wanted),
    }


def _examples(own: Mapping[str, Any]) -> int | None:
    count = finite(own.get("examples"))
    return int(count) if count is not None and 1 <= count <= 1e12 else None


def _log_ratio(given: Mapping[str, Any], loss: Json | None, other: float | None) -> Interval | None:
    """As recorded; of an old record from the interval of the difference, symmetric in the log where
    that passes 100 %.
    """
    recorded = interval(given.get("log_ratio"))
    if recorded is not None:
        return Interval(**recorded) if max(map(abs, recorded.values())) < 50 else None
    if (
        "log_ratio" in given
        or loss is None
        or other is None
        or other <= 0.0
        or loss["mean"] >= other
    ):
        return None
    middle, low = (-math.log1p(-loss[key] / other) for key in ("mean", "low"))
    high = -math.log1p(-loss["high"] / other) if loss["high"] < other else 2 * middle - low
    return Interval(middle, min(low, middle), max(high, middle))
