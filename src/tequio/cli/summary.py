"""The end of a run in the terminal: who gained, what it cost, where the report is."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tequio.cli import output
from tequio.core.durations import duration
from tequio.core.texts.words import ENGLISH, Lang, Words
from tequio.ledger.folder import network_command
from tequio.report.data.accounts import WHOLE
from tequio.report.format import DASH, Numbers
from tequio.report.html.headline import base_sentence
from tequio.report.html.page import Page
from tequio.report.html.results import cut_to
from tequio.report.html.verdict import (
    bounds_in_words,
    counts_in_words,
    effect_in_words,
    needed_in_words,
    notes_in_words,
)

MODELS = ("base", "local", "shared", "personal")
NOTED = 12  # participants whose data are remarked on; the report has all


def print_summary(folder: Path, report: Path, summary: dict[str, Any], lang: Lang = "en") -> None:
    """A table of participants on their own test data, then totals, then where to look; in the
    report's words where it has such.
    """
    page = Page(Words(lang), Numbers(lang), summary)
    output.table(_results(page))
    for row in summary["participants"]:
        if said := [
            part for part in (counts_in_words(page, row), needed_in_words(page, row)) if part
        ]:
            output.out.print(f"{row['name']}: {'. '.join(said)}.", markup=False)
        if row["cut"]:
            output.out.print(
                page.w(f"personal.{cut_to(row)}", name=row["name"], how=page.w.reason(row["cut"])),
                markup=False,
            )
    _print_notes(page)
    w, rounds = page.w, summary["rounds"]
    if rounds["stopped"]:
        key = "head.stopped" if rounds["total"] else "head.unmade"
        facts = {
            "rounds": page.rounds_count(rounds["total"]),
            "reason": w.reason(rounds["stopped"]),
        }
        output.out.print(w(key, **facts), markup=False)
    if summary["comparison_cut"] and rounds["total"]:
        output.out.print(base_sentence(page), markup=False)
    if not summary["finished"]:
        output.out.print(_unfinished(w, folder, summary["home"]), markup=False)
    _print_cost(page, folder)
    output.out.print(w("say.report", path=report), markup=False)


def _results(page: Page) -> Table:
    """A row for each participant: texts right (or perplexity) by model, the difference, the
    verdict.
    """
    w, summary = page.w, page.s
    causal = summary["measure"] == "perplexity"
    title = w("say.title", name=summary["name"], measure=w(f"say.measure.{summary['measure']}"))
    keys = ["participant", *MODELS, *([] if causal else ["of"]), "difference"]
    heads = [*(w(f"say.{key}") for key in keys), "95 %", w("say.verdict")]
    lines = [
        [
            row["name"],
            *(_score(page, row, model) for model in MODELS),
            *([] if causal else [page.n.fixed((row["test"]["personal"] or {}).get("examples"))]),
            effect_in_words(page, row),
            bounds_in_words(page, row) or DASH,
            _verdict(page, row),
        ]
        for row in summary["participants"]
    ]
    last = len(heads) - 1
    return output.tabular(heads, lines, left=(0, last), title=title, wrapped=(last,))


def _score(page: Page, row: Mapping[str, Any], model: str) -> str:
    """Texts answered right; their share, or the perplexity, where they are not counted."""
    if page.s["measure"] == "accuracy" and row["right"][model] is not None:
        return page.n.fixed(row["right"][model])
    return page.shown(page.metric(row["test"][model]))


def _verdict(page: Page, row: Mapping[str, Any]) -> str:
    w = page.w
    said = w(f"verdict.{row['verdict']}") if row["verdict"] else DASH
    said = said if row["compared"] else w("say.uncompared")
    own = row["verdict"] == "kept_local"
    return f"{said} ({page.choice(row['chosen'])})" if row["chosen"] and not own else said


def _print_notes(page: Page) -> None:
    """Rows left out and why, texts cut, classes missing."""
    found = [(row["name"], notes) for row in page.people if (notes := notes_in_words(page, row))]
    output.say(*(f"{name}: {' '.join(notes)}" for name, notes in found[:NOTED]))
    if found[NOTED:]:
        output.out.print(page.w("notes.more", n=page.n.fixed(len(found) - NOTED)), markup=False)


def _print_cost(page: Page, folder: Path) -> None:
    w, n, cost, whole = page.w, page.n, page.s["cost"], page.s["accounts"]["total"]
    if cost.get("joules") is not None:
        around = f" ±{n.percent(cost['uncertainty'], 0)}" if cost.get("uncertainty") else ""
        key = "say.time.work" if cost["elapsed"] is None else "say.time"
        time = w(key, time=n.duration(cost["elapsed"]), work=n.duration(cost["seconds"]))
        output.out.print(
            w("say.energy", energy=n.energy(cost["joules"]), around=around, time=time), markup=False
        )
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
    """What a newcomer got: its candidates on its own test data, the gain over starting alone, where
    the adapter is.
    """
    causal = result["test"]["base"]["accuracy"] is None
    gain = result["gains"]["personal_over_local"]["loss" if causal else "accuracy"]
    fair = "cut" not in result or gain is not None
    test = result["test"] | ({} if fair else {"local": None})
    sizes = result["examples"]
    title = f"{result['name']}: {'perplexity' if causal else 'accuracy'} on its own test data"
    figures = [_figure(test[model], causal) for model in MODELS]
    output.table(
        output.tabular(MODELS, [figures], left=(), title=title, wrapped=range(len(MODELS)))
    )
    if "cut" in result:
        key = "personal.cut" if fair else "personal.short"
        output.out.print(
            Words("en")(key, name=result["name"], how=Words("en").reason(result["cut"])),
            markup=False,
        )
    if gain is not None:
        low, high = _gain(gain["low"], causal), _gain(gain["high"], causal)
        output.out.print(
            f"Gain over starting alone: {_gain(gain['mean'], causal)} (95 %: {low} … {high})."
        )
    output.out.print(
        f"Kept: {result['chosen']}, chosen on {sizes['validation']} validation texts; trained on "
        f"{sizes['train']}, tested on {sizes['test']}."
    )
    energy = result["energy"]
    words = f"Energy {energy['joules'] / 3600:.3g} Wh, time {duration(energy['seconds'])}."
    output.out.print(f"{words} More: tequio accounts {result['folder']} --own", markup=False)
    if "adapter" in result:
        output.out.print(f"Adapter: {result['adapter']}", markup=False)


def _unfinished(w: Words, folder: Path, home: bool) -> str:
    """With how to go on; home: a participant's own record, or a copy that went along with who
    left.
    """
    if not home:
        return w("say.unfinished.run", command=f"tequio run --resume {folder}")
    command = network_command(folder.resolve())
    return (
        w("say.unfinished.left") if command is None else w("say.unfinished.home", command=command)
    )


def print_provenance(provenance: Sequence[Mapping[str, Any]]) -> None:
    """What was fetched, under which licence, and what for."""
    for piece in provenance:
        version = f" {piece['version']}" if piece["version"] else ""
        output.err.print(
            f"  {piece['name']}{version}, {piece['licence']}: {ENGLISH.reason(piece['used_for'])}",
            markup=False,
        )


def _figure(scores: Mapping[str, Any] | None, causal: bool) -> str:
    if not scores or scores.get("loss") is None:
        return "–"
    return f"{math.exp(scores['loss']):.2f}" if causal else output.percent(scores.get("accuracy"))


def _gain(value: float | None, causal: bool) -> str:
    """Points of accuracy, or the fall of perplexity in per cent (1 − exp(−Δloss))."""
    if value is None:
        return "–"
    return f"{100 * (1 - math.exp(-value)):+.1f} %" if causal else output.points(value)


def print_exported(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print where each exported model is, and how far it agrees with the original."""
    for row in rows:
        if "adapter" in row:
            less = f" of {row['exact_rank']}" if row["exact_rank"] > row["rank"] else ""
            size = f"rank {row['rank']}{less}, {row['bytes'] / 1e6:.1f} MB"
            _print_exported(row["name"], row["adapter"], size, row["agreement"])
        if "merged" in row:
            _print_exported(
                row["name"], row["merged"], row["merged_dtype"], row["merged_agreement"]
            )


def _print_exported(name: str, folder: str, size: str, agreement: Mapping[str, Any] | None) -> None:
    output.out.print(f"{name}: {folder} ({size})", markup=False)
    if agreement is None:
        said = "not measured: no validation data of this model are at hand here"
    elif "equal" in agreement:
        said = (
            f"the same answer on {100 * agreement['equal']:.1f} % of {agreement['count']} "
            "validation texts"
        )
    else:
        change = agreement["exported_loss"] - agreement["loss"]
        said = (
            f"loss {agreement['exported_loss']:.4f}, {change:+.4f} from the original, on "
            f"{agreement['count']} blocks"
        )
    output.out.print(f"  Agreement with the original: {said}.", markup=False)
