"""Part 1 of the report: did joining pay, in one sentence and four key figures."""

from tequio.report.data.verdicts import VERDICTS
from tequio.report.format import DASH
from tequio.report.html.charts import Caption, divided, glyph
from tequio.report.html.markup import Safe, el, join
from tequio.report.html.page import Page, stat


def headline(page: Page) -> Safe:
    """Part 1: one sentence and four key figures."""
    s, w = page.s, page.w
    here = []
    gain, together = s["mean"]["gain"]["relative"], _right_pair(page)
    if together is not None:
        key = "head.right.base" if s["comparison"] == "base" else "head.right.local"
        here.append(w(key, n=together[0], before=together[1], after=together[2]))
    elif s["measure"] == "perplexity" and gain is not None and abs(gain) >= 0.0005:
        before, after = _before_after(page)
        facts = {
            "relative": page.relative(gain),
            "versus": page.versus,
            "before": before,
            "after": after,
        }
        here.append(w("head.here", measure=w(f"name.{s['measure']}"), **facts))
    return join(
        el("p", _sentence(page), class_="verdict"),
        el("dl", *_keys(page), class_="keys"),
        el("p", " ".join(here)) if here else None,
        el("p", w("head.what", versus=page.versus)),
        el("p", w("head.not"), class_="not"),
    )


def _sentence(page: Page) -> str:
    made, stopped = page.s["rounds"]["total"], page.w.reason(page.s["rounds"]["stopped"])
    if stopped and not made:
        return page.w("head.unmade", reason=stopped)
    said = (
        page.w("head.stopped", rounds=page.rounds_count(made), reason=stopped) + " "
        if stopped
        else ""
    )
    return said + _verdict(page)


def _verdict(page: Page) -> str:
    s, w, n = page.s, page.w, page.n
    counts, known = s["verdicts"], sum(s["verdicts"][k] for k in VERDICTS)
    if not known:
        return w("head.unknown", rounds=page.rounds_count(s["rounds"]["total"]))
    if s["comparison"] == "base":
        return base_sentence(page)
    gains, keeps, short = counts["gains"], counts["kept_local"], s["not_compared"]
    if gains == known and not short:
        return w("head.one") if known == 1 else w("head.all", n=n.fixed(known))
    if keeps == known and not short:
        return w("head.alone")
    paid = w("head.compared" if short else "head.some", g=n.fixed(gains), n=n.fixed(known))
    parts = [paid if gains else w("head.nobody")]
    rest = {
        "loses": counts["loses"],
        "same": counts["no_difference"],
        "few": counts["too_few"],
        "keeps": keeps,
        "short": short,
    }
    parts += [
        w.plural(f"head.{key}", count, n.fixed(count)) for key, count in rest.items() if count
    ]
    return " ".join(parts)


def base_sentence(page: Page) -> str:
    """How many improved on the base model, where there is no local model to compare with, and why
    there is none.
    """
    known = sum(page.s["verdicts"][k] for k in VERDICTS)
    key = "head.base.cut" if page.s["comparison_cut"] else "head.base"
    return page.w(key, g=page.n.fixed(page.s["verdicts"]["gains"]), n=page.n.fixed(known))


def _before_after(page: Page) -> tuple[str, str]:
    means = page.s["mean"][page.s["measure"]]
    return page.shown(means.get(page.s["comparison"])), page.shown(means["personal"])


def _keys(page: Page) -> list[Safe]:
    s, w = page.s, page.w
    counts = page.counts()
    marks = [el("span", glyph(key), words) for key, words in counts.items()]
    bar = divided(
        Caption("k1", w("key.who"), ", ".join(counts.values())),
        [(s["verdicts"][k], k) for k in VERDICTS],
    )
    who: list[object] = [el("dd", DASH, class_="big")]
    if any(s["verdicts"][k] for k in VERDICTS):
        who = [el("dd", *marks, class_="counts"), el("dd", bar)]
    who.append(el("dd", w("key.who.note", versus=page.versus), class_="small"))
    return [
        el("div", el("dt", w("key.who")), *who),
        stat(*_key_gain(page)),
        stat(w("key.general"), *_key_general(page)),
        stat(w("key.cost"), *_key_cost(page)),
    ]


def _right_pair(page: Page) -> tuple[str, str, str] | None:
    """(test texts, right with the other model, right with what is kept), of all participants;

    None where not counted.
    """
    found, n = page.s["mean"]["right"], page.n
    if page.s["measure"] != "accuracy" or not found:
        return None
    before, after = found.get(page.s["comparison"]), found["personal"]
    return (
        None
        if before is None or after is None
        else (n.fixed(found["examples"]), n.fixed(before), n.fixed(after))
    )


def _key_gain(page: Page) -> tuple[str, str, str]:
    s, w = page.s, page.w
    gain, together = s["mean"]["gain"]["relative"], _right_pair(page)
    if together is not None:
        key = "key.right.base" if s["comparison"] == "base" else "key.right.local"
        return w(key), f"{together[1]} → {together[2]}", w("key.right.note", n=together[0])
    if gain is None:
        return w("key.gain"), DASH, w("each.here.none")
    before, after = _before_after(page)
    one, measure = w("key.gain.one", relative=page.relative(gain)), w(f"name.{s['measure']}")
    return w("key.gain"), f"{before} → {after}", f"{measure}; {one}"


def general_pair(page: Page) -> tuple[str, str, str] | None:
    """(measure, before, after) of the general model in words;

    None where it has not been measured.
    """
    found = page.s["general"]
    if not found:
        return None
    before, after = found["mean"]["base"], found["mean"]["shared"]
    if before["accuracy"] is not None and after["accuracy"] is not None:
        return "accuracy", page.n.percent(before["accuracy"]), page.n.percent(after["accuracy"])
    if page.s["measure"] == "perplexity":
        return (
            "perplexity",
            page.n.perplexity(before["perplexity"]),
            page.n.perplexity(after["perplexity"]),
        )
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
    known = cost["elapsed"] is not None
    time = n.duration(cost["elapsed"] if known else cost["seconds"])
    note = page.w("key.cost.note" if known else "key.cost.work", time=time, how=energy_kind(page))
    return n.energy(cost["joules"]), note
