"""Part 1 of the report: did joining pay, in one sentence and four key figures."""

from __future__ import annotations

from tequio.report.format import DASH
from tequio.report.html.charts import Caption, divided, glyph
from tequio.report.html.markup import Safe, el, join
from tequio.report.html.page import VERDICTS, Page, stat


def headline(page: Page) -> Safe:
    """Part 1: one sentence and four key figures."""
    s, w = page.s, page.w
    here = []
    gain = s["mean"]["gain"]["relative"]
    if gain is not None and abs(gain) >= 0.0005:
        before, after = _before_after(page)
        measure = w(f"name.{s['measure']}")
        here.append(
            w(
                "head.here",
                relative=page.relative(gain),
                versus=page.versus,
                measure=measure,
                before=before,
                after=after,
            )
        )
    if s["kept_local"]:
        here.append(w.plural("head.kept", s["kept_local"], page.n.fixed(s["kept_local"])))
    return join(
        el("p", _sentence(page), class_="verdict"),
        el("dl", *_keys(page), class_="keys"),
        el("p", " ".join(here)) if here else None,
        el("p", w("head.what", versus=page.versus)),
        el("p", w("head.not"), class_="not"),
    )


def _sentence(page: Page) -> str:
    made, stopped = page.s["rounds"]["total"], page.s["rounds"]["stopped"]
    if stopped and not made:
        return page.w("head.unmade", reason=stopped)
    said = page.w("head.stopped", rounds=page.rounds_count(made), reason=stopped) + " " if stopped else ""
    return said + _verdict(page)


def _verdict(page: Page) -> str:
    s, w, n = page.s, page.w, page.n
    counts, known = s["verdicts"], sum(s["verdicts"][k] for k in VERDICTS)
    if not known:
        return w("head.unknown", rounds=page.rounds_count(s["rounds"]["total"]))
    gains, loses, keeps = counts["gains"], counts["loses"], s["kept_local"]
    undecided = max(0, counts["undecided"] - keeps)
    if s["comparison"] == "base":
        return base_sentence(page)
    short = s["not_compared"]
    if gains == known and not short:
        return w("head.one") if known == 1 else w("head.all", n=n.fixed(known))
    if keeps == known and not short:
        return w("head.alone")
    paid = w("head.compared" if short else "head.some", g=n.fixed(gains), n=n.fixed(known))
    parts = [paid if gains else w("head.nobody")]
    if loses:
        parts.append(w.plural("head.loses", loses, n.fixed(loses)))
    if undecided:
        parts.append(w.plural("head.undecided", undecided, n.fixed(undecided)))
    if keeps:
        parts.append(w.plural("head.keeps", keeps, n.fixed(keeps)))
    if short:
        parts.append(w.plural("head.short", short, n.fixed(short)))
    return " ".join(parts)


def base_sentence(page: Page) -> str:
    """How many improved on the base model, where there is no local model to compare with, and why there is none."""
    known = sum(page.s["verdicts"][k] for k in VERDICTS)
    key = "head.base.cut" if page.s["comparison_cut"] else "head.base"
    return page.w(key, g=page.n.fixed(page.s["verdicts"]["gains"]), n=page.n.fixed(known))


def _before_after(page: Page) -> tuple[str, str]:
    means = page.s["mean"][page.s["measure"]]
    return page.shown(means.get(page.s["comparison"])), page.shown(means["personal"])


def _keys(page: Page) -> list[Safe]:
    s, w = page.s, page.w
    counts = page.counts()
    marks = [el("span", glyph(key), counts[key]) for key in VERDICTS]
    desc = ", ".join(counts.values())
    bar = divided(Caption("k1", w("key.who"), desc), [(s["verdicts"][k], k) for k in VERDICTS])
    who: list[object] = [el("dd", DASH, class_="big")]
    if any(s["verdicts"][k] for k in VERDICTS):
        who = [el("dd", *marks, class_="counts"), el("dd", bar)]
    who.append(el("dd", w("key.who.note", versus=page.versus), class_="small"))
    return [
        el("div", el("dt", w("key.who")), *who),
        stat(w("key.gain"), *_key_gain(page)),
        stat(w("key.general"), *_key_general(page)),
        stat(w("key.cost"), *_key_cost(page)),
    ]


def _key_gain(page: Page) -> tuple[str, str]:
    s, w = page.s, page.w
    gain = s["mean"]["gain"]
    if gain["relative"] is None:
        return DASH, w("each.here.none")
    before, after = _before_after(page)
    relative = page.relative(gain["relative"])
    if gain["accuracy"] is None:
        return f"{before} → {after}", f"{w('name.perplexity')}; {w('key.gain.one', relative=relative)}"
    note = w("key.gain.note", measure=w("name.accuracy"), before=before, after=after, relative=relative)
    return page.points(gain["accuracy"]), note


def general_pair(page: Page) -> tuple[str, str, str] | None:
    """(measure, before, after) of the general model in words; None where it has not been measured."""
    found = page.s["general"]
    if not found:
        return None
    before, after = found["mean"]["base"], found["mean"]["shared"]
    if before["accuracy"] is not None and after["accuracy"] is not None:
        return "accuracy", page.n.percent(before["accuracy"]), page.n.percent(after["accuracy"])
    if page.s["measure"] == "perplexity":
        return "perplexity", page.n.perplexity(before["perplexity"]), page.n.perplexity(after["perplexity"])
    return "loss", page.n.fixed(before["loss"], 3), page.n.fixed(after["loss"], 3)


def _key_general(page: Page) -> tuple[str, str]:
    pair = general_pair(page)
    if pair is None:
        return DASH, page.w("key.general.none")
    return f"{pair[1]} → {pair[2]}", page.w(f"key.general.{pair[0]}")


def energy_kind(page: Page) -> str:
    """'estimated, ±40%', 'measured, ±15%' or 'not recorded'."""
    cost = page.s["cost"]
    if cost["joules"] is None:
        return page.w("energy.unknown")
    measured = cost["methods"] and not any(m.startswith("model") for m in cost["methods"])
    key = "energy.measured" if measured else "energy.estimated"
    return page.w(key, width=page.n.percent(cost["uncertainty"], 0))


def _key_cost(page: Page) -> tuple[str, str]:
    cost, n = page.s["cost"], page.n
    note = page.w("key.cost.note", time=n.duration(cost["seconds"]), how=energy_kind(page))
    return n.energy(cost["joules"]), note
