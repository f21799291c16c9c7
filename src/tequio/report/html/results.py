"""Parts 2 to 4 of the report: each participant, equity, and everybody's data."""

from collections.abc import Sequence

from tequio.core.grouping import grouped
from tequio.report.data.participants import MODELS
from tequio.report.data.records import Json
from tequio.report.data.verdicts import VERDICTS
from tequio.report.format import DASH
from tequio.report.html.charts import Axis, Caption, Point, Row, Scale, field, rows, scale
from tequio.report.html.choices import classes_part, notes_part, why_part
from tequio.report.html.contribution import given_and_got
from tequio.report.html.markup import Safe, el, join
from tequio.report.html.page import (
    MANY,
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
from tequio.report.html.verdict import (
    bounds_in_words,
    counts_in_words,
    effect_in_words,
    needed_in_words,
    smallest_in_words,
)
from tequio.report.html.versus_alone import alone_part


def participants(page: Page) -> Safe:
    """Part 2: each participant's verdict, scores, choice, classes, machine and data."""
    w = page.w
    judged = [p for p in page.people if p["outcome"]["effect"]]
    what = w(f"each.what.{page.s['measure']}", versus=page.versus, smallest=smallest_in_words(page))
    parts = (_tests(page), why_part(page), classes_part(page), notes_part(page), _kit(page))
    if not judged:
        return join(opening(w("each.here.none"), what), *parts)
    ordered = sorted(judged, key=lambda p: -p["outcome"]["effect"]["mean"])
    best, worst = ordered[0], ordered[-1]
    values: dict[str, object] = {
        "counts": ", ".join(page.counts().values()),
        "verdict": w(f"verdict.{best['verdict']}"),
        "best": effect_in_words(page, best),
        "best_name": best["name"],
        "worst": effect_in_words(page, worst),
        "worst_name": worst["name"],
    }
    level = best["outcome"]["effect"]["mean"] == worst["outcome"]["effect"]["mean"]
    form = "each.here.one" if len(judged) == 1 else "each.here.level" if level else "each.here"
    here = w(form, **values)
    drawing = (
        _gain_rows(page, ordered) if len(ordered) <= MANY else _gain_field(page, ordered[::-1])
    )
    there = {p["verdict"] for p in judged}
    marks = legend((key, w(f"verdict.{key}")) for key in VERDICTS if key in there)
    chart = figure(w(f"fig.gain.{page.s['measure']}", versus=page.versus), drawing, marks)
    return join(opening(here, what, w("each.not")), chart, *parts)


def _gain_axis(page: Page, people: Sequence[Json]) -> Axis:
    along = scale([v for p in people for v in p["outcome"]["effect"].values()], zero=True)
    points = [page.n.signed(100 * tick, 0 if _step(along) >= 0.999 else 1) for tick in along.ticks]
    labels = points if page.s["measure"] == "accuracy" else percent_labels(page, along, sign=True)
    return Axis(along, labels, (page.w("axis.worse"), page.w("axis.better")))


def _step(along: Scale) -> float:
    return abs(along.ticks[1] - along.ticks[0]) * 100 if len(along.ticks) > 1 else 1.0


def percent_labels(page: Page, along: Scale, sign: bool = False) -> list[str]:
    """Tick labels of shares, with as many decimals as the step needs."""
    step = _step(along)
    digits = 0 if step >= 0.999 else 1 if step >= 0.0999 else 2
    return [page.n.percent(tick, digits, sign=sign) for tick in along.ticks]


def _gain_caption(page: Page) -> Caption:
    title = page.w(f"fig.gain.{page.s['measure']}", versus=page.versus)
    return Caption(
        "c-gain", title, page.w("fig.gain.desc", counts=", ".join(page.counts().values()))
    )


def _gain_rows(page: Page, people: Sequence[Json]) -> Safe:
    effects = [(p, p["outcome"]["effect"]) for p in people]
    items = [
        Row(p["name"], effect_in_words(page, p), [(r["mean"], p["verdict"])], (r["low"], r["high"]))
        for p, r in effects
    ]
    return rows(_gain_caption(page), _gain_axis(page, people), items)


def _gain_field(page: Page, people: Sequence[Json]) -> Safe:
    points = [
        Point(r["mean"], p["verdict"], r["low"], r["high"])
        for p in people
        for r in [p["outcome"]["effect"]]
    ]
    return field(_gain_caption(page), _gain_axis(page, people), points, page.w("axis.participants"))


def _tests(page: Page) -> Safe:
    """The table of results by the leading measure; for many participants the worst tenth first;
    loss folded beside counts.
    """
    w, n = page.w, page.n
    tested = [p for p in page.people if any(p["test"].values())]
    if not tested:
        return Safe("")
    models = [m for m in MODELS if any(p["test"][m] for p in tested)]
    head = [
        w("col.participant"),
        f"{w('col.result')}~",
        f"{w('col.texts')}#",
        *[f"{w(f'short.{m}')}#" for m in models],
    ]
    head += [f"{w('col.difference')}#"]
    title = w("table.test")

    def table(people: Sequence[Json]) -> Safe:
        return grid(title, head, [_test_row(page, p, models) for p in people])

    opened = [el("h3", title), el("p", w(f"table.of.{page.s['measure']}"), class_="under")]
    if any(p["outcome"]["estimated"] for p in tested):
        opened.append(el("p", w("table.estimated"), class_="under"))
    cut = [
        el(
            "p",
            w(f"personal.{cut_to(p)}", name=p["name"], how=w.reason(p["cut"])),
            class_="under",
        )
        for p in tested
        if p["cut"]
    ]
    beside = _by_loss(page, tested, models) if page.s["measure"] == "accuracy" else None
    if len(tested) <= MANY:
        return join(*opened, table(tested), beside, *cut)
    known = sorted(
        (p for p in tested if p["outcome"]["effect"]), key=lambda p: p["outcome"]["effect"]["mean"]
    )
    worst = known[: -(-len(known) // 10)]
    label = w("table.worst", n=n.fixed(len(worst)), of=n.fixed(len(known)))
    every = folded(w("show.all", n=n.fixed(len(tested))), table(tested))
    return join(*opened, el("p", label, class_="under"), table(worst), every, beside, *cut)


def _by_loss(page: Page, people: Sequence[Json], models: Sequence[str]) -> Safe:
    w, n = page.w, page.n
    head = [w("col.participant"), *[f"{w(f'short.{m}')}#" for m in models], f"{w('col.fall')}#"]
    body: list[list[Cell]] = [
        [
            p["name"],
            *[n.fixed((p["test"][model] or {}).get("loss"), 3) for model in models],
            _fall(page, p["gain"]["relative"]),
        ]
        for p in people
    ]
    title = w("table.loss")
    return folded(title, el("p", w("table.loss.what"), class_="under"), grid(title, head, body))


def cut_to(person: Json) -> str:
    """What a budget left:

    `cut` models to compare, a gain over the `base` alone, or none (`short`).
    """
    return "cut" if person["test"]["local"] else "base" if person["versus"] == "base" else "short"


def _test_row(page: Page, p: Json, models: Sequence[str]) -> list[Cell]:
    own = p["verdict"] == "kept_local"
    keeps = page.w("keeps", choice=page.choice(p["chosen"])) if p["chosen"] and not own else None
    said = [part for part in (counts_in_words(page, p), keeps, needed_in_words(page, p)) if part]
    examples = (p["test"]["personal"] or p["test"]["base"] or {}).get("examples")
    main = effect_in_words(page, p)
    return [
        p["name"],
        under(page.verdict(p["verdict"]), ". ".join(said) or None),
        page.n.fixed(examples),
        *(_score(page, p, model) for model in models),
        main if main == DASH else under(main, bounds_in_words(page, p)),
    ]


def _score(page: Page, p: Json, model: str) -> Cell:
    """How many texts are right and their share, or the perplexity."""
    main = page.shown(page.metric(p["test"][model]))
    if page.s["measure"] != "accuracy" or p["right"][model] is None:
        return main
    return under(page.n.fixed(p["right"][model]), main)


def _fall(page: Page, gain: Json | None) -> Cell:
    if not gain:
        return DASH
    low, high = (page.n.bound(100 * gain[k]) for k in ("low", "high"))
    return under(page.share(gain["mean"]), page.n.between(low, high))


def _kit(page: Page) -> Safe:
    w, n = page.w, page.n
    if not page.people:
        return Safe("")
    title = w("table.kit")
    opened = [el("h3", title), el("p", w("kit.note"), class_="under")]
    counts = [f"{w(f'col.{k}')}#" for k in ("train", "validation", "test")]
    head = [
        w("col.participant"),
        f"{w('col.tier')}~",
        f"{w('col.rank')}#",
        f"{w('col.steps')}#",
        *counts,
    ]
    head += [f"{w('col.reason')}~"]
    full = grid(title, head, [_kit_row(page, p) for p in page.people])
    if len(page.people) <= MANY:
        return join(*opened, full)
    groups = grouped(((w.reason(p["tier"]) or DASH, p["rank"]), p) for p in page.people)
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
    return join(
        *opened, grid(title, short, body), folded(w("show.all", n=n.fixed(len(page.people))), full)
    )


def _kit_row(page: Page, p: Json) -> list[Cell]:
    n = page.n
    data = [n.fixed(p["data"][key]) for key in ("train", "validation", "test")]
    return [
        p["name"],
        _tier(page, p),
        n.fixed(p["rank"]),
        n.fixed(p["steps"]),
        *data,
        page.reason(p["reason"]),
    ]


def _tier(page: Page, p: Json) -> Cell:
    """The tier, unless it only says the rank once more, and the machine."""
    machine = _machine(page, p["hardware"])
    known = "" if p["tier"] and p["tier"]["code"] == "tier-rank" else page.w.reason(p["tier"])
    return under(known, machine) if known else machine or DASH


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
    ahead = found["ahead"]
    here = w(
        "fair.here",
        gains=n.fixed(page.s["verdicts"]["gains"]),
        above=n.fixed(ahead["above"]),
        n=n.fixed(sum(page.s["verdicts"][key] for key in VERDICTS)),
        versus=page.versus,
    )
    small = {
        "mean": page.share(found["mean"]),
        "decile": page.share(found["worst_decile"]),
        "gini": n.fixed(found["gini"], 3),
        "jain": n.fixed(found["jain"], 3),
        "spearman": n.signed(found["spearman_rank"], 2),
    }
    stats = [
        stat(w(f"stat.{key}"), value, w(f"stat.{key}.note"))
        for key, value in small.items()
        if value != DASH
    ]
    spread: list[Safe | None] = [
        el("dl", *stats, class_="stats"),
        _rank_rows(page) if found["by_rank"] else None,
    ]
    opened = [opening(f"{here} {_left_behind(page)}", what, w("fair.not")), *spread]
    if page.s["measure"] == "accuracy":
        first = join(el("p", here, class_="lead"), el("p", w("fair.not"), class_="not"))
        opened = [
            first,
            folded(w("fair.loss"), el("p", what), el("p", _left_behind(page)), *spread),
        ]
    return join(*opened, given_and_got(page), alone_part(page))


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
        value = w(
            "fair.rank.value",
            people=page.people_count(level["participants"]),
            mean=page.share(level["mean"]),
        )
        ordered = sorted(here, key=lambda p: p["verdict"] == "loses")  # drawn last: never hidden
        dots = [(p["benefit"], f"{p['verdict'] or 'none'} faint") for p in ordered]
        items.append(
            Row(w("fair.rank", rank=page.n.fixed(level["rank"])), value, dots, None, level["mean"])
        )
    axis = Axis(along, percent_labels(page, along, sign=True), (w("axis.worse"), w("axis.better")))
    caption = Caption("c-fair", w("fig.fair"), w("fig.fair.desc"))
    return figure(w("fig.fair"), rows(caption, axis, items))


EVERYBODY = ("base", "local", "personal", "general", "shared", "pooled")


def everybody(page: Page) -> Safe:
    """Part 4: each model on the test data of all, with the pooled yardstick."""
    s, w, found = page.s, page.w, page.s["everybody"]
    if not found:
        later = s["counterfactuals"] and not s["finished"]
        return opening(w("all.later"), w("all.what")) if later else el("p", w("all.off"))
    values = {model: page.metric(found.get(model)) for model in (*MODELS, "general", "pooled")}
    shown = {model: page.shown(v) for model, v in values.items()}
    here = w(
        "all.here",
        measure=w(f"name.{s['measure']}"),
        **{k: shown[k] for k in ("local", "personal", "shared", "pooled")},
    )
    closed = _closed(page, found)
    if closed is not None and closed > 0:
        here += " " + w("all.closed", closed=page.n.percent(closed, 0))
    spans = {
        m: _span(page, found[m]) for m in ("local", "personal", "general") if values[m] is not None
    }
    styles = {"base": "plain hollow", "local": "plain", "pooled": "plain hollow"}
    items = [
        Row(w(f"model.{m}"), shown[m], [(value, styles.get(m, "gains"))], spans.get(m))
        for m in EVERYBODY
        if (value := values[m]) is not None
    ]
    title = w("fig.all", measure=w(f"measure.{s['measure']}"))
    caption = Caption(
        "c-all",
        title,
        w("fig.all.desc", rows=", ".join(f"{item.label} {item.value}" for item in items)),
    )
    chart = (
        figure(title, rows(caption, _all_axis(page, items), items), _what_each(page, found))
        if items
        else None
    )
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
    known = [m for m in EVERYBODY if found.get(m)]
    items = [el("div", el("dt", w(f"model.{m}")), el("dd", w(f"model.{m}.what"))) for m in known]
    return el("dl", *items, class_="what")
