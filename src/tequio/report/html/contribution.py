"""The section of the report on what each participant gave and got."""

from tequio.report.data.contribution import GIVEN
from tequio.report.html.markup import Safe, el, join
from tequio.report.html.page import Cell, Page, grid_of_all


def given_and_got(page: Page) -> Safe | None:
    """The part of the report: the statement, the table, evenness."""
    w, n, found = page.w, page.n, page.s["giving"]
    rows = found["participants"]
    if not rows or all(r["benefit"] is None and r["tokens"] is None for r in rows):
        return None
    credited = any(r["credit"] is not None for r in rows)
    tried = any(r["leave_one_out"] is not None for r in rows)
    keys = [
        "texts",
        "tokens",
        "energy",
        "money",
        *(["credit"] if credited else []),
        *(["without"] if tried else []),
    ]
    head = [w("col.participant"), *[f"{w(f'give.{key}')}#" for key in keys], f"{w('give.got')}#"]
    body: list[list[Cell]] = [
        [
            r["name"],
            n.fixed(r["examples"]),
            n.fixed(r["tokens"]),
            n.energy(r["joules"]),
            n.money(r["money"]),
            *([n.signed(r["credit"], 4)] if credited else []),
            *([n.signed(r["leave_one_out"], 4)] if tried else []),
            page.share(r["benefit"]),
        ]
        for r in rows
    ]
    even = found["evenness"]
    parts = [
        w(
            "give.even",
            what=w(f"give.of.{k}"),
            gini=n.fixed(even[k]["gini"], 2),
            jain=n.fixed(even[k]["jain"], 2),
        )
        for k in (*GIVEN, "benefit")
        if even[k]["gini"] is not None
    ]
    return join(
        el("h3", w("give.title")),
        el("p", _said(page)) if found["changes"] else None,
        el("p", w("give.credit.what") if credited else w("give.credit.off"), class_="under"),
        grid_of_all(page, w("give.title"), head, body),
        el("p", "; ".join(parts) + ".", class_="under") if parts else None,
    )


def _said(page: Page) -> str:
    w, found = page.w, page.s["giving"]
    figures = {"low": page.share(found["poor_benefit"]), "high": page.share(found["rich_benefit"])}
    words = w(f"give.{found['statement']}", **figures)
    if found["changes"]:
        words += " " + w(
            "give.change", changes="; ".join(w(f"give.change.{key}") for key in found["changes"])
        )
    return words
