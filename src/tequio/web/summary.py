"""The numbers behind the report, computed once from the ledger: the page and `--json` both read them here.

Nothing here raises on a missing part: an unfinished run gives None where a number is not known yet.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from tequio.measure.statistics import gini, jain, spearman, worst_decile
from tequio.web.accounts import accounts, rows_of
from tequio.web.giving import giving
from tequio.web.numbers import finite
from tequio.web.records import (
    Z95,
    Json,
    Record,
    bodies,
    energy_of,
    interval,
    last_body,
    mean,
    row_energy,
    scores,
    table,
    tables,
    total,
    whole,
)

PIECES = ("reduce", "start", "weights", "server", "upload", "download")
MODELS = ("base", "local", "shared", "personal")
SHOWN = 0.0005  # of accuracy: less is 0.0 points on the page
Verdict = Literal["gains", "undecided", "loses"]


def summary(entries: Sequence[Record]) -> Json:
    """All numbers of the report, as plain JSON: nats, joules, bytes and seconds.

    `comparison` says what each personal model is judged against: `local` (trained alone on its own data),
    `base` where the run has no local models, None where nobody has a personal model yet. A verdict is
    `gains` or `loses` where the 95 % interval of the loss gain lies on one side of zero, else `undecided`;
    `accuracy_against` is the change of accuracy (0.01: a point) where its sign is the other one, None where it is not.
    """
    run, rounds = last_body(entries, "run"), bodies(entries, "round")
    personal = {str(body.get("name")): body for body in bodies(entries, "personal")}
    comparison = _comparison(personal.values())
    waits = bodies(entries, "wait")
    trained = _training([last_body(entries, "start"), *waits, *rounds])
    later = [body.get("participant") for body in bodies(entries, "joined")]
    listed = {str(p.get("name")): p for p in (*tables(run.get("participants")), *tables(later))}
    centre = table(run.get("centre"))
    names = list(listed) or [n for n in {**trained, **personal} if n != centre.get("name")]
    people = [
        _participant(name, listed.get(name, {}), personal.get(name, {}), trained.get(name, {}), comparison)
        for name in names
    ]
    counts = Counter(p["verdict"] for p in people)
    spent = accounts(entries)
    causal = table(run.get("task")).get("kind") not in (None, "classification")
    return {
        **_header(run),
        "finished": bool(bodies(entries, "end")),
        "measure": "perplexity" if causal else "accuracy",
        "comparison": comparison,
        "verdicts": {key: counts[key] for key in ("gains", "undecided", "loses", None) if key}
        | {"unknown": counts[None]},
        "kept_local": sum(p["chosen"] == "local" for p in people),
        "mean": _means(people),
        "equity": _equity(people),
        "participants": people,
        "rounds": _rounds(rounds, last_body(entries, "start"), last_body(entries, "end"))
        | {"stopped": last_body(entries, "budget").get("reason")},
        "everybody": _everybody(last_body(entries, "everybody"), last_body(entries, "pooled")),
        "general": _general(last_body(entries, "general")),
        "cost": _cost(
            [last_body(entries, "start"), *waits, *rounds],
            list(personal.values()),
            last_body(entries, "pooled"),
            trained,
            str(centre.get("name")),
            run.get("simulation") is not False,
            spent["total"]["joules"],
        ),
        "accounts": spent,
        "giving": giving(entries, people, spent),
        "refused": _refused([*waits, *rounds]),
        "alarms": _alarms(rounds),
        "peers": _peers(table(table(run.get("config")).get("topology")), last_body(entries, "shared"), rounds),
        "chain": {
            "records": len(entries),
            "last_hash": entries[-1].hash if entries else None,
            "outcome": last_body(entries, "end").get("outcome"),
            "algorithm": _algorithm(table(run.get("config"))),
            "config": run.get("config_digest"),
            "spec": run.get("spec"),
        },
    }


def _algorithm(config: Mapping[str, Any]) -> str:
    """The pieces by name, in the words of federation.toml."""
    chosen = table(config.get("algorithm"))
    pieces = [f"{kind} = {chosen[kind]}" for kind in PIECES if kind in chosen]
    local = table(config.get("local"))
    pieces += [f"{name} = {strength}" for name, strength in table(local.get("terms")).items()]
    pieces += [f"method = {method}" for method in (local.get("method"),) if method not in (None, "plain")]
    tries = table(config.get("gate")).get("interpolate")
    kind = table(config.get("topology")).get("kind")
    pieces = ([f"topology = {kind}"] if kind not in (None, "star") else []) + pieces
    pieces += [f"interpolate = {tries}"] if tries else []
    how = table(config.get("distil"))
    return ", ".join(pieces + ([f"distil = {how.get('ensemble')} of {how.get('teachers')}"] if how else []))


def _base(run: Mapping[str, Any]) -> Json:
    """The main base; where there are several, `model` names all of them."""
    own = table(run.get("base"))
    further = [table(body.get("base")) for body in table(run.get("bases")).values() if isinstance(body, Mapping)]
    return {**own, "model": " + ".join(str(b.get("model")) for b in (own, *further))} if further else dict(own)


def _header(run: Mapping[str, Any]) -> Json:
    return {
        "name": run.get("name"),
        "created": run.get("created"),
        "seed": run.get("seed") if isinstance(run.get("seed"), int) else None,
        "base": _base(run),
        "task": table(run.get("task")).get("kind"),
        "centre": table(run.get("centre")).get("name"),
        "provenance": [dict(item) for item in tables(run.get("provenance"))],
        "simulation": run.get("simulation"),
        "counterfactuals": run.get("counterfactuals"),
    }


def _verdict(loss: Json | None) -> Verdict | None:
    if loss is None:
        return None
    return "gains" if loss["low"] > 0 else "loses" if loss["high"] < 0 else "undecided"


def _comparison(personal: Iterable[Mapping[str, Any]]) -> str | None:
    bodies = list(personal)
    for other in ("local", "base"):
        if any(_gain(body, f"personal_over_{other}")["loss"] for body in bodies):
            return other
    return None


def _gain(body: Mapping[str, Any], which: str) -> Json:
    given = table(table(body.get("gains")).get(which))
    return {"loss": interval(given.get("loss")), "accuracy": interval(given.get("accuracy"))}


def _participant(
    name: str, listed: Mapping[str, Any], body: Mapping[str, Any], trained: Json, comparison: str | None
) -> Json:
    test = table(body.get("test"))
    result = {model: scores(test.get(model)) for model in MODELS}
    gain = _gain(body, f"personal_over_{comparison}")
    reference = (result.get(comparison or "") or {}).get("loss")
    relative = {k: v / reference for k, v in gain["loss"].items()} if gain["loss"] and reference else None
    benefit = finite(body.get("benefit"))
    if benefit is None and comparison == "base" and relative:
        benefit = relative["mean"]
    return {
        "name": name,
        "tier": listed.get("tier"),
        "rank": finite(listed.get("rank")),
        "steps": finite(listed.get("steps")),
        "reason": listed.get("reason"),
        "hardware": listed.get("hardware"),
        "data": _examples(listed),
        "licence": table(listed.get("data")).get("licence"),
        "chosen": body.get("chosen"),
        "verdict": _verdict(gain["loss"]),
        "accuracy_against": _against(gain["loss"], gain["accuracy"]),
        "test": result,
        "gain": {**gain, "relative": relative},
        "shared_over_local": _gain(body, "shared_over_local"),
        "benefit": benefit,
        "bytes_up": trained.get("bytes_up"),
        "bytes_down": trained.get("bytes_down"),
        "joules": total([trained.get("joules"), table(body.get("energy")).get("joules")]),
        "seconds": total([trained.get("seconds"), body.get("seconds")]),
        "admissions": trained.get("admissions", {}),
    }


def _against(loss: Json | None, accuracy: Json | None) -> float | None:
    """The change of accuracy where the verdict, which goes by loss, says the contrary; both gains are positive where it is better."""
    mean_ = None if accuracy is None else finite(accuracy["mean"])
    sign = {"gains": 1.0, "loses": -1.0}.get(_verdict(loss) or "", 0.0)
    return mean_ if mean_ is not None and sign * mean_ < 0.0 and abs(mean_) >= SHOWN else None


def _examples(listed: Mapping[str, Any]) -> Json:
    """Examples in each split, from `batches` or from the data facts; a number or a table."""
    out: Json = {}
    for split in ("train", "validation", "test"):
        given = table(listed.get("batches")).get(split, table(listed.get("data")).get(split))
        count = finite(table(given).get("examples", table(given).get("count")) if table(given) else given)
        out[split] = None if count is None else int(count)
    return out


def _training(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Json]:
    """What each trainer did over all rounds, the centre included."""
    rows: dict[str, list[Mapping[str, Any]]] = {}
    status: dict[str, Counter[str]] = {}
    for body in rounds:
        for row in rows_of(body):  # what is in flight has cost already
            rows.setdefault(str(row.get("name")), []).append(row)
        for row in tables(body.get("admissions")):
            status.setdefault(str(row.get("name")), Counter())[str(row.get("status"))] += 1
    keys = ("bytes_up", "bytes_down", "tokens", "steps")
    out: dict[str, Json] = {}
    for name in {**rows, **status}:
        mine = rows.get(name, [])
        energies = [row_energy(row) for row in mine]
        times = [row.get("seconds", e.get("seconds")) for row, e in zip(mine, energies, strict=True)]
        out[name] = {key: total(row.get(key) for row in mine) for key in keys} | {
            "joules": total(e.get("joules") for e in energies),
            "seconds": total(times),
            "admissions": dict(status.get(name, {})),
        }
    return out


def _means(people: Sequence[Json]) -> Json:
    def over(model: str, key: str) -> float | None:
        return mean(p["test"][model][key] for p in people if p["test"][model])

    def gained(key: str) -> float | None:
        return mean(p["gain"][key]["mean"] for p in people if p["gain"][key])

    losses = {model: over(model, "loss") for model in MODELS}
    return {
        "gain": {key: gained(key) for key in ("loss", "accuracy", "relative")},
        "loss": losses,
        "perplexity": {m: _exp(v) for m, v in losses.items()},
        "accuracy": {model: over(model, "accuracy") for model in MODELS},
    }


def _equity(people: Sequence[Json]) -> Json:
    """Spread of the benefit b = (loss of the other - loss of the personal model) / loss of the other.

    Gini and Jain are those of 1 - b, the part of the loss that remains: b itself may be negative.
    """
    known = [p for p in people if p["benefit"] is not None]
    benefits = [p["benefit"] for p in known]
    if not benefits:
        keys = ("mean", "minimum", "worst_decile", "share_positive", "gini", "jain", "spearman_rank")
        return {**dict.fromkeys(keys), "participants": 0, "by_rank": [], "left_behind": None}
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
    rho = spearman([p["benefit"] for p in ranked], [p["rank"] for p in ranked]) if len(ranked) > 2 else None
    return {
        "mean": mean(benefits),
        "minimum": min(benefits),
        "worst_decile": worst_decile(benefits),
        "share_positive": sum(b > 0 for b in benefits) / len(benefits),
        "gini": gini(remaining),
        "jain": jain(remaining),
        "spearman_rank": rho,
        "participants": len(benefits),
        "by_rank": by_rank,
        "left_behind": _left_behind(rho, len(ranked)),
    }


def _left_behind(rho: float | None, count: int) -> str | None:
    """Who clearly gained less, `weak`, `strong` or `neither`.

    |ρ| is held against 1.96/√(n − 1), its 95 % bound if ranks did not matter.
    """
    if rho is None:
        return None
    if abs(rho) < Z95 / math.sqrt(count - 1):
        return "neither"
    return "weak" if rho > 0 else "strong"


def _rounds(rounds: Sequence[Mapping[str, Any]], start: Mapping[str, Any], end: Mapping[str, Any]) -> Json:
    before = {n: finite(table(s).get("loss")) for n, s in table(start.get("validation")).items()}
    history: list[Json] = [
        {
            "round": int(finite(body.get("round")) or 0),
            "accepted": bool(body.get("accepted")),
            "reason": body.get("reason"),
            "loss": finite(body.get("mean_validation_loss")),
            "participants": {n: finite(table(s).get("loss")) for n, s in table(body.get("validation")).items()},
            "gate": {name: _gate(table(given)) for name, given in table(body.get("gate")).items()},
            "seconds": finite(body.get("seconds")),
            "digest": body.get("digest"),
        }
        for body in rounds
    ]
    before_mean = finite(start.get("mean_validation_loss"))
    before_mean = mean(before.values()) if before_mean is None else before_mean
    usable = [r for r in history if r["accepted"] and r["loss"] is not None]
    best = finite(end.get("best_round"))
    if best is None and usable:
        best = min(usable, key=lambda r: (r["loss"], r["round"]))["round"]
    return {
        "total": len(history),
        "accepted": sum(r["accepted"] for r in history),
        "rejected": sum(not r["accepted"] for r in history),
        "best": None if best is None else int(best),
        "reason": end.get("reason"),
        "start": {"loss": before_mean, "participants": before},
        "history": history,
    }


def _gate(given: Mapping[str, Any]) -> Json:
    values: Json = {key: finite(given.get(key)) for key in ("base", "candidate", "low", "high", "limit")}
    known = values["base"] is not None and values["candidate"] is not None
    return {**values, "change": values["candidate"] - values["base"] if known else None}


def _everybody(body: Mapping[str, Any], pooled: Mapping[str, Any]) -> Json | None:
    if not body:
        return None
    people = table(body.get("participants"))
    out: Json = {}
    for model in ("local", "personal"):
        each = {name: scores(table(given).get(model)) for name, given in people.items()}
        known = [s for s in each.values() if s]
        losses = [s["loss"] for s in known if s["loss"] is not None]
        rights = [s["accuracy"] for s in known if s["accuracy"] is not None]
        out[model] = {
            "loss": mean(losses),
            "loss_low": min(losses, default=None),
            "loss_high": max(losses, default=None),
            "accuracy": mean(rights),
            "accuracy_low": min(rights, default=None),
            "accuracy_high": max(rights, default=None),
            "perplexity": _exp(mean(losses)),
            "perplexity_low": _exp(min(losses, default=None)),
            "perplexity_high": _exp(max(losses, default=None)),
            "participants": len(known),
        }
    for model in ("base", "shared"):
        out[model] = scores(body.get(model))
    out["pooled"] = scores(body.get("pooled")) or scores(pooled.get("everybody"))
    return out


def _exp(loss: float | None) -> float | None:
    return None if loss is None or loss > 700 else math.exp(loss)


def _general(body: Mapping[str, Any]) -> Json | None:
    slices: dict[str, Json] = {
        name: {
            "base": scores(table(given).get("base")),
            "shared": scores(table(given).get("shared")),
            "gain": _general_gain(table(table(given).get("gain"))),
        }
        for name, given in body.items()
        if isinstance(given, Mapping)
    }
    both = [s for s in slices.values() if s["base"] and s["shared"]]
    if not both:
        return None

    def over(model: str, key: str) -> float | None:
        values = [s[model][key] for s in both]
        return None if any(v is None for v in values) else mean(values)

    means = {model: {key: over(model, key) for key in ("accuracy", "loss")} for model in ("base", "shared")}
    for one in means.values():
        one["perplexity"] = _exp(one["loss"])
    judged = [s["gain"] for s in both if s["gain"]]
    return {
        "slices": slices,
        "mean": means,
        "better": sum(g["low"] > 0 for g in judged),
        "worse": sum(g["high"] < 0 for g in judged),
    }


def _general_gain(given: Mapping[str, Any]) -> Json | None:
    """One interval, or of the two under `accuracy` and `loss` the accuracy's where there is one."""
    return interval(given) or interval(given.get("accuracy")) or interval(given.get("loss"))


def _cost(
    rounds: Sequence[Mapping[str, Any]],
    personal: Sequence[Mapping[str, Any]],
    pooled: Mapping[str, Any],
    trained: Mapping[str, Json],
    centre: str,
    one_process: bool,
    spent: float | None,
) -> Json:
    """spent: joules in all, by the accounts."""
    records = [record for body in (*rounds, *personal) for record in energy_of(body)]
    if not one_process:  # the energy of a round is then the coordinator's alone, and of the centre
        rows = (row for body in rounds for row in rows_of(body) if row.get("name") != centre)
        records += [record for row in rows if (record := row_energy(row))]
    known = [(finite(r.get("joules")), finite(r.get("uncertainty")), r) for r in records]
    joules = total(j for j, _, _ in known)
    width = None
    if joules and all(u is not None for j, u, _ in known if j is not None):
        width = math.fsum(j * u for j, u, _ in known if j is not None and u is not None) / joules
    return {
        "bytes_up": whole(row["bytes_up"] for name, row in trained.items() if name != centre),
        "bytes_down": whole(row["bytes_down"] for name, row in trained.items() if name != centre),
        "joules": spent,
        "uncertainty": width,
        "methods": sorted({str(r["method"]) for _, _, r in known if r.get("method")}),
        "boundaries": sorted({str(r["boundary"]) for _, _, r in known if r.get("boundary")}),
        "seconds": total(body.get("seconds") for body in (*rounds, *personal)),
        "tokens": whole(row["tokens"] for row in trained.values()),
        "centre": trained.get(centre),
        "pooled": {
            "joules": finite(table(pooled.get("energy")).get("joules")),
            "seconds": finite(pooled.get("seconds")),
        },
    }


def _refused(rounds: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Updates that did not enter a round, grouped by participant, status and reason."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for body in rounds:
        for row in tables(body.get("admissions")):
            if row.get("status") != "admitted":
                key = (str(row.get("name")), str(row.get("status")), str(row.get("reason") or ""))
                groups.setdefault(key, []).append(int(finite(body.get("round")) or 0))
    return [{"name": n, "status": s, "reason": r, "rounds": at} for (n, s, r), at in groups.items()]


def _alarms(rounds: Sequence[Mapping[str, Any]]) -> list[Json]:
    """Alarms of screening, grouped by participant, alarm and what was done; figure and limit are the last ones."""
    groups: dict[tuple[str, str, str], Json] = {}
    for body in rounds:
        for row in tables(body.get("alarms")):
            name, alarm, action = (str(row.get(key)) for key in ("name", "alarm", "action"))
            found = groups.setdefault(
                (name, alarm, action), {"name": name, "alarm": alarm, "action": action, "rounds": []}
            )
            found["rounds"].append(int(finite(body.get("round")) or 0))
            found |= {"figure": finite(row.get("figure")), "limit": finite(row.get("limit"))}
    return list(groups.values())


def _peers(topology: Mapping[str, Any], shared: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> Json | None:
    """The kind of graph, and how far the peers' models lie from their mean, as a share of its length; None for a star."""
    kind = topology.get("kind")
    if kind not in ("ring", "complete", "graph"):
        return None
    last = rounds[-1] if rounds else {}
    return {"kind": kind, "disagreement": finite((shared or last).get("disagreement"))}
