"""The end of a run in the terminal: who gained, what it cost, where the report is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tequio.cli import output
from tequio.ledger.folder import network_command
from tequio.report.data.accounts import WHOLE
from tequio.report.format import Lang, Numbers
from tequio.report.html.headline import base_sentence
from tequio.report.html.page import Page
from tequio.report.html.results import cut_to, shortened
from tequio.report.text import Words

STILL = 0.0005  # of accuracy: less is 0.0 points in the table
MODELS = ("base", "local", "shared", "personal")


def print_summary(folder: Path, report: Path, summary: dict[str, Any], lang: Lang = "en") -> None:
    """A table of participants on their own test data, then totals, then where to look; in the report's words where it has such."""
    page = Page(Words(lang), Numbers(lang), summary)
    w, causal = page.w, summary["measure"] == "perplexity"
    table = Table(title=w("say.title", name=summary["name"], measure=w(f"name.{summary['measure']}")))
    left = [w("say.participant"), w("say.verdict")]
    models = [w(f"say.{model}") for model in MODELS]
    for column in (
        *(left[0], w("say.rank"), *models, w(f"say.over.{summary['comparison'] or 'local'}"), "95 %"),
        left[1],
    ):
        table.add_column(column, justify="left" if column in left else "right", no_wrap=True)
    for row in summary["participants"]:
        gain = row["gain"]["loss" if causal else "accuracy"] or {}
        interval = f"{_gain(gain.get('low'), causal)} … {_gain(gain.get('high'), causal)}" if gain else "–"
        table.add_row(
            row["name"],
            f"{row['rank']:g}" if row["rank"] else "–",
            *(_score(row["test"].get(model), causal) for model in MODELS),
            _gain(gain.get("mean"), causal),
            interval,
            _verdict(page, row, not causal and bool(gain) and abs(gain["mean"]) < STILL),
        )
    output.table(table)
    for row in summary["participants"]:
        if (change := row["accuracy_against"]) is not None:
            key = f"say.against.{'fell' if change < 0 else 'rose'}"
            points = f"{100 * abs(change):.1f}"
            said = w(key, name=row["name"], verdict=w(f"verdict.{row['verdict']}"), points=points)
            output.out.print(said, markup=False)
        if row["cut"]:
            output.out.print(w(f"personal.{cut_to(row)}", name=row["name"], how=row["cut"]), markup=False)
    for said in shortened(page):
        output.out.print(said, markup=False)
    rounds = summary["rounds"]
    if rounds["stopped"]:
        made = w(
            "head.stopped" if rounds["total"] else "head.unmade",
            rounds=page.rounds_count(rounds["total"]),
            reason=rounds["stopped"],
        )
        output.out.print(made, markup=False)
    if summary["comparison_cut"] and rounds["total"]:
        output.out.print(base_sentence(page), markup=False)
    if not summary["finished"]:
        output.out.print(_unfinished(w, folder, summary["home"]), markup=False)
    _print_cost(page, folder)
    output.out.print(w("say.report", path=report), markup=False)


def _verdict(page: Page, row: Mapping[str, Any], still: bool) -> str:
    """still: the figure beside it says nothing."""
    w = page.w
    said = w(f"verdict.{row['verdict']}") if row["verdict"] else "–"
    said = w("say.byloss", verdict=said) if still and row["verdict"] in ("gains", "loses") else said
    said = said if row["compared"] else w("say.uncompared")
    return f"{said} ({page.choice(row['chosen'])})" if row["chosen"] else said


def _print_cost(page: Page, folder: Path) -> None:
    w, n, cost, whole = page.w, page.n, page.s["cost"], page.s["accounts"]["total"]
    if cost.get("joules") is not None:
        around = f" ±{n.percent(cost['uncertainty'], 0)}" if cost.get("uncertainty") else ""
        energy = w("say.energy", energy=n.energy(cost["joules"]), around=around, time=n.duration(cost["seconds"]))
        output.out.print(energy, markup=False)
    if whole["grams"] is None and not whole["money"]:
        return
    said = w("say.carbon.none")
    if whole["grams"] is not None:
        share = whole["grams_share"] or 1.0
        part = f" {w('say.carbon.part', share=n.percent(share, 0))}" if share < WHOLE else ""
        said = w("say.carbon", carbon=n.mass(whole["grams"]), part=part)
    money = f"; {n.money(whole['money'])}" if whole["money"] else ""
    more = w("say.more", command=f"tequio accounts {folder}")
    output.out.print(f"{said}{money}. {more}", markup=False)


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
    output.table(table)
    if "cut" in result:
        key = "personal.cut" if fair else "personal.short"
        output.out.print(Words("en")(key, name=result["name"], how=result["cut"]), markup=False)
    if gain is not None:
        low, high = _gain(gain["low"], causal), _gain(gain["high"], causal)
        output.out.print(f"Gain over starting alone: {_gain(gain['mean'], causal)} (95 %: {low} … {high}).")
    output.out.print(
        f"Kept: {result['chosen']}, chosen on {sizes['validation']} validation texts; trained on {sizes['train']}, "
        f"tested on {sizes['test']}."
    )
    energy = result["energy"]
    words = f"Energy {energy['joules'] / 3600:.3g} Wh, time {energy['seconds']:.0f} s."
    output.out.print(f"{words} More: tequio accounts {result['folder']} --own", markup=False)
    if "adapter" in result:
        output.out.print(f"Adapter: {result['adapter']}", markup=False)


def _unfinished(w: Words, folder: Path, home: bool) -> str:
    """With how to go on; home: a participant's own record, or a copy that went along with who left."""
    if not home:
        return w("say.unfinished.run", command=f"tequio run --resume {folder}")
    command = network_command(folder.resolve())
    return w("say.unfinished.left") if command is None else w("say.unfinished.home", command=command)


def print_provenance(provenance: Sequence[Mapping[str, Any]]) -> None:
    """What was fetched, under which licence, and what for."""
    for piece in provenance:
        version = f" {piece['version']}" if piece["version"] else ""
        output.err.print(f"  {piece['name']}{version}, {piece['licence']}: {piece['used_for']}", markup=False)


def _score(scores: Mapping[str, Any] | None, causal: bool) -> str:
    if not scores or scores.get("loss") is None:
        return "–"
    return f"{math.exp(scores['loss']):.2f}" if causal else output.percent(scores.get("accuracy"))


def _gain(value: float | None, causal: bool) -> str:
    """Points of accuracy, or the fall of perplexity in per cent (1 − exp(−Δloss))."""
    if value is None:
        return "–"
    return f"{100 * (1 - math.exp(-value)):+.1f} %" if causal else output.points(value)
