"""What a participant could have kept, which rule chose, and how each model does class by class."""

from collections.abc import Mapping, Sequence
from typing import Any

from tequio.core.grouping import grouped
from tequio.report.data.records import Json, scores, table
from tequio.report.format import finite

FIRST = ("base", "local", "shared")
RULES = ("shrunk", "clear_lead", "lowest_loss", "within_one_error")
FEW_TEXTS = 20  # with fewer validation texts they hardly decide


def candidates(body: Mapping[str, Any]) -> Json:
    """rule, lead, error, and the candidates with their validation scores: base, local and shared
    first, then by loss.

    rule: `shrunk` or `clear_lead`, see `tequio.participant.choice`. Of earlier records
        `lowest_loss`, or `within_one_error` where the
    shared model was chosen although another's loss is lower, by less than one standard error; None
    where no choice is recorded. Of records without `choice` it follows from the losses. few: too
    few validation texts to choose by.
    """
    known = {
        name: found
        for name, given in table(body.get("candidates")).items()
        if (found := scores(given))
    }
    losses = {name: found["loss"] for name, found in known.items() if found["loss"] is not None}
    recorded, rule = table(body.get("choice")), table(body.get("choice")).get("rule")
    chosen = body["chosen"] if isinstance(body.get("chosen"), str) else None
    if rule is None and chosen in losses and len(losses) > 1:
        rule = "lowest_loss" if losses[chosen] <= min(losses.values()) else "within_one_error"
    order = sorted(
        known,
        key=lambda name: (
            FIRST.index(name) if name in FIRST else len(FIRST),
            losses.get(name, 1e9),
        ),
    )
    return {
        "rule": rule if rule in RULES else None,
        "best": recorded.get("best") if isinstance(recorded.get("best"), str) else None,
        "share": finite(recorded.get("share")),
        "favoured": finite(recorded.get("favoured")),
        "texts": finite(recorded.get("texts")),
        "few": 0 <= (finite(recorded.get("texts")) or FEW_TEXTS) < FEW_TEXTS,
        "lead": finite(recorded.get("lead")),
        "error": finite(recorded.get("error")),
        "rows": [
            {"name": name, "chosen": name == chosen, "right": right(known[name]), **known[name]}
            for name in order
        ],
    }


def right(score: Json | None) -> int | None:
    """How many texts are answered right, by the accuracy and the number of texts."""
    if (
        not score
        or score["accuracy"] is None
        or not 0 <= score["accuracy"] <= 1
        or (score["examples"] or 0) < 1
    ):
        return None
    return round(float(score["accuracy"]) * int(score["examples"]))


def classes(body: Mapping[str, Any], labels: Sequence[Any]) -> Json | None:
    """The metrics of classes as recorded, with the federation's names of the classes;

    None where there are none.
    """
    given = table(body.get("classes"))
    baseline = table(given.get("baseline"))
    support, ranges, cells = given.get("support"), table(given.get("right")), given.get("confusion")
    if not given or not isinstance(support, list) or not 0 < len(support) <= len(labels):
        return None
    names = [str(label) for label in labels]
    taken = grouped(
        (truth, (times, said))
        for truth, said, times in _counts(cells, 3)
        if truth < len(names) and said < len(names) and truth != said
    )
    label = _count(baseline.get("label"))
    return {
        "balanced_accuracy": _shares(given.get("balanced_accuracy")),
        "macro_f1": _shares(given.get("macro_f1")),
        "baseline": {
            "label": names[label] if label is not None and label < len(names) else None,
            "accuracy": finite(baseline.get("accuracy")),
            "balanced_accuracy": finite(baseline.get("balanced_accuracy")),
        },
        "rows": [
            {
                "label": names[i],
                "support": _count(count),
                "right": {model: _range(ranges.get(model), i) for model in ("local", "personal")},
                "taken_for": [
                    {"label": names[j], "count": n}
                    for n, j in sorted(taken.get(i, []), reverse=True)
                ],
            }
            for i, count in enumerate(support)
        ],
        "rare": sum(_count(count) is None for count in support),
    }


def _shares(given: Any) -> Json:
    return {
        model: finite(table(given).get(model)) for model in ("base", "local", "shared", "personal")
    }


def _counts(rows: Any, width: int) -> list[list[int]]:
    """The rows of a list that hold so many counts, and nothing else."""
    lists = [row for row in rows if isinstance(row, list)] if isinstance(rows, list) else []
    found = [
        [count for value in row if (count := _count(value)) is not None]
        for row in lists
        if len(row) == width
    ]
    return [row for row in found if len(row) == width]


def _range(given: Any, index: int) -> list[int] | None:
    return (
        next(iter(_counts(given[index : index + 1], 2)), None) if isinstance(given, list) else None
    )


def _count(value: Any) -> int | None:
    number = finite(value)
    return int(number) if number is not None and number >= 0 else None


def data_notes(listed: Mapping[str, Any], max_tokens: float | None, labels: Sequence[Any]) -> Json:
    """What to mind of a participant's data: rows left out by reason, texts cut, classes that are
    missing or rare.

    left_out: {reason: rows} of rows; one_class: all its training texts have one class; missing:
        classes of the federation without a
    training text here; missing_test, rare_test: classes without a test text, or with one to four.
    """
    data = table(listed.get("data"))
    dropped = {
        str(k): int(n)
        for k, v in table(data.get("dropped")).items()
        if (n := finite(v)) is not None and n >= 1
    }
    counts = [n for v in table(data.get("counts")).values() if (n := finite(v)) is not None]
    balance = table(data.get("balance"))
    train, test = (
        {str(k): finite(v) or 0 for k, v in table(balance.get(s)).items()}
        for s in ("train", "test")
    )
    there = sum(count > 0 for count in train.values())
    names = [str(label) for label in labels]
    known = names and train
    return {
        "rows": _count(data.get("rows")),
        "left_out": dropped,
        "cut": _count(data.get("cut")) or 0,
        "too_long": _count(data.get("too_long")) or 0,
        "texts": int(sum(counts)) if counts else None,
        "max_tokens": _count(max_tokens),
        "one_class": bool(known) and there == 1 and len(names) > 1,
        "missing": sum(not train.get(name) for name in names) if known and there > 1 else 0,
        "missing_test": sum(not test.get(name) for name in names) if names and test else 0,
        "rare_test": sum(0 < test.get(name, 0) < 5 for name in names) if names and test else 0,
        "classes": len(names),
    }


def label_names(run: Mapping[str, Any]) -> list[Any]:
    """The classes of the federation, in their order."""
    given = table(run.get("task")).get("labels")
    return list(given) if isinstance(given, list | tuple) else []
