"""The numbers behind the report, computed once from the ledger: the page and `--json` both read
them here.

Nothing here raises on a missing part: an unfinished run gives None where a number is not known yet.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tequio.core.texts.earlier import read_record
from tequio.report.data.accounts import accounts, work_rows
from tequio.report.data.candidates import label_names
from tequio.report.data.carbon_schedule import shifted
from tequio.report.data.contribution import giving
from tequio.report.data.elapsed import elapsed
from tequio.report.data.participants import Basis, comparison_basis, equity, means, participant
from tequio.report.data.records import (
    Json,
    Record,
    at_home,
    bodies,
    config_of,
    energy_rows,
    interval,
    is_causal,
    last_body,
    mean,
    row_energy,
    scores,
    table,
    tables,
    total,
    whole,
)
from tequio.report.data.rounds import alarms, detectable, peers, refused, round_rows, training
from tequio.report.data.verdicts import counted, smallest_effect
from tequio.report.data.versus_alone import against_alone
from tequio.report.format import finite, perplexity

PIECES = ("reduce", "start", "weights", "server", "upload", "download")


def summary(entries: Sequence[Record]) -> Json:
    """All numbers of the report, as plain JSON: nats, joules, bytes and seconds.

    `comparison` says what each personal model is judged against: `local` (trained alone on its own
    data), `base` where the run has no local models (`comparison_cut`: a budget left nobody a fair
    one), None where nobody has a personal model yet; `versus` says it of each. A verdict goes by
    texts answered right in classification and by loss in language modelling: `gains`, `loses`,
    `no_difference` (the 95 % interval lies within ± `smallest_effect`), `too_few` (test examples;
    `outcome` says how many would do) or `kept_local` (it keeps its own model). `home` is True of a
    participant's own record, finished when it has the personal model of the federation's end.
    `compared` is False of whom a budget left no fair model to compare with: it is in no mean.
    """
    run, rounds = last_body(entries, "run"), bodies(entries, "round")
    personal = {str(body.get("name")): body for body in bodies(entries, "personal")}
    comparison = comparison_basis(personal.values())
    waits = bodies(entries, "wait")
    worked = [last_body(entries, "start"), *waits, *rounds]
    trained = training(worked)
    later = [body.get("participant") for body in bodies(entries, "joined")]
    listed = {str(p.get("name")): p for p in (*tables(run.get("participants")), *tables(later))}
    centre = table(run.get("centre"))
    home = at_home(entries)
    made = [not body.get("alone") for body in bodies(entries, "personal")]
    names = list(listed) or [n for n in {**trained, **personal} if n != centre.get("name")]
    causal = is_causal(run)
    config = table(run.get("config"))
    basis = Basis(
        comparison,
        causal,
        smallest_effect(config),
        tuple(label_names(run)),
        finite(table(config.get("task")).get("max_tokens")),
    )
    people = [
        participant(
            name, listed.get(name, {}), personal.get(name, {}), trained.get(name, {}), basis
        )
        for name in names
    ]
    spent = accounts(entries)
    return {
        **_header(run),
        "finished": any(made) if home else bool(bodies(entries, "end")),
        "home": home,
        "measure": "perplexity" if causal else "accuracy",
        "comparison": comparison,
        "comparison_cut": comparison == "base"
        and all(body.get("cut") for body in personal.values()),
        "smallest_effect": basis.smallest,
        "verdicts": counted(people),
        "kept_local": sum(p["chosen"] == "local" for p in people if p["compared"]),
        "not_compared": sum(not p["compared"] for p in people),
        "mean": means([p for p in people if p["compared"]]),
        "equity": equity(people),
        "participants": people,
        "rounds": round_rows(rounds, last_body(entries, "start"), last_body(entries, "end"), causal)
        | {"stopped": read_record(last_body(entries, "budget").get("reason"))},
        "everybody": _everybody(last_body(entries, "everybody"), last_body(entries, "pooled")),
        "general": _general(last_body(entries, "general")),
        "public_slices": sorted(table(run.get("slices")))
        or sorted(table(table(config.get("gate")).get("slices"))),
        "cost": _cost(
            worked,
            list(personal.values()),
            last_body(entries, "pooled"),
            trained,
            str(centre.get("name")),
            run.get("simulation") is not False,
            spent["total"]["joules"],
        )
        | elapsed(worked, list(personal.values())),
        "accounts": spent,
        "giving": giving(entries, people, spent),
        "alone": against_alone(entries),
        "shift": shifted(entries),
        "refused": refused([*waits, *rounds]),
        "alarms": alarms(rounds),
        "peers": peers(table(config_of(run).get("topology")), last_body(entries, "shared"), rounds),
        "chain": {
            "records": len(entries),
            "last_hash": entries[-1].hash if entries else None,
            "outcome": last_body(entries, "end").get("outcome"),
            "algorithm": _algorithm(config_of(run)),
            "config": run.get("config_digest"),
            "spec": run.get("spec"),
        },
    }


def _algorithm(config: Mapping[str, Any]) -> str:
    """The pieces by name, in the words of federation.toml."""
    chosen, local, how = (table(config.get(key)) for key in ("algorithm", "local", "distil"))
    kind, method = table(config.get("topology")).get("kind"), local.get("method")
    tries = table(config.get("gate")).get("interpolate")
    pieces = [
        f"topology = {kind}" if kind not in (None, "star") else "",
        *(f"{piece} = {chosen[piece]}" for piece in PIECES if piece in chosen),
        *(f"{name} = {strength}" for name, strength in table(local.get("terms")).items()),
        f"method = {method}" if method not in (None, "plain") else "",
        f"interpolate = {tries}" if tries else "",
        f"distil = {how.get('ensemble')} of {how.get('teachers')}" if how else "",
    ]
    return ", ".join(filter(None, pieces))


def _base(run: Mapping[str, Any]) -> Json:
    """The main base; where there are several, `model` names all of them."""
    own = table(run.get("base"))
    further = [
        table(body.get("base"))
        for body in table(run.get("bases")).values()
        if isinstance(body, Mapping)
    ]
    return (
        {**own, "model": " + ".join(str(b.get("model")) for b in (own, *further))}
        if further
        else dict(own)
    )


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
        "masked": table(config_of(run).get("privacy")).get("mode") == "masked",
    }


def _everybody(body: Mapping[str, Any], pooled: Mapping[str, Any]) -> Json | None:
    if not body:
        return None
    people = table(body.get("participants"))
    out: Json = {}
    for model in ("local", "personal", "general"):
        each = {name: scores(table(given).get(model)) for name, given in people.items()}
        known = [s for s in each.values() if s]
        if not known and model == "general":  # a run of an earlier version
            continue
        losses = [s["loss"] for s in known if s["loss"] is not None]
        rights = [s["accuracy"] for s in known if s["accuracy"] is not None]
        out[model] = {
            "loss": mean(losses),
            "loss_low": min(losses, default=None),
            "loss_high": max(losses, default=None),
            "accuracy": mean(rights),
            "accuracy_low": min(rights, default=None),
            "accuracy_high": max(rights, default=None),
            "perplexity": perplexity(mean(losses)),
            "perplexity_low": perplexity(min(losses, default=None)),
            "perplexity_high": perplexity(max(losses, default=None)),
            "participants": len(known),
        }
    both = {model: scores(body.get(model)) for model in ("base", "shared")}
    return out | both | {"pooled": scores(body.get("pooled")) or scores(pooled.get("everybody"))}


def _general(body: Mapping[str, Any]) -> Json | None:
    slices: dict[str, Json] = {
        name: _general_slice(given) for name, given in body.items() if isinstance(given, Mapping)
    }
    both = [s for s in slices.values() if s["base"] and s["shared"]]
    if not both:
        return None

    scored = {
        m: {key: [s[m][key] for s in both] for key in ("accuracy", "loss")}
        for m in ("base", "shared")
    }
    means = {
        model: {key: None if None in values else mean(values) for key, values in by_key.items()}
        for model, by_key in scored.items()
    }
    for one in means.values():
        one["perplexity"] = perplexity(one["loss"])

    judged = [s["gain"] for s in both if s["gain"]]
    return {
        "slices": slices,
        "mean": means,
        "better": sum(g["low"] > 0 for g in judged),
        "worse": sum(g["high"] < 0 for g in judged),
    }


def _general_slice(given: Mapping[str, Any]) -> Json:
    """detectable: the smallest fall that this many texts would have shown."""
    base, of = scores(given.get("base")), table(given.get("gain"))
    # one interval, or of the two under `accuracy` and `loss` the accuracy's where there is one
    gain = interval(of) or interval(of.get("accuracy")) or interval(of.get("loss"))
    answers = base is not None and base["accuracy"] is not None
    half = None if gain is None else gain["high"] - gain["mean"]
    return {
        "base": base,
        "shared": scores(given.get("shared")),
        "gain": gain,
        "detectable": detectable(half, base["examples"] if base and answers else None),
    }


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
    records = [record for body in (*rounds, *personal) for record in energy_rows(body)]
    if not one_process:  # the energy of a round is then the coordinator's alone, and of the centre
        rows = (row for body in rounds for row in work_rows(body) if row.get("name") != centre)
        records += [record for row in rows if (record := row_energy(row))]
    known = [(finite(r.get("joules")), finite(r.get("uncertainty")), r) for r in records]
    joules = total(j for j, _, _ in known)
    width = None
    if joules and all(u is not None for j, u, _ in known if j is not None):
        width = math.fsum(j * u for j, u, _ in known if j is not None and u is not None) / joules
    worked = total(row["seconds"] for row in trained.values()) or total(
        body.get("seconds") for body in rounds
    )
    return {
        "bytes_up": whole(row["bytes_up"] for name, row in trained.items() if name != centre),
        "bytes_down": whole(row["bytes_down"] for name, row in trained.items() if name != centre),
        "joules": spent,
        "uncertainty": width,
        "methods": sorted({str(r["method"]) for _, _, r in known if r.get("method")}),
        "boundaries": sorted({str(r["boundary"]) for _, _, r in known if r.get("boundary")}),
        "seconds": total([worked, *(body.get("seconds") for body in personal)]),
        "tokens": whole(row["tokens"] for row in trained.values()),
        "centre": trained.get(centre),
        "pooled": {
            "joules": finite(table(pooled.get("energy")).get("joules")),
            "seconds": finite(pooled.get("seconds")),
        },
    }
