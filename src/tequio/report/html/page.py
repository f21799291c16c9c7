"""What every part of the report needs: words, numbers, summary, and the frames of parts, tables and
figures.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from tequio.core.texts.words import AS_WRITTEN, Words
from tequio.report.data.records import Json
from tequio.report.data.verdicts import VERDICTS
from tequio.report.format import DASH, Numbers, finite
from tequio.report.html.charts import glyph
from tequio.report.html.markup import Safe, el, join

MANY = 24  # with more participants than this, tables open with a summary and the worst tenth
Cell = Safe | str


@dataclass(frozen=True)
class Page:
    """One report in one language."""

    w: Words
    n: Numbers
    s: Json

    @property
    def people(self) -> list[Json]:
        """The participants, in the order of the roster."""
        found: list[Json] = self.s["participants"]
        return found

    @property
    def versus(self) -> str:
        """What a personal model is compared with, in words."""
        return self.w(f"versus.{self.s['comparison'] or 'none'}")

    @property
    def model(self) -> str:
        """The base model's name; of a folder on some machine only the last part."""
        name = str(self.s["base"].get("model") or DASH)
        return PurePath(name).name if name.startswith(("/", "~", ".")) else name

    def metric(self, score: Json | None) -> float | None:
        """Accuracy, or perplexity in language modelling."""
        return finite((score or {}).get(self.s["measure"]))

    def shown(self, value: float | None) -> str:
        """An accuracy or a perplexity as text."""
        return (
            self.n.percent(value) if self.s["measure"] == "accuracy" else self.n.perplexity(value)
        )

    def relative(self, gain: float | None) -> str:
        """A gain in loss as words: '12.3% lower'; 'unchanged' where it rounds to nothing."""
        if gain is not None and abs(gain) < 0.0005:
            return self.w("unchanged")
        key = "lower" if (gain or 0.0) >= 0 else "higher"
        return self.w(key, n=self.n.percent(None if gain is None else abs(gain)))

    def share(self, value: float | None) -> str:
        """A signed share, as gains and benefits are written."""
        return self.n.percent(value, sign=True)

    def points(self, value: float | None) -> str:
        """A difference of accuracies in points."""
        return self.w("points", n=self.n.signed(None if value is None else 100 * value))

    def counts(self) -> dict[str, str]:
        """'7 gain', '3 with too few test texts': of each verdict that somebody has."""
        given = self.s["verdicts"]
        return {
            k: self.w.plural(f"count.{k}", given[k], self.n.fixed(given[k]))
            for k in VERDICTS
            if given[k]
        }

    def people_count(self, count: int) -> str:
        """'1 participant', '12 participants'."""
        return self.w.plural("people", count, self.n.fixed(count))

    def rounds_count(self, count: int) -> str:
        """'1 round', '12 rounds'."""
        return self.w.plural("rounds", count, self.n.fixed(count))

    def verdict(self, value: str | None) -> Safe:
        """A verdict as mark and word."""
        style = value or "none"
        return el("span", glyph(style), self.w(f"verdict.{style}"), class_="mark")

    def choice(self, value: Any) -> str:
        """The name of the chosen candidate; its parts in the language of the page."""
        if value is None:
            return DASH
        return re.sub(
            r"\b(shared|private|own classes)\b",
            lambda found: self.w(f"choice.{found.group()}"),
            str(value),
        )

    def slice(self, name: str) -> str:
        """The name of a public slice, with the base after it; names that the demos give are
        translated.
        """
        own, gap, base = name.partition(" (")
        return self.w.name("slice", own) + gap + base

    def reason(self, found: Any) -> Safe:
        """The sentence of a reason; one that quotes others' words is marked as English."""
        if not found:
            return Safe(DASH)
        foreign = "en" if self.w.lang != "en" and found["code"] in AS_WRITTEN else None
        return el("span", self.w.reason(found), lang=foreign)


def part(page: Page, number: int, key: str, title: str, *body: object) -> Safe:
    """One numbered part of the report."""
    heading = el("h2", el("span", page.n.fixed(number), aria_hidden="true"), title, id=f"{key}-h")
    return el(
        "section", heading, el("div", *body, class_="body"), id=key, aria_labelledby=f"{key}-h"
    )


def opening(lead: object, what: str, limit: str | None = None) -> Safe:
    """The plain words that open a part: what it means here, what it shows, what it does not
    mean.
    """
    return join(
        el("p", lead, class_="lead"), el("p", what), el("p", limit, class_="not") if limit else None
    )


def figure(title: str, drawing: Safe, *below: object) -> Safe:
    """A figure under its title."""
    return el("figure", el("figcaption", title), drawing, *below)


def legend(items: Iterable[tuple[str, str]]) -> Safe:
    """Marks and their meaning."""
    return el("p", *[el("span", glyph(style), words) for style, words in items], class_="legend")


def grid(
    label: str,
    head: Sequence[str],
    body: Sequence[Sequence[Cell]],
    foot: Sequence[Sequence[Cell]] = (),
) -> Safe:
    """A table in a box that scrolls, and on a narrow screen a card for each row.

    Columns ending in `#` hold numbers, in `~` long text. A column that is empty in every row is
    left out.
    """
    filled = [
        i == 0 or not body or any(row[i] not in ("", DASH) for row in (*body, *foot))
        for i in range(len(head))
    ]
    head = [name for name, there in zip(head, filled, strict=True) if there]
    body, foot = (
        [[cell for cell, there in zip(row, filled, strict=True) if there] for row in part]
        for part in (body, foot)
    )
    styles = [{"#": "n", "~": "wide"}.get(name[-1:]) for name in head]
    names = [name.rstrip("#~") for name in head]
    top = el(
        "tr",
        *[
            el("th", n, scope="col", class_=c, role="columnheader")
            for n, c in zip(names, styles, strict=True)
        ],
        role="row",
    )
    parts = [
        el("thead", top, role="rowgroup"),
        el("tbody", *[_line(row, styles, names) for row in body], role="rowgroup"),
    ]
    if foot:
        parts.append(el("tfoot", *[_line(row, styles, names) for row in foot], role="rowgroup"))
    return el(
        "div",
        el("table", *parts, aria_label=label, role="table"),
        class_="scroll",
        tabindex="0",
        role="region",
        aria_label=label,
    )


def _line(row: Sequence[Cell], styles: Sequence[str | None], names: Sequence[str]) -> Safe:
    """Roles and names of columns, for on a narrow screen rows are no table rows any more."""
    rest = zip(row[1:], styles[1:], names[1:], strict=True)
    cells = [el("td", el("span", c), class_=s, role="cell", data_label=name) for c, s, name in rest]
    return el(
        "tr", el("th", row[0], scope="row", class_=styles[0], role="rowheader"), *cells, role="row"
    )


def under(main: Cell, small: str | None) -> Safe:
    """A cell with a small second line."""
    return join(main, el("small", small) if small else None)


def folded(title: str, *body: object) -> Safe:
    """A long part that opens on demand."""
    return el("details", el("summary", title), *body)


def grid_of_all(
    page: Page, label: str, head: Sequence[str], body: Sequence[Sequence[Cell]]
) -> Safe:
    """A table with a row for each participant, folded where they are many."""
    made = grid(label, head, body)
    return (
        made if len(body) <= MANY else folded(page.w("show.all", n=page.n.fixed(len(body))), made)
    )


def stat(title: str, big: str, small: str) -> Safe:
    """A key figure: its name, its value in large type, a line below."""
    return el("div", el("dt", title), el("dd", big, class_="big"), el("dd", small, class_="small"))
