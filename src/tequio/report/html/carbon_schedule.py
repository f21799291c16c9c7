"""The section of the report on hours of greener power."""

from datetime import datetime
from typing import Any

from tequio.report.data.records import Json
from tequio.report.html.markup import Safe, el, join
from tequio.report.html.page import Cell, Page, grid_of_all


def shift_part(page: Page) -> Safe | None:
    """The part of the report: what was saved in words, then a table."""
    w, n, found = page.w, page.n, page.s["shift"]
    if found is None or not found["participants"]:
        return None
    whole = found["total"]
    said = [w("shift.none" if found["policy"] == "none" else "shift.greedy", **_times(page, found))]
    if whole["saved"] is not None:
        figures = {
            "grams": n.mass(whole["grams"]),
            "plain": n.mass(whole["at_once"]),
            "saved": n.percent(whole["saved"]),
        }
        said.append(w("shift.saved", **figures))
    budget = found["budget"]
    if budget is not None:
        figures = {
            key: n.mass(None if budget[k] is None else 1000 * budget[k])
            for key, k in (("limit", "kg_co2e"), ("spent", "spent"))
        }
        said.append(w("shift.budget", **figures, minimum=n.percent(budget["minimum"], 0)))
    columns = (
        "col.participant",
        "col.rounds",
        "shift.rested",
        "shift.hours",
        "col.energy",
        "col.carbon",
        "shift.plain",
        "shift.share",
    )
    head = [w(columns[0]), *[f"{w(key)}#" for key in columns[1:]]]
    body: list[list[Cell]] = [
        [
            row["name"],
            n.fixed(row["rounds"]),
            n.fixed(row["rested"]),
            n.fixed(row["hours"], 1),
            n.energy(row["joules"]),
            n.mass(row["grams"]),
            n.mass(row["at_once"]),
            n.percent(row["saved"], sign=True),
        ]
        for row in found["participants"]
    ]
    shown = grid_of_all(page, w("shift.title"), head, body)
    return join(
        el("h3", w("shift.title")),
        el("p", " ".join(said)),
        el("p", w("shift.what"), class_="under"),
        shown,
    )


def _times(page: Page, found: Json) -> dict[str, str]:
    n = page.n
    times = {key: n.date(found[key]) for key in ("began", "ended")}
    return times | {"later": n.duration(_later(found["ended_at_once"], found["ended"]))}


def _later(first: Any, last: Any) -> float | None:
    """Seconds between two times."""
    try:
        return max(
            0.0,
            (
                datetime.fromisoformat(str(last)) - datetime.fromisoformat(str(first))
            ).total_seconds(),
        )
    except ValueError:
        return None
