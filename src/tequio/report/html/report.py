"""The report of a run as one offline HTML file: masthead, nine parts, style sheet.

No script, no network.
"""

from collections.abc import Sequence
from importlib.resources import files

from tequio.core.texts.words import Lang, Words
from tequio.report.data.records import Record
from tequio.report.data.summary import summary
from tequio.report.format import DASH, Numbers
from tequio.report.html import cost, evidence, results
from tequio.report.html.headline import headline
from tequio.report.html.markup import Safe, el, join
from tequio.report.html.page import Page, part

__all__ = ["render", "summary"]

PARTS = (
    ("joining", "head.nav", headline),
    ("participants", "each.title", results.participants),
    ("equity", "fair.title", results.equity),
    ("everybody", "all.title", results.everybody),
    ("rounds", "curve.title", evidence.rounds),
    ("general", "general.title", evidence.general),
    ("cost", "cost.title", cost.cost),
    ("origin", "origin.title", evidence.origin),
    ("limits", "limits.title", evidence.limits),
)


def render(entries: Sequence[Record], lang: Lang) -> str:
    """The whole page.

    Works on a run that is not finished; every string from the ledger is escaped.
    """
    page = Page(Words(lang), Numbers(lang), summary(entries))
    name = page.s["name"] or page.w("page.unnamed")
    style = files("tequio.report.html").joinpath("style.css").read_text(encoding="utf-8")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", page.w("page.title", name=name)),
        el("style", Safe(style)),
    )
    parts = [
        part(page, number, key, page.w(title), write(page))
        for number, (key, title, write) in enumerate(PARTS, 1)
    ]
    sheet = el(
        "div",
        _masthead(page, str(name)),
        el("main", parts[0], _contents(page), *parts[1:]),
        el("footer", el("p", page.w("page.foot"))),
        class_="sheet",
    )
    return f"<!doctype html>\n{el('html', head, el('body', sheet), lang=lang)}\n"


def _masthead(page: Page, name: str) -> Safe:
    s, w, n = page.s, page.w, page.n
    who = n.fixed(len(page.people))
    facts = [
        (w("meta.date"), n.date(s["created"])),
        (w("meta.model"), page.model),
        (w("meta.task"), w.name("task", s["task"]) if s["task"] else DASH),
        (w("meta.who"), w("with.centre", n=who) if s["centre"] else who),
        (w("meta.rounds"), n.fixed(s["rounds"]["total"])),
        (w("meta.seed"), n.plain(s["seed"])),
    ]
    notes = [
        w(key)
        for key, shown in (
            ("note.simulation", s["simulation"]),
            ("note.unfinished", not s["finished"]),
        )
        if shown
    ]
    return el(
        "header",
        el("p", join("Tequio · ", w("page.kind")), class_="kind"),
        el("h1", name),
        el(
            "dl",
            *[el("div", el("dt", term), el("dd", value)) for term, value in facts],
            class_="facts",
        ),
        *[el("p", text, class_="note") for text in notes],
        class_="top",
    )


def _contents(page: Page) -> Safe:
    items = [el("li", el("a", page.w(title), href=f"#{key}")) for key, title, _ in PARTS]
    return el("nav", el("ol", *items), aria_label=page.w("page.contents"))
