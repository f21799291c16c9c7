"""Parts 5, 6, 8 and 9 of the report: the rounds, general ability, origin and proof, limits."""

from collections import Counter
from collections.abc import Sequence

from tequio.core.grouping import grouped
from tequio.core.texts.words import Words
from tequio.report.data.records import Json
from tequio.report.format import DASH
from tequio.report.html.charts import Axis, Caption, Curves, Point, curves, scale
from tequio.report.html.headline import general_pair
from tequio.report.html.markup import Safe, el, join
from tequio.report.html.page import MANY, Cell, Page, figure, folded, grid, legend, opening, under
from tequio.report.html.verdict import points_in_words


def rounds(page: Page) -> Safe:
    """Part 5: the validation loss round by round."""
    w, n, found = page.w, page.n, page.s["rounds"]
    if not found["total"]:
        return opening(w("curve.none"), w("curve.what"))
    limit = f"{w('curve.rejected')} {w('curve.not')}" if found["rejected"] else w("curve.not")
    before, best = found["start"]["loss"], _best_loss(found)
    change = None if not before or best is None else (before - best) / before
    here = w(
        "curve.here",
        first=n.fixed(before, 3),
        best=n.fixed(best, 3),
        round=n.fixed(found["best"]),
        change=page.relative(change),
        rounds=page.rounds_count(found["total"]),
        accepted=n.fixed(found["accepted"]),
        rejected=n.fixed(found["rejected"]),
    )
    masked = el("p", w("curve.masked")) if page.s["masked"] else None
    return join(
        opening(here, w("curve.what"), limit),
        masked,
        _between_peers(page),
        _curve(page),
        _round_table(page),
    )


def _between_peers(page: Page) -> Safe | None:
    """That there was no coordinator, and how far the models lie apart."""
    w, found = page.w, page.s["peers"]
    if not found:
        return None
    words = w(
        "curve.peers",
        graph=w(f"graph.{found['kind']}"),
        disagreement=page.n.percent(found["disagreement"]),
    )
    return el("p", words)


def _best_loss(found: Json) -> float | None:
    made = [{"round": 0, **found["start"]}, *found["history"]]
    return next((r["loss"] for r in made if r["round"] == found["best"]), None)


def _curve(page: Page) -> Safe:
    w, n, found = page.w, page.n, page.s["rounds"]
    start, accepted = found["start"], [r for r in found["history"] if r["accepted"]]
    drawn = [(0, Point(start["loss"], "gains"))] if start["loss"] is not None else []
    drawn += [
        (r["round"], Point(r["loss"], "gains" if r["accepted"] else "rejected"))
        for r in found["history"]
        if r["loss"] is not None
    ]
    if not drawn:
        return Safe("")
    stages = [(0, start["participants"]), *[(r["round"], r["participants"]) for r in accepted]]
    lines = grouped(
        (name, (round_, loss))
        for round_, losses in stages
        for name, loss in losses.items()
        if loss is not None
    )
    band = _band(lines) if len(lines) > MANY else []
    thin = [] if band else list(lines.values())
    values = [p.value for _, p in drawn if p.style != "rejected"] or [drawn[0][1].value]
    values += [v for line in thin for _, v in line] + [v for _, *both in band for v in both]
    up = scale(values)
    digits = (
        1
        if up.ticks[1] - up.ticks[0] >= 0.0999
        else 2
        if up.ticks[1] - up.ticks[0] >= 0.00999
        else 3
    )
    best = (
        None if found["best"] is None else (found["best"], w("axis.best", n=n.fixed(found["best"])))
    )
    desc = w(
        "fig.curve.desc",
        first=n.fixed(drawn[0][1].value, 3),
        last=n.fixed(drawn[-1][1].value, 3),
        best=n.fixed(found["best"]),
        rejected=n.fixed(found["rejected"]),
    )
    marks = [
        ("mean", w("legend.mean")),
        *([("rejected", w("legend.rejected"))] if found["rejected"] else []),
    ]
    if lines:  # none where rounds were masked
        marks.append(("band", w("legend.band")) if band else ("thin", w("legend.each")))
    drawing = curves(
        Caption("c-curve", w("fig.curve"), desc),
        Axis(up, [n.fixed(t, digits) for t in up.ticks]),
        Curves(drawn, thin, band, best, w("axis.round")),
    )
    return figure(w("fig.curve"), drawing, legend(marks))


def _band(lines: dict[str, list[tuple[int, float]]]) -> list[tuple[int, float, float]]:
    """(round, 10th, 90th percentile) of the participants, by nearest rank."""
    at = grouped(place for line in lines.values() for place in line)
    return [
        (r, sorted(v)[round(0.1 * (len(v) - 1))], sorted(v)[round(0.9 * (len(v) - 1))])
        for r, v in sorted(at.items())
    ]


def _round_table(page: Page) -> Safe:
    w, n = page.w, page.n
    head = [
        f"{w('col.round')}",
        f"{w('col.loss')}#",
        w("col.decision"),
        f"{w('col.reason')}~",
        f"{w('col.time')}#",
    ]
    body: list[list[Cell]] = [
        [
            n.fixed(r["round"]),
            n.fixed(r["loss"], 3),
            w("round.accepted" if r["accepted"] else "round.rejected"),
            page.reason(r["reason"]),
            n.duration(r["seconds"]),
        ]
        for r in page.s["rounds"]["history"]
    ]
    refused = [
        row for row, r in zip(body, page.s["rounds"]["history"], strict=True) if not r["accepted"]
    ]
    return join(
        grid(w("legend.rejected"), head, refused) if refused else None,
        folded(w("show.rounds"), grid(w("curve.title"), head, body)),
    )


def general(page: Page) -> Safe:
    """Part 6: public slices before and after, and the gate."""
    w, n, found = page.w, page.n, page.s["general"]
    pair = general_pair(page)
    here = w("general.none")
    if (
        not found
        and not page.s["public_slices"]
        and not any(r["gate"] for r in page.s["rounds"]["history"])
    ):
        return el("p", w("general.off"))
    if found and pair:
        here = w(
            "general.here",
            before=pair[1],
            after=pair[2],
            measure=w(f"name.{pair[0]}"),
            worse=w.plural("general.worse", found["worse"], n.fixed(found["worse"])),
        )
    seen = [
        f"{page.slice(name)} {_size(page, one)}"
        for name, one in (found or {"slices": {}})["slices"].items()
        if one["detectable"]
    ]
    if seen:
        here += " " + w("general.smallest", falls=", ".join(seen))
    return join(opening(here, w("general.what"), w("general.not")), _slices(page), _gates(page))


def _size(page: Page, one: Json) -> str:
    """A change of a slice, without a sign: points of accuracy, or loss."""
    if (one["base"] or {}).get("accuracy") is None:
        return f"{page.n.fixed(one['detectable'], 3)} ({page.w('name.loss')})"
    return points_in_words(page, one["detectable"])


def _slices(page: Page) -> Safe:
    w, n, found = page.w, page.n, page.s["general"]
    if not found:
        return Safe("")
    head = [w("col.slice"), *[f"{w(f'col.{k}')}#" for k in ("before", "after", "gain", "examples")]]
    body: list[list[Cell]] = []
    for name, one in found["slices"].items():
        base, shared, gain = one["base"] or {}, one["shared"] or {}, one["gain"]
        accuracy = base.get("accuracy") is not None
        both = [
            n.percent(x.get("accuracy")) if accuracy else n.fixed(x.get("loss"), 3)
            for x in (base, shared)
        ]
        body.append(
            [page.slice(name), *both, _change(page, gain, accuracy), n.fixed(base.get("examples"))]
        )
    return join(el("h3", w("table.general")), grid(w("table.general"), head, body))


def _change(page: Page, gain: Json | None, accuracy: bool) -> Safe:
    if not gain:
        return Safe(DASH)
    times, digits = (100, 1) if accuracy else (1, 3)
    mean, low, high = (page.n.signed(times * gain[k], digits) for k in ("mean", "low", "high"))
    return under(page.w("points", n=mean) if accuracy else mean, page.n.between(low, high))


def _gates(page: Page) -> Safe:
    w, found = page.w, page.s["rounds"]
    judged = [r for r in found["history"] if r["gate"]]
    if not judged:
        return Safe("")
    best = next((r for r in judged if r["round"] == found["best"]), None)
    rejected = [r for r in judged if not r["accepted"] and r is not best]
    opened = _gate(page, best or judged[-1])
    rest = [_gate(page, r) for r in rejected if best or r is not judged[-1]]
    return join(
        opened[0],
        el("p", w("gate.smallest"), class_="under"),
        opened[1],
        folded(w("show.gates"), *[part for gate in rest for part in gate]) if rest else None,
    )


def _gate(page: Page, round_: Json) -> tuple[Safe, Safe]:
    """The title and the table of the gate of one round."""
    w, n = page.w, page.n
    head = [
        w("col.slice"),
        *[f"{w(f'col.{k}')}#" for k in ("before", "after", "change", "limit", "detectable")],
    ]
    body: list[list[Cell]] = []
    for name, g in round_["gate"].items():
        known = g["low"] is not None and g["high"] is not None
        span = n.between(n.signed(g["low"], 3), n.signed(g["high"], 3)) if known else None
        change = under(n.signed(g["change"], 3), span)
        limits = [n.signed(g[key], 3) for key in ("limit", "detectable")]
        body.append(
            [page.slice(name), n.fixed(g["base"], 3), n.fixed(g["candidate"], 3), change, *limits]
        )
    decision = w("round.accepted" if round_["accepted"] else "round.rejected")
    title = f"{w('table.gate', n=n.fixed(round_['round']))} ({decision})"
    return el("h3", title), grid(title, head, body)


def origin(page: Page) -> Safe:
    """Part 8: provenance, licences, what was refused, fingerprints."""
    s, w, n = page.s, page.w, page.n
    lost = sum(len(row["rounds"]) for row in s["refused"])
    here = w(
        "origin.here",
        records=n.fixed(s["chain"]["records"]),
        refused=w.plural("origin.refused", lost, n.fixed(lost)),
    )
    head = [w("col.name"), w("col.version"), w("col.licence"), f"{w('col.note')}~"]
    return join(
        opening(here, w("origin.what"), w("origin.not")),
        el("h3", w("table.origin")),
        grid(w("table.origin"), head, _sources(page)),
        _refused(page),
        _alarms(page),
        el("h3", w("table.digests")),
        grid(w("table.digests"), [w("col.what"), w("col.digest")], _digests(page)),
        el("p", w("origin.verify")),
        el(
            "pre",
            el("code", "tequio verify RUN"),
            Safe("\n"),
            el("code", s["chain"]["last_hash"] or DASH),
        ),
        _ended(page),
    )


def _ended(page: Page) -> Safe | None:
    reason = page.s["rounds"]["reason"]
    return el("p", page.w("end.reason", reason=page.w.reason(reason))) if reason else None


def _sources(page: Page) -> list[list[Cell]]:
    s, w, n = page.s, page.w, page.n
    base = s["base"]
    note = w("base.note", n=n.fixed(base.get("parameters")), dtype=base.get("dtype") or DASH)
    out: list[list[Cell]] = [[page.model, DASH, str(base.get("licence") or DASH), note]]
    for item in s["provenance"]:
        name, version, licence = (str(item.get(k) or DASH) for k in ("name", "version", "licence"))
        out.append([name, version, licence, _note(item, w) or DASH])
    licences = Counter(str(p["licence"]) for p in page.people if p["licence"])
    private = w("origin.private")
    return out + [
        [private, DASH, licence, page.people_count(count)] for licence, count in licences.items()
    ]


def _note(item: Json, w: Words) -> str:
    """What a provenance record says, under whichever of these names."""
    return " ".join(
        f"{w.reason(item[k]).strip('“”.')}."
        for k in ("note", "used_for", "upstream")
        if item.get(k)
    )


def _refused(page: Page) -> Safe:
    w = page.w
    title = el("h3", w("table.refused"))
    found = page.s["refused"]
    if not found:
        return join(title, el("p", w("none")))
    head = [w("col.participant"), w("col.status"), w("col.rounds"), f"{w('col.reason')}~"]
    body: list[list[Cell]] = [
        [
            row["name"],
            w.name("status", row["status"]),
            _spans(row["rounds"]),
            page.reason(row["reason"]),
        ]
        for row in found
    ]
    shown = grid(w("table.refused"), head, body[:MANY])
    rest = folded(
        w("show.more", n=page.n.fixed(len(body) - MANY)),
        grid(w("table.refused"), head, body[MANY:]),
    )
    return join(title, shown, rest if len(body) > MANY else None)


def _alarms(page: Page) -> Safe | None:
    """What screening noted; nothing where it noted nothing."""
    w, n, found = page.w, page.n, page.s["alarms"]
    if not found:
        return None
    head = [
        w("col.participant"),
        w("col.alarm"),
        w("col.rounds"),
        f"{w('col.figure')}#",
        f"{w('col.limit')}#",
        w("col.done"),
    ]
    body: list[list[Cell]] = [
        [
            row["name"],
            w.name("alarm", row["alarm"]),
            _spans(row["rounds"]),
            n.fixed(row["figure"], 3),
            n.fixed(row["limit"], 3),
            w.name("action", row["action"]),
        ]
        for row in found
    ]
    title = w("table.alarms")
    shown, rest = grid(title, head, body[:MANY]), body[MANY:]
    more = folded(w("show.more", n=n.fixed(len(rest))), grid(title, head, rest)) if rest else None
    return join(el("h3", title), el("p", w("alarms.what")), shown, more)


def _spans(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 as '1–3, 7'."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][-1] + 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    return ", ".join("–".join(str(x) for x in span) for span in spans)


def _digests(page: Page) -> list[list[Cell]]:
    s, w, chain = page.s, page.w, page.s["chain"]
    best = s["rounds"]["best"]
    shared = next((r["digest"] for r in s["rounds"]["history"] if r["round"] == best), None)
    pairs = [
        (w("digest.algorithm"), chain["algorithm"]),
        (w("digest.config"), chain["config"]),
        (w("digest.spec"), chain["spec"]),
        (w("digest.base"), s["base"].get("digest")),
        (w("digest.shared", n=page.n.fixed(best)), shared),
        (w("digest.outcome"), chain["outcome"]),
        (w("digest.last"), chain["last_hash"]),
    ]
    return [[what, el("code", str(digest))] for what, digest in pairs if digest]


def limits(page: Page) -> Safe:
    """Part 9: what the numbers do not show."""
    s, w, n = page.s, page.w, page.n
    tests = [p["test"]["base"]["examples"] for p in page.people if p["test"]["base"]]
    smallest = min((t for t in tests if t is not None), default=None)
    keys = ("data", "use", "privacy", "energy", "simulation" if s["simulation"] else "claims")
    items = [
        w("limits.seed", seed=n.plain(s["seed"])),
        *([] if smallest is None else [w("limits.small", n=n.fixed(smallest))]),
        *(w(f"limits.{key}") for key in keys),
    ]
    return join(
        el("p", w("limits.lead"), class_="lead"),
        el("ul", *[el("li", item) for item in items], class_="limits"),
    )
