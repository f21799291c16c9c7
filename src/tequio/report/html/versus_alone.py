"""The section of the report that compares joining with training alone."""

from typing import Any

from tequio.report.format import DASH
from tequio.report.html.markup import Safe, el, join
from tequio.report.html.page import Cell, Page, grid_of_all


def alone_part(page: Page) -> Safe | None:
    """The part of the report: sums in words, then a row for each."""
    w, n, found = page.w, page.n, page.s["alone"]
    rows = found["participants"]
    if not rows:
        return None
    whole = found["total"]
    said = [
        w("alone.energy", **{part: n.energy(whole[part]["joules"]) for part in ("joined", "alone")})
    ]
    if whole["avoided"]["grams"] is not None:
        said.append(
            w(
                "alone.carbon",
                **{part: n.mass(whole[part]["grams"]) for part in ("joined", "alone")},
            )
        )
    if found["never_as_good"]:
        said.append(
            w("alone.never", n=n.fixed(found["never_as_good"]), of=n.fixed(found["judged"]))
        )
    columns = ("joined", "alone", "energy", "carbon", "money")
    head = [
        w("col.participant"),
        *[f"{w(f'alone.col.{key}')}#" for key in columns],
        w("alone.col.good"),
    ]
    body: list[list[Cell]] = [
        [
            row["name"],
            n.energy(row["joined"]["joules"]),
            n.energy(row["alone"]["joules"]),
            _signed(row["avoided"]["joules"], n.energy),
            _signed(row["avoided"]["grams"], n.mass),
            " + ".join(
                _signed(v, lambda x, c=c: n.money({c: x}))
                for c, v in sorted(row["avoided"]["money"].items())
            )
            or DASH,
            w({True: "alone.good", False: "alone.not", None: "alone.unknown"}[row["as_good"]]),
        ]
        for row in rows
    ]
    even = found["evenness"]
    if even["gini"] is not None:
        said.append(w("alone.even", gini=n.fixed(even["gini"], 2), jain=n.fixed(even["jain"], 2)))
    shown = grid_of_all(page, w("alone.title"), head, body)
    return join(
        el("h3", w("alone.title")),
        el("p", " ".join(said)),
        el("p", w("alone.what"), class_="under"),
        shown,
    )


def _signed(value: float | None, form: Any) -> str:
    """With + or −, in the unit that fits."""
    if value is None:
        return DASH
    return ("−" if value < 0 else "+" if value > 0 else "") + str(form(abs(value)))
