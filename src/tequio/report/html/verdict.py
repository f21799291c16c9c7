"""A participant's verdict in words: what was counted, how many test texts would tell, what to mind
of its data.
"""

from tequio.report.data.records import Json
from tequio.report.format import DASH
from tequio.report.html.page import Page


def counts_in_words(page: Page, person: Json) -> str | None:
    """'49 of 60 right alone, 46 of 60 with what it keeps'; None where answers are not counted."""
    right, score, versus = person["right"], person["test"]["personal"], person["versus"]
    if page.s["measure"] != "accuracy" or right["personal"] is None:
        return None
    n, after = page.n.fixed(score["examples"]), page.n.fixed(right["personal"])
    before = right.get(versus or "")
    if before is None:
        return page.w("right.one", n=n, after=after)
    return page.w(f"right.{versus}", n=n, after=after, before=page.n.fixed(before))


def needed_in_words(page: Page, person: Json) -> str | None:
    """'About 400 test texts would be needed to show a difference of 4.2 points', where there are
    too few.
    """
    found, n = person["outcome"], page.n
    if found["needed"] is None or found["wanted"] is None:
        return None
    by_loss = found["measure"] == "loss"
    wanted = (
        page.w("percent.loss", n=n.percent(found["wanted"]))
        if by_loss
        else points_in_words(page, found["wanted"])
    )
    return page.w(
        "needed",
        n=n.fixed(found["needed"]),
        unit=page.w(f"unit.{page.s['measure']}"),
        wanted=wanted,
    )


def points_in_words(page: Page, share: float) -> str:
    """'1 point', '4.2 points': a difference of shares, without a sign."""
    points = round(100 * share, 1)
    return page.w.plural("points.plain", 1 if points == 1 else 2, page.n.brief(points))


def effect_in_words(page: Page, person: Json) -> str:
    """The difference with its sign: points of accuracy, or per cent of the loss."""
    found = person["outcome"]
    if not found["effect"]:
        return DASH
    if found["measure"] == "accuracy":
        return page.points(found["effect"]["mean"])
    return page.share(found["effect"]["mean"])


def bounds_in_words(page: Page, person: Json) -> str | None:
    """The interval of the difference: 'low to high', in points or per cent."""
    effect = person["outcome"]["effect"]
    if not effect:
        return None
    low, high = (page.n.bound(100 * effect[end]) for end in ("low", "high"))
    return page.n.between(low, high)


def smallest_in_words(page: Page) -> str:
    """The smallest effect that matters, in the unit of the measure."""
    smallest = page.s["smallest_effect"]
    if page.s["measure"] == "accuracy":
        return points_in_words(page, smallest)
    return page.n.percent(smallest, 0 if smallest >= 0.01 else 1)


def notes_in_words(page: Page, person: Json) -> list[str]:
    """What to mind of a participant's data, one sentence each: rows left out and why, texts cut,
    classes missing or rare.
    """
    w, n, found = page.w, page.n, person["notes"]
    said: list[str] = []
    if found["left_out"]:
        reasons = ", ".join(_reason(page, code, count) for code, count in found["left_out"].items())
        left = n.fixed(sum(found["left_out"].values()))
        said.append(w("notes.rows", left=left, rows=n.fixed(found["rows"]), reasons=reasons))
    of, tokens = n.fixed(found["texts"]), n.fixed(found["max_tokens"])
    cut = [key for key in ("cut", "too_long") if found[key]]
    said += [w(f"notes.{key}", n=n.fixed(found[key]), of=of, tokens=tokens) for key in cut]
    if found["one_class"]:
        said.append(w("notes.one"))
    counts = {
        "missing": found["missing"],
        "untested": found["missing_test"],
        "rare": found["rare_test"],
    }
    said += [
        w.plural(f"notes.{key}", count, n.fixed(count)) for key, count in counts.items() if count
    ]
    return [words[:1].upper() + words[1:] for words in said]


def _reason(page: Page, code: str, count: int) -> str:
    known = code in (
        "conflicting_labels",
        "duplicates",
        "empty",
        "in_two_splits",
        "over_cap",
        "unlabelled",
    )
    shown = page.n.fixed(count)
    return (
        page.w(f"dropped.{code}", n=shown) if known else page.w("dropped.other", n=shown, code=code)
    )


def time_in_words(page: Page) -> str:
    """The time on the clock with the sum of the work apart; the sum alone where the clock's is not
    known.
    """
    cost, n = page.s["cost"], page.n
    work = n.duration(cost["seconds"])
    if cost["elapsed"] is None:
        return page.w("cost.took.work", work=work)
    took = n.duration(cost["elapsed"])
    return (
        page.w("cost.took.alone", time=took)
        if took == work
        else page.w("cost.took", time=took, work=work)
    )
