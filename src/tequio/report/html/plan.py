"""A plan as one offline HTML page: what each needs, the ways to do it with their Pareto set, buy or
rent, the weakest, and the outcome.
"""

import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from tequio.core.texts.words import Lang, Words
from tequio.ledger.folder import RunFolder
from tequio.report.data.forecast import corrected, machines, not_learnt, plan_rows, unchecked
from tequio.report.format import Numbers
from tequio.report.html.markup import Safe, el, join
from tequio.report.html.page import Cell, figure, grid, legend, under

WIDTH, HEIGHT, EDGE = 640, 320, 48


def write_plan(folder: Path, plan: Mapping[str, Any], lang: Lang) -> Path:
    """Write plan.json and plan.LANG.html into the federation's folder; returns the page.

    Pages of the last plan in other languages are written anew. Only the owner can read what has
    private figures (`own`).
    """
    place, own = RunFolder(folder), bool(plan.get("own"))
    place.write_atomic("plan.json", json.dumps(plan, indent=1, ensure_ascii=False).encode(), own)
    for each in get_args(Lang):
        if each == lang or (folder / f"plan.{each}.html").exists():
            place.write_atomic(f"plan.{each}.html", render_plan(plan, each).encode(), own)
    return folder / f"plan.{lang}.html"


def render_plan(plan: Mapping[str, Any], lang: Lang) -> str:
    """The whole page."""
    w, n = Words(lang), Numbers(lang)
    title = w("plan.title", name=plan["federation"])
    style = files("tequio.report.html").joinpath("style.css").read_text(encoding="utf-8")
    parts = [
        _section(1, w("plan.each"), _each(plan, w, n)),
        _section(2, w("plan.memory"), _memory(plan, w, n)),
        _section(3, w("plan.ways"), _ways(plan, w, n)),
        _section(4, w("plan.even"), _even(plan, w, n)),
        _section(5, w("plan.weakest"), _weakest(plan, w, n)),
    ]
    if "after" in plan:
        parts.append(_section(6, w("plan.after"), _after(plan["after"], w, n)))
    parts.append(
        _section(
            len(parts) + 1,
            w("limits.title"),
            el("ul", *[el("li", w.reason(x)) for x in plan["limits"]]),
        )
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", title),
        el("style", Safe(style)),
    )
    top = el(
        "header",
        el("p", w("plan.kind"), class_="kind"),
        el("h1", title),
        el("p", n.date(plan["made"])),
        class_="top",
    )
    body = el("body", el("div", top, el("main", *parts), class_="sheet"))
    return f"<!doctype html>\n{el('html', head, body, lang=lang)}\n"


def _section(number: int, title: str, *body: object) -> Safe:
    return el(
        "section",
        el("h2", el("span", str(number), aria_hidden="true"), title),
        el("div", *body, class_="body"),
    )


def _each(plan: Mapping[str, Any], w: Words, n: Numbers) -> Safe:
    names = ("machine", "rank", "rounds", "personal", "energy", "carbon", "money", "up")
    head = [
        w("col.participant"),
        *[f"{w(f'plan.col.{k}')}#" if k != "machine" else w("plan.col.machine") for k in names],
    ]
    body: list[list[Cell]] = []
    for row in plan_rows(plan, w):
        seconds = row["seconds"]
        rounds = seconds["train"] + seconds["evaluate"] + seconds["network"]
        times = [n.duration(rounds), n.duration(seconds["personal"])]
        spent = [
            n.energy(row["joules"]),
            n.mass(row["grams"]),
            n.money(row["money"] or {}),
            n.size(row["bytes_up"]),
        ]
        body.append(
            [row["name"], machines([row["machine"]], w), n.fixed(row["rank"]), *times, *spent]
        )
    whole = plan["total"]
    foot: list[Cell] = [
        w("total"),
        "",
        "",
        n.duration(whole["seconds"]),
        "",
        n.energy(whole["joules"]),
    ]
    priced, of = whole.get("priced", (1, 1))
    part = f" ({w('plan.priced', n=priced, of=of)})" if 0 < priced < of else ""
    foot += [
        n.mass(whole["grams"]),
        n.money(whole["money"] or {}) + part,
        n.size(whole["bytes_up"]),
    ]
    own = ", ".join(
        f"{row['name']} {n.duration(row['seconds'])}" for row in plan.get("declared", [])
    )
    return join(
        el("p", w("plan.each.what"), class_="lead"),
        grid(w("plan.each"), head, body, [foot]),
        el("p", w("plan.declared", each=own)) if own else None,
        el("p", w("plan.private", who=", ".join(plan["private"]))) if plan.get("private") else None,
        el("p", w("plan.own")) if plan.get("own") else None,
        _budgets(plan, w, n),
    )


def _budgets(plan: Mapping[str, Any], w: Words, n: Numbers) -> Safe | None:
    """The forecast beside each budget; None without one."""
    head = [w("plan.budget.whose"), w("plan.budget.of")]
    head += [f"{w(f'plan.{key}')}#" for key in ("col.rounds", "budget.whole", "budget")] + [""]
    body: list[list[Cell]] = []
    for row in plan.get("budgets", []):
        ratio, whole, unit = row["ratio"], row["whole_ratio"], row["unit"]
        said = w("plan.budget.unknown") if ratio is None else w("plan.budget.within")
        if ratio is not None and max(ratio, whole) > 1:
            key = "plan.budget.over" if ratio > 1 else "plan.budget.cut"
            said = w(key, ratio=_three(ratio if ratio > 1 else whole, n))
        need = [
            "–" if row[key] is None else f"{_three(row[key], n)} {unit}"
            for key in ("rounds", "whole")
        ]
        who = row["who"] or w("plan.budget.all")
        body.append(
            [
                who,
                w(f"plan.budget.of.{row['key']}"),
                *need,
                f"{_three(row['limit'], n)} {unit}",
                said,
            ]
        )
    return (
        join(el("p", w("plan.budget.what")), grid(w("plan.budget"), head, body)) if body else None
    )


def _three(value: float, n: Numbers) -> str:
    """Three figures."""
    return n.fixed(value, max(0, 2 - math.floor(math.log10(value)))) if value > 0 else "0"


def _memory(plan: Mapping[str, Any], w: Words, n: Numbers) -> Safe:
    kinds = [m["kind"] for m in plan["participants"][0]["memory"]]
    head = [w("col.participant"), f"{w('plan.have')}#", *[f"{w.reason(kind)}#" for kind in kinds]]
    body: list[list[Cell]] = [
        [
            row["name"],
            n.size(row["memory"][0]["have"]),
            *(f"{n.size(m['need'])}{'' if m['fits'] else ' ✗'}" for m in row["memory"]),
        ]
        for row in plan_rows(plan, w)
    ]
    what = [
        w("plan.memory.what", n=n.size(plan["process_memory"])),
        *(
            [w("plan.memory.card", n=n.size(plan["card_memory"]))]
            if plan.get("card_memory")
            else []
        ),
    ]
    return join(el("p", " ".join(what)), grid(w("plan.memory"), head, body))


def _ways(plan: Mapping[str, Any], w: Words, n: Numbers) -> Safe:
    axes = ", ".join(w(f"plan.axis.{axis}") for axis in plan["axes"])
    head = [
        w("plan.way"),
        w("plan.where"),
        *[f"{w(f'plan.col.{k}')}#" for k in ("texts", "time", "energy", "carbon", "money")],
        "",
    ]
    body: list[list[Cell]] = [
        [
            w(f"plan.way.{o['key']}"),
            o["where"] if o["key"] == "central" else w(f"plan.where.{o['key']}"),
            n.fixed(o["quality"]),
            n.duration(o["seconds"]),
            n.energy(o["joules"]),
            n.mass(o["grams"]),
            n.money(o["money"] or {}),
            w("plan.best") if o["best"] else w("plan.best_of_all") if o["best_of_all"] else "",
        ]
        for o in plan["options"]
    ]
    return join(
        el("p", w("plan.ways.what", axes=axes), class_="lead"),
        figure(
            w("plan.fig"),
            _scatter(plan["options"], w, n),
            legend([("gains", w("plan.best")), ("rejected", w("plan.other"))]),
        ),
        grid(w("plan.ways"), head, body),
    )


def _scatter(options: Sequence[Mapping[str, Any]], w: Words, n: Numbers) -> Safe:
    """Time (across) against energy (up), both logarithmic; filled: in the Pareto set."""
    known = [o for o in options if o["seconds"] > 0 and o["joules"] > 0]
    if not known:
        return Safe("")
    x, y = ([math.log10(o[key]) for o in known] for key in ("seconds", "joules"))

    def place(values: Sequence[float], value: float, length: float) -> float:
        low, high = min(values), max(values)
        return round(EDGE + (value - low) / max(high - low, 1e-9) * (length - 2 * EDGE), 1)

    marks = []
    for o, across, up in zip(known, x, y, strict=True):
        cx, cy = place(x, across, WIDTH), HEIGHT - place(y, up, HEIGHT)
        name = o["where"] if o["key"] == "central" else w(f"plan.way.{o['key']}")
        said = f"{name}: {n.duration(o['seconds'])}, {n.energy(o['joules'])}"
        fill = "currentColor" if o["best"] else "none"
        dot = el("circle", el("title", said), cx=cx, cy=cy, r=5, fill=fill, stroke="currentColor")
        marks.append(
            join(dot, el("text", name, x=cx + 8, y=cy + 4, font_size=11, fill="currentColor"))
        )
    axes = [
        el(
            "text",
            w("plan.fig.x"),
            x=WIDTH - EDGE,
            y=HEIGHT - 6,
            text_anchor="end",
            font_size=12,
            fill="currentColor",
        ),
        el("text", w("plan.fig.y"), x=4, y=14, font_size=12, fill="currentColor"),
        el(
            "path",
            d=f"M{EDGE / 2} 20V{HEIGHT - EDGE / 2}H{WIDTH - 8}",
            fill="none",
            stroke="currentColor",
        ),
    ]
    box = f"0 0 {WIDTH + 90} {HEIGHT}"
    return el(
        "svg", el("title", w("plan.fig")), *axes, *marks, viewBox=box, role="img", width="100%"
    )


def _even(plan: Mapping[str, Any], w: Words, n: Numbers) -> Safe:
    head = [
        w("plan.col.machine"),
        *[f"{w(f'plan.col.{k}')}#" for k in ("rent", "buy", "hours", "runs")],
        w("plan.unsure"),
    ]
    body: list[list[Cell]] = [
        [
            row["device"],
            n.fixed(row["rent"], 2),
            n.fixed(row["buy"]),
            n.fixed(row["hours"]),
            n.fixed(row["runs"]),
            unchecked(row["unsure"], w),
        ]
        for row in plan["break_even"]
    ]
    return join(el("p", w("plan.even.what")), grid(w("plan.even"), head, body))


def _weakest(plan: Mapping[str, Any], w: Words, n: Numbers) -> Safe:
    weak = plan["weakest"]
    if weak is None:
        return el("p", w("none"))
    head = [w("plan.lever"), *[f"{w(f'plan.col.{k}')}#" for k in ("rank", "steps", "round")]]
    body: list[list[Cell]] = [
        [
            w.reason(row["what"]),
            n.fixed(row["rank"]),
            n.fixed(row["steps"]),
            n.duration(row["round_seconds"]),
        ]
        for row in weak["levers"]
    ]
    what = w(
        "plan.weakest.what",
        name=weak["name"],
        rank=n.fixed(weak["rank"]),
        steps=n.fixed(weak["steps"]),
        time=n.duration(weak["round_seconds"]),
        group=n.duration(weak["group_round_seconds"]),
    )
    return join(el("p", what), grid(w("plan.weakest"), head, body) if body else None)


def _after(after: Mapping[str, Any], w: Words, n: Numbers) -> Safe:
    head = [
        w("col.participant"),
        *[f"{w(f'plan.col.{k}')}#" for k in ("predicted", "measured", "ratio", "energy_ratio")],
    ]
    body: list[list[Cell]] = [
        [
            row["name"]
            if row["alike"]
            else under(row["name"], w("plan.cut") if row["cut"] else machines([row["machine"]], w)),
            n.duration(row["predicted"]["work"]),
            n.duration(row["measured"]["work"]),
            *(n.fixed(row[key], 2) if row["alike"] else "–" for key in ("ratio", "joules_ratio")),
        ]
        for row in after["participants"]
    ]
    factors = corrected(after.get("factors", {}), w, lambda factor: n.fixed(factor, 3))
    card = (after.get("card") or {}).get("ratio")
    untaught = not_learnt(after, w)
    return join(
        el(
            "p",
            w(
                "plan.after.what",
                memory=n.fixed(after["memory_ratio"], 2),
                factors=factors or w("none"),
            ),
        ),
        el("p", w("plan.after.card", memory=n.fixed(card, 2))) if card else None,
        el("p", untaught) if untaught else None,
        grid(w("plan.after"), head, body),
    )
