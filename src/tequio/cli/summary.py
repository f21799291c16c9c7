"""The end of a run in the terminal: who gained, what it cost, where the report is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tequio.cli import show
from tequio.ledger.folder import IDENTITY, RUN

STILL = 0.0005  # of accuracy: less is 0.0 points in the table
WORDS = {"gains": "gains", "undecided": "undecided", "loses": "loses", None: "–"}


def print_summary(folder: Path, report: Path, summary: Mapping[str, Any]) -> None:
    """A table of participants on their own test data, then totals, then where to look."""
    causal = summary["measure"] == "perplexity"
    against = summary["comparison"] or "local"
    table = Table(
        title=f"{summary['name']}: {'perplexity' if causal else 'accuracy'} on each participant's own test data"
    )
    for column in (
        "participant",
        "rank",
        "base",
        "local",
        "shared",
        "personal",
        f"gain over {against}",
        "95 %",
        "verdict",
    ):
        table.add_column(column, justify="left" if column in ("participant", "verdict") else "right", no_wrap=True)
    for row in summary["participants"]:
        gain = row["gain"]["loss" if causal else "accuracy"] or {}
        scores = [_score(row["test"].get(model), causal) for model in ("base", "local", "shared", "personal")]
        interval = f"{_gain(gain.get('low'), causal)} … {_gain(gain.get('high'), causal)}" if gain else "–"
        verdict = WORDS[row["verdict"]] if row["compared"] else "not comparable"
        still = not causal and bool(gain) and abs(gain["mean"]) < STILL  # then the figure beside it says nothing
        verdict += " by loss" if still and row["compared"] and row["verdict"] in ("gains", "loses") else ""
        verdict += f" ({row['chosen']})" if row["chosen"] else ""
        table.add_row(
            row["name"],
            f"{row['rank']:g}" if row["rank"] else "–",
            *scores,
            _gain(gain.get("mean"), causal),
            interval,
            verdict,
        )
    show.table(table)
    for row in summary["participants"]:
        if (change := row["accuracy_against"]) is not None:
            words = f"while its accuracy {'fell' if change < 0 else 'rose'} by {100 * abs(change):.1f} points"
            show.out.print(f"{row['name']} {WORDS[row['verdict']]} by loss, {words}.", markup=False)
        if row["cut"]:
            _print_cut(row, row["test"]["local"] is not None, row["versus"] == "base")
    if summary["comparison_cut"]:
        show.out.print("Whether joining beat training alone is not known: all gains are over the base model.")
    rounds = summary["rounds"]
    if rounds["stopped"]:
        made = f"The rounds ended early, after {rounds['total']}" if rounds["total"] else "No round was made"
        show.out.print(f"{made}: {rounds['stopped']}.", markup=False)
    if not summary["finished"]:
        show.out.print(_unfinished(folder, summary["home"]), markup=False)
    cost = summary["cost"]
    if cost.get("joules") is not None:
        band = cost.get("uncertainty")
        around = f" ±{100 * band:.0f} %" if band else ""
        show.out.print(
            f"Energy {cost['joules'] / 3600:.2f} Wh{around}, time {cost['seconds']:.0f} s. Gains are judged on loss."
        )
    whole = summary["accounts"]["total"]
    if whole["grams"] is not None or whole["money"]:
        money = ", ".join(f"{amount:.3g} {currency}" for currency, amount in sorted(whole["money"].items()))
        carbon = "CO2e not known" if whole["grams"] is None else f"{whole['grams']:.3g} g CO2e"
        part = (
            f" (of {100 * whole['grams_share']:.0f} % of the energy)" if (whole["grams_share"] or 1.0) < 0.999 else ""
        )
        show.out.print(f"{carbon}{part}, location-based{f'; {money}' if money else ''}. More: tequio accounts {folder}")
    show.out.print(f"Report: {report}", markup=False)


def print_adapted(result: Mapping[str, Any]) -> None:
    """What a newcomer got: its candidates on its own test data, the gain over starting alone, where the adapter is."""
    causal = result["test"]["base"]["accuracy"] is None
    gain = result["gains"]["personal_over_local"]["loss" if causal else "accuracy"]
    fair = "cut" not in result or gain is not None
    test = result["test"] | ({} if fair else {"local": None})
    sizes = result["examples"]
    title = f"{result['name']}: {'perplexity' if causal else 'accuracy'} on its own test data"
    table = Table(title=title)
    models = ("base", "local", "shared", "personal")
    for column in models:
        table.add_column(column, justify="right")
    table.add_row(*(_score(test[model], causal) for model in models))
    show.table(table)
    if "cut" in result:
        _print_cut(result, fair)
    if gain is not None:
        low, high = _gain(gain["low"], causal), _gain(gain["high"], causal)
        show.out.print(f"Gain over starting alone: {_gain(gain['mean'], causal)} (95 %: {low} … {high}).")
    show.out.print(
        f"Kept: {result['chosen']}, chosen on {sizes['validation']} validation texts; trained on {sizes['train']}, "
        f"tested on {sizes['test']}."
    )
    energy = result["energy"]
    words = f"Energy {energy['joules'] / 3600:.3g} Wh, time {energy['seconds']:.0f} s."
    show.out.print(f"{words} More: tequio accounts {result['folder']} --own", markup=False)
    if "adapter" in result:
        show.out.print(f"Adapter: {result['adapter']}", markup=False)


def _unfinished(folder: Path, home: bool) -> str:
    """With how to go on; home: a participant's own record, or a copy that went along with who left."""
    if not home:
        return f"This run is not finished. Go on with: tequio run --resume {folder}"
    joined = folder.resolve().parent
    if not (joined / IDENTITY).exists() or folder.resolve().name != RUN:
        return "The federation was left before it had come to its end."
    return f"The federation has not come to its end here. Go on with: tequio participate {joined}"


def _print_cut(row: Mapping[str, Any], fair: bool, base: bool = False) -> None:
    """What a budget made less of. fair: enough is left of the model trained alone to compare with; base: the gain is over that instead."""
    what = "and the one trained alone were cut" if fair else "was cut, and there is no fair one trained alone"
    what += ", so its gain is over the base model" if base else ""
    show.out.print(f"{row['name']}: its personal model {what}: {row['cut']}.", markup=False)


def print_provenance(provenance: Sequence[Mapping[str, Any]]) -> None:
    """What was fetched, under which licence, and what for."""
    for piece in provenance:
        version = f" {piece['version']}" if piece["version"] else ""
        show.err.print(f"  {piece['name']}{version}, {piece['licence']}: {piece['used_for']}", markup=False)


def _score(scores: Mapping[str, Any] | None, causal: bool) -> str:
    if not scores or scores.get("loss") is None:
        return "–"
    return f"{math.exp(scores['loss']):.2f}" if causal else show.percent(scores.get("accuracy"))


def _gain(value: float | None, causal: bool) -> str:
    """Points of accuracy, or the fall of perplexity in per cent (1 − exp(−Δloss))."""
    if value is None:
        return "–"
    return f"{100 * (1 - math.exp(-value)):+.1f} %" if causal else show.points(value)
