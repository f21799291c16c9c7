"""Parts 2 to 4 of the report: each participant, equity, and everybody's data."""

from __future__ import annotations

from collections.abc import Sequence

from tequio.report.data.participants import MODELS
from tequio.report.data.records import Json
from tequio.report.format import DASH
from tequio.report.html.charts import Axis, Caption, Point, Row, Scale, field, rows, scale
from tequio.report.html.contribution import given_and_got
from tequio.report.html.markup import Safe, el, join
from tequio.report.html.page import (
    MANY,
    VERDICTS,
    Cell,
    Page,
    figure,
    folded,
    grid,
    legend,
    opening,
    stat,
    under,
)
from tequio.report.html.versus_alone import alone_part


def participants(page: Page) -> Safe:
    """Part 2: each participant's gain, scores, machine and data."""
    w = page.w
    judged = [p for p in page.people if p["gain"]["relative"]]
    what = w("each.what", versus=page.versus)
    if not judged:
        return join(opening(w("each.here.none"), what), _tests(page), _kit(page))
    ordered = sorted(judged, key=lambda p: -p["gain"]["relative"]["mean"])
    best, worst = ordered[0], ordered[-1]
    values: dict[str, object] = {
        **page.counts(),
        "verdict": w(f"verdict.{best['verdict']}"),
        "best": page.share(best["gain"]["relative"]["mean"]),
        "best_name": best["name"],
        "worst": page.share(worst["gain"]["relative"]["mean"]),
        "worst_name": worst["name"],
    }
    key = "each.here.one" if len(judged) == 1 else "each.here"
    if len(judged) > 1 and values["best"] == values["worst"]:
        key = "each.here.same"
    here = w(key, **values)
    drawing = _gain_rows(page, ordered) if len(ordered) <= MANY else _gain_field(page, ordered[::-1])
    marks = legend((key, w(f"verdict.{key}")) for key in VERDICTS)
    chart = figure(w("fig.gain", versus=page.versus), drawing, marks)
    return join(opening(here, what, w("each.not")), chart, _tests(page), _kit(page))


def _gain_axis(page: Page, people: Sequence[Json]) -> Axis:
    bounds = [v for p in people for v in p["gain"]["relative"].values()]
    along = scale(bounds, zero=True)
    labels = percent_labels(page, along, sign=True)
    return Axis(along, labels, (page.w("axis.worse"), page.w("axis.better")))


def percent_labels(page: Page, along: Scale, sign: bool = False) -> list[str]:
    """Tick labels of shares, with as many decimals as the step needs."""
    step = abs(along.ticks[1] - along.ticks[0]) * 100 if len(along.ticks) > 1 else 1.0
    digits = 0 if step >= 0.999 else 1 if step >= 0.0999 else 2
    return [page.n.percent(tick, digits, sign=sign) for tick in along.ticks]


def _gain_caption(page: Page) -> Caption:
    title = page.w("fig.gain", versus=page.versus)
    return Caption("c-gain", title, page.w("fig.gain.desc", **page.counts()))


def _gain_rows(page: Page, people: Sequence[Json]) -> Safe:
    items = []
    for p in people:
        r = p["gain"]["relative"]
        dots = [(r["mean"], p["verdict"])]
        items.append(Row(p["name"], page.share(r["mean"]), dots, (r["low"], r["high"])))
    return rows(_gain_caption(page), _gain_axis(page, people), items)


def _gain_field(page: Page, people: Sequence[Json]) -> Safe:
    points = [Point(r["mean"], p["verdict"], r["low"], r["high"]) for p in people for r in [p["gain"]["relative"]]]
    return field(_gain_caption(page), _gain_axis(page, people), points, page.w("axis.participants"))


def _tests(page: Page) -> Safe:
    """The table of scores; for many participants the worst tenth first."""
    w, n = page.w, page.n
    tested = [p for p in page.people if any(p["test"].values())]
    if not tested:
        return Safe("")
    accuracy = any(p["gain"]["accuracy"] for p in tested)
    models = [m for m in MODELS if any(p["test"][m] for p in tested)]
    head = [w("col.participant"), w("col.result"), *[f"{w(f'short.{m}')}#" for m in models]]
    head += [f"{w('col.gain.loss')}#", *([f"{w('col.gain.accuracy')}#"] if accuracy else [])]
    title = w("table.test")

    def table(people: Sequence[Json]) -> Safe:
        return grid(title, head, [_test_row(page, p, models, accuracy) for p in people])

    opened = [el("h3", title), el("p", w(f"table.test.{page.s['measure']}"), class_="under")]
    cut = [
        el(
            "p",
            w(f"personal.{cut_to(p)}", name=p["name"], how=str(p["cut"])),
            class_="under",
        )
        for p in tested
        if p["cut"]
    ]
    if len(tested) <= MANY:
        return join(*opened, table(tested), *cut)
    known = sorted((p for p in tested if p["benefit"] is not None), key=lambda p: p["benefit"])
    worst = known[: -(-len(known) // 10)]
    label = w("table.worst", n=n.fixed(len(worst)), of=n.fixed(len(known)))
    every = folded(w("show.all", n=n.fixed(len(tested))), table(tested))
    return join(*opened, el("p", label, class_="under"), table(worst), every, *cut)


def cut_to(person: Json) -> str:
    """What a budget left: `cut` models to compare, a gain over the `base` alone, or none (`short`)."""
    return "cut" if person["test"]["local"] else "base" if person["versus"] == "base" else "short"


def _test_row(page: Page, p: Json, models: Sequence[str], accuracy: bool) -> list[Cell]:
    keeps = page.w("keeps", choice=page.choice(p["chosen"])) if p["chosen"] else None
    if p["accuracy_against"] is not None:
        key = "against.fell" if p["accuracy_against"] < 0 else "against.rose"
        against = page.w(key, points=page.n.fixed(100 * abs(p["accuracy_against"]), 1))
        keeps = against if keeps is None else f"{keeps}; {against}"
    row: list[Cell] = [p["name"], under(page.verdict(p["verdict"]), keeps)]
    row += [_score(page, p["test"][model]) for model in models]
    row.append(_gain(page, p["gain"]["relative"], points=False))
    if accuracy:
        row.append(_gain(page, p["gain"]["accuracy"], points=True))
    return row


def _score(page: Page, score: Json | None) -> Safe:
    main = page.shown(page.metric(score))
    if not score or score["accuracy_low"] is None or page.s["measure"] != "accuracy":
        return under(main, None)
    low, high = (page.n.fixed(100 * score[k], 1) for k in ("accuracy_low", "accuracy_high"))
    return under(main, page.n.between(low, high))


def _gain(page: Page, gain: Json | None, points: bool) -> Safe:
    if not gain:
        return Safe(DASH)
    low, high = (page.n.bound(100 * gain[k]) for k in ("low", "high"))
    main = page.n.signed(100 * gain["mean"]) if points else page.share(gain["mean"])
    return under(main, page.n.between(low, high))


def _kit(page: Page) -> Safe:
    w, n = page.w, page.n
    if not page.people:
        return Safe("")
    title = w("table.kit")
    opened = [el("h3", title), el("p", w("kit.note"), class_="under")]
    opened += [el("p", said, class_="under") for said in shortened(page)]
    counts = [f"{w(f'col.{k}')}#" for k in ("train", "validation", "test")]
    head = [w("col.participant"), w("col.tier"), f"{w('col.rank')}#", f"{w('col.steps')}#", *counts]
    head += [f"{w('col.reason')}~"]
    full = grid(title, head, [_kit_row(page, p) for p in page.people])
    if len(page.people) <= MANY:
        return join(*opened, full)
    groups: dict[tuple[str, float | None], list[Json]] = {}
    for p in page.people:
        groups.setdefault((str(p["tier"] or DASH), p["rank"]), []).append(p)
    short = [
        w("col.tier"),
        f"{w('col.rank')}#",
        f"{w('col.number')}#",
        f"{w('col.steps')}#",
        f"{w('col.train')}#",
    ]
    body: list[list[Cell]] = []
    for (tier, rank), members in sorted(groups.items(), key=lambda g: (g[0][1] or 0, g[0][0])):
        steps = [p["steps"] for p in members if p["steps"] is not None]
        span = n.between(n.fixed(min(steps)), n.fixed(max(steps))) if steps else DASH
        trained = sum(p["data"]["train"] or 0 for p in members)
        body.append([tier, n.fixed(rank), n.fixed(len(members)), span, n.fixed(trained)])
    return join(*opened, grid(title, short, body), folded(w("show.all", n=n.fixed(len(page.people))), full))


def shortened(page: Page) -> list[str]:
    """Return a sentence per participant that lost texts, or parts of them, at max_tokens."""
    said, n = [], page.n
    for p in page.people:
        found = p["shortened"]
        for key in ("cut", "too_long"):
            if found[key]:
                count = {"n": n.fixed(found[key]), "of": n.fixed(found["of"]), "tokens": n.fixed(page.s["max_tokens"])}
                said.append(page.w(f"texts.{key}", name=p["name"], **count))
    return said


def _kit_row(page: Page, p: Json) -> list[Cell]:
    n = page.n
    data = [n.fixed(p["data"][key]) for key in ("train", "validation", "test")]
    return [
        p["name"],
        under(str(p["tier"] or DASH), _machine(page, p["hardware"])),
        n.fixed(p["rank"]),
        n.fixed(p["steps"]),
        *data,
        page.quoted("reason", p["reason"]),
    ]


def _machine(page: Page, hardware: object) -> str:
    if not isinstance(hardware, dict):
        return str(hardware or "")
    known = {
        "tokens_per_second": "kit.speed",
        "uplink_mbit": "kit.uplink",
        "memory_gib": "kit.memory",
        "max_rank": "kit.max_rank",
    }
    parts = []
    for key, value in hardware.items():
        if key in known and isinstance(value, (int, float)):
            parts.append(page.w(known[key], n=page.n.brief(value)))
        elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
            parts.append(str(value) if isinstance(value, str) else f"{key} {page.n.brief(value)}")
    return " · ".join(parts)


def equity(page: Page) -> Safe:
    """Part 3: how evenly the benefit is spread, and whether weak machines were left behind."""
    w, n, found = page.w, page.n, page.s["equity"]
    what = w("fair.what", versus=page.versus)
    if not found["participants"]:
        return opening(w("fair.none"), what)
    here = w(
        "fair.here",
        positive=n.percent(found["share_positive"], 0),
        mean=page.share(found["mean"]),
        decile=page.share(found["worst_decile"]),
    )
    small = {
        "decile": page.share(found["worst_decile"]),
        "positive": n.percent(found["share_positive"], 0),
        "gini": n.fixed(found["gini"], 3),
        "jain": n.fixed(found["jain"], 3),
        "spearman": n.signed(found["spearman_rank"], 2),
    }
    stats = [stat(w(f"stat.{key}"), value, w(f"stat.{key}.note")) for key, value in small.items()]
    return join(
        opening(f"{here} {_left_behind(page)}", what, w("fair.not")),
        el("dl", *stats, class_="stats"),
        _rank_rows(page) if found["by_rank"] else None,
        given_and_got(page),
        alone_part(page),
    )


def _left_behind(page: Page) -> str:
    found = page.s["equity"]
    if found["left_behind"] is None:
        return page.w("fair.same")
    return page.w(
        f"fair.{found['left_behind']}",
        rho=page.n.signed(found["spearman_rank"], 2),
        low=page.share(found["by_rank"][0]["mean"]),
        high=page.share(found["by_rank"][-1]["mean"]),
    )


def _rank_rows(page: Page) -> Safe:
    w = page.w
    known = [p for p in page.people if p["benefit"] is not None and p["rank"] is not None]
    along = scale([p["benefit"] for p in known], zero=True)
    items = []
    for level in page.s["equity"]["by_rank"]:
        here = [p for p in known if p["rank"] == level["rank"]]
        value = w("fair.rank.value", people=page.people_count(level["participants"]), mean=page.share(level["mean"]))
        ordered = sorted(here, key=lambda p: p["verdict"] == "loses")  # drawn last: never hidden
        dots = [(p["benefit"], f"{p['verdict'] or 'none'} faint") for p in ordered]
        items.append(Row(w("fair.rank", rank=page.n.fixed(level["rank"])), value, dots, None, level["mean"]))
    axis = Axis(along, percent_labels(page, along, sign=True), (w("axis.worse"), w("axis.better")))
    caption = Caption("c-fair", w("fig.fair"), w("fig.fair.desc"))
    return figure(w("fig.fair"), rows(caption, axis, items))


def everybody(page: Page) -> Safe:
    """Part 4: each model on the test data of all, with the pooled yardstick."""
    s, w, found = page.s, page.w, page.s["everybody"]
    if not found:
        later = s["counterfactuals"] and not s["finished"]
        return opening(w("all.later" if later else "all.off"), w("all.what"))
    measure = w(f"name.{s['measure']}")
    values = {model: page.metric(found[model]) for model in (*MODELS, "pooled")}
    shown = {model: page.shown(v) for model, v in values.items()}
    here = w("all.here", measure=measure, **{k: shown[k] for k in ("local", "personal", "shared", "pooled")})
    closed = _closed(page, found)
    if closed is not None and closed > 0:
        here += " " + w("all.closed", closed=page.n.percent(closed, 0))
    items, described = [], []
    for model in ("base", "local", "personal", "shared", "pooled"):
        value = values[model]
        if value is None:
            continue
        span = _span(page, found[model]) if model in ("local", "personal") else None
        style = {"base": "plain hollow", "local": "plain", "pooled": "plain hollow"}.get(model, "gains")
        items.append(Row(w(f"model.{model}"), shown[model], [(value, style)], span))
        described.append(f"{w(f'model.{model}')} {shown[model]}")
    title = w("fig.all", measure=w(f"measure.{s['measure']}"))
    caption = Caption("c-all", title, w("fig.all.desc", rows=", ".join(described)))
    chart = figure(title, rows(caption, _all_axis(page, items), items), _what_each(page, found)) if items else None
    return join(opening(here, w("all.what"), w("all.not")), chart)


def _span(page: Page, found: Json) -> tuple[float, float] | None:
    low, high = (found[f"{page.s['measure']}_{end}"] for end in ("low", "high"))
    return None if low is None or high is None else (low, high)


def _closed(page: Page, found: Json) -> float | None:
    key = "accuracy" if page.s["measure"] == "accuracy" else "loss"
    local, shared, pooled = ((found[m] or {}).get(key) for m in ("local", "shared", "pooled"))
    if local is None or shared is None or pooled is None:
        return None
    way = (pooled - local) * (1 if key == "accuracy" else -1)
    return float((shared - local) / (pooled - local)) if way > 1e-3 else None


def _all_axis(page: Page, items: Sequence[Row]) -> Axis:
    values = [v for item in items for v in (*[d for d, _ in item.dots], *(item.line or ()))]
    along = scale(values)
    if page.s["measure"] == "accuracy":
        return Axis(along, percent_labels(page, along), ("", page.w("axis.better")))
    return Axis(along, [page.n.brief(t) for t in along.ticks], (page.w("axis.better.left"), ""))


def _what_each(page: Page, found: Json) -> Safe:
    w = page.w
    known = [m for m in ("base", "local", "personal", "shared", "pooled") if found[m]]
    items = [el("div", el("dt", w(f"model.{m}")), el("dd", w(f"model.{m}.what"))) for m in known]
    return el("dl", *items, class_="what")
