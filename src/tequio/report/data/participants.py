"""What the report knows of each participant: its models, gains and verdict; and of all of them:
means, and equity between them.

The verdict is that of `verdicts`: by texts answered right in classification, by loss in language
modelling. Equity goes by loss.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tequio.core.texts.earlier import read_record
from tequio.measure.statistics import gini, jain, spearman, worst_decile
from tequio.report.data.candidates import candidates, classes, data_notes, right
from tequio.report.data.records import Z95, Json, interval, mean, row_energy, scores, table, total
from tequio.report.data.verdicts import outcome, relative
from tequio.report.format import finite, perplexity

MODELS = ("base", "local", "shared", "personal")


def comparison_basis(personal: Iterable[Mapping[str, Any]]) -> str | None:
    """What personal models are judged against: `local`, else `base`; None before there is any."""
    bodies = list(personal)
    for other in ("local", "base"):
        if any(_gain(body, f"personal_over_{other}")["loss"] for body in bodies):
            return other
    return None


def _gain(body: Mapping[str, Any], which: str) -> Json:
    given = table(table(body.get("gains")).get(which))
    return {"loss": interval(given.get("loss")), "accuracy": interval(given.get("accuracy"))}


@dataclass(frozen=True)
class Basis:
    """What all participants of a run are judged by: the other model, the smallest effect, task,
    classes, longest text.
    """

    comparison: str | None
    causal: bool
    smallest: float
    labels: tuple[Any, ...] = ()
    max_tokens: float | None = None


def participant(
    name: str, listed: Mapping[str, Any], body: Mapping[str, Any], trained: Json, basis: Basis
) -> Json:
    """One participant: its hardware and data, what it did, its models' scores, gains and
    verdict.
    """
    comparison = basis.comparison
    test = table(body.get("test"))
    result = {model: scores(test.get(model)) for model in MODELS}
    if body.get("cut") and not _gain(body, "personal_over_local")["loss"]:
        result["local"] = None  # a budget left no model trained alone
    gain = _gain(body, f"personal_over_{comparison}")
    reference = (result.get(comparison or "") or {}).get("loss")
    lower = relative(table(table(body.get("gains")).get(f"personal_over_{comparison}")), reference)
    judged = outcome(body, comparison, basis.causal, basis.smallest)
    if judged["measure"] == "accuracy":
        gain["accuracy"] = judged["effect"]
    benefit = finite(body.get("benefit"))
    if benefit is None and comparison == "base" and lower:
        benefit = lower["mean"]
    return {
        "name": name,
        "tier": read_record(listed.get("tier")),
        "rank": finite(listed.get("rank")),
        "steps": finite(listed.get("steps")),
        "reason": read_record(listed.get("reason")),
        "hardware": listed.get("hardware"),
        "data": _examples(listed),
        "licence": table(listed.get("data")).get("licence"),
        "chosen": body.get("chosen"),
        "cut": read_record(body.get("cut")),
        "verdict": judged["verdict"],
        "outcome": judged,
        "versus": comparison if gain["loss"] else None,
        "compared": not body.get("cut") or gain["loss"] is not None,
        "test": result,
        "right": {model: right(result[model]) for model in MODELS},
        "choice": candidates(body),
        "classes": classes(body, basis.labels),
        "notes": data_notes(listed, basis.max_tokens, basis.labels),
        "gain": {**gain, "relative": lower},
        "shared_over_local": _gain(body, "shared_over_local"),
        "benefit": benefit,
        "bytes_up": trained.get("bytes_up"),
        "bytes_down": trained.get("bytes_down"),
        "joules": total([trained.get("joules"), row_energy(body).get("joules")]),
        "seconds": total([trained.get("seconds"), body.get("seconds")]),
        "admissions": trained.get("admissions", {}),
    }


def _examples(listed: Mapping[str, Any]) -> Json:
    """Examples in each split, from `batches` or from the data facts; a number or a table."""
    out: Json = {}
    for split in ("train", "validation", "test"):
        given = table(listed.get("batches")).get(split, table(listed.get("data")).get(split))
        count = finite(
            table(given).get("examples", table(given).get("count")) if table(given) else given
        )
        out[split] = None if count is None else int(count)
    return out


def means(people: Sequence[Json]) -> Json:
    """Means over participants of each model's scores and of the gains."""

    def over(model: str, key: str) -> float | None:
        return mean(p["test"][model][key] for p in people if p["test"][model])

    losses = {model: over(model, "loss") for model in MODELS}
    return {
        "gain": {
            key: mean(p["gain"][key]["mean"] for p in people if p["gain"][key])
            for key in ("loss", "accuracy", "relative")
        },
        "loss": losses,
        "perplexity": {m: perplexity(v) for m, v in losses.items()},
        "accuracy": {model: over(model, "accuracy") for model in MODELS},
        "right": _together(people),
    }


def _together(people: Sequence[Json]) -> Json | None:
    """Texts answered right by each model, over all participants whose models were counted;

    None where there are none.
    """
    counted = [p for p in people if p["outcome"]["examples"] and p["right"]["personal"] is not None]
    if not counted:
        return None

    known = {model: [p["right"][model] for p in counted] for model in MODELS}
    right = {model: None if None in counts else sum(counts) for model, counts in known.items()}
    return {"examples": sum(p["test"]["personal"]["examples"] for p in counted), **right}


def equity(people: Sequence[Json]) -> Json:
    """Spread of the benefit b = (loss of the other - loss of the personal model) / loss of the
    other.

    Gini and Jain are those of 1 - b, the part of the loss that remains: b itself may be negative.
    """
    known = [p for p in people if p["benefit"] is not None]
    benefits = [p["benefit"] for p in known]
    if not benefits:
        keys = (
            "mean",
            "minimum",
            "worst_decile",
            "share_positive",
            "gini",
            "jain",
            "spearman_rank",
        )
        return {
            **dict.fromkeys(keys),
            "participants": 0,
            "by_rank": [],
            "left_behind": None,
            "ahead": None,
        }
    remaining = [max(0.0, 1 - b) for b in benefits]
    ranked = [p for p in known if p["rank"] is not None]
    levels = sorted({p["rank"] for p in ranked})
    by_rank = [
        {
            "rank": int(level),
            "participants": sum(p["rank"] == level for p in ranked),
            "mean": mean(p["benefit"] for p in ranked if p["rank"] == level),
            "benefits": sorted(p["benefit"] for p in ranked if p["rank"] == level),
        }
        for level in levels
    ]
    rho = (
        spearman([p["benefit"] for p in ranked], [p["rank"] for p in ranked])
        if len(ranked) > 2
        else None
    )
    return {
        "mean": mean(benefits),
        "minimum": min(benefits),
        "worst_decile": worst_decile(benefits),
        "share_positive": sum(b > 0 for b in benefits) / len(benefits),
        "gini": gini(remaining),
        "jain": jain(remaining),
        "spearman_rank": rho,
        "participants": len(benefits),
        "ahead": _ahead(people),
        "by_rank": by_rank,
        "left_behind": _left_behind(rho, len(ranked)),
    }


def _ahead(people: Sequence[Json]) -> Json:
    """By the measure of the verdicts: of how many the figure is known, above zero, and who is
    furthest ahead and behind.
    """
    known = sorted(
        (p for p in people if p["outcome"]["effect"]), key=lambda p: p["outcome"]["effect"]["mean"]
    )
    ends = {
        end: p["name"]
        for end, p in zip(("behind", "first"), (known[:1] + known[-1:]), strict=False)
    }
    return {
        "known": len(known),
        "above": sum(p["outcome"]["effect"]["mean"] > 0 for p in known),
        "behind": ends.get("behind"),
        "first": ends.get("first"),
    }


def _left_behind(rho: float | None, count: int) -> str | None:
    """Who clearly gained less, `weak`, `strong` or `neither`; `few` where nothing could show.

    |ρ| is held against 1.96/√(n − 1), its 95 % bound if ranks did not matter.
    """
    if rho is None:
        return None
    bound = Z95 / math.sqrt(count - 1)
    if bound >= 1.0:
        return "few"
    if abs(rho) < bound:
        return "neither"
    return "weak" if rho > 0 else "strong"
