"""Part 7 of the report: bytes, energy, time, carbon and money, and with [shift] the hours of
work.
"""

from tequio.report.data.accounts import WHOLE
from tequio.report.data.records import Json
from tequio.report.format import DASH
from tequio.report.html.carbon_schedule import shift_part
from tequio.report.html.headline import energy_kind
from tequio.report.html.markup import Safe, el, join
from tequio.report.html.page import MANY, Cell, Page, folded, grid, opening, under
from tequio.report.html.verdict import time_in_words


def cost(page: Page) -> Safe:
    """Bytes, energy and time in words, then carbon and money where they are known, then the
    table.
    """
    w, n, found = page.w, page.n, page.s["cost"]
    words = {
        "up": n.size(found["bytes_up"]),
        "down": n.size(found["bytes_down"]),
        "took": time_in_words(page),
    }
    here, limit = w("cost.here.plain", **words), None
    if found["joules"] is not None:
        lamp = n.duration(float(f"{found['joules'] / 10:.1e}"))
        here = w(
            "cost.here", **words, energy=n.energy(found["joules"]), how=energy_kind(page), lamp=lamp
        )
        limit = w(
            "cost.not",
            method="; ".join(w.name("method", m) for m in found["methods"]) or DASH,
            boundary="; ".join(w.name("boundary", b) for b in found["boundaries"]) or DASH,
            width=n.percent(found["uncertainty"], 0),
        )
    pooled = found["pooled"]
    what = w("cost.what")
    if pooled["joules"] is not None or pooled["seconds"] is not None:
        what += " " + w(
            "cost.pooled", time=n.duration(pooled["seconds"]), energy=n.energy(pooled["joules"])
        )
    return join(opening(here, what, limit), _carbon(page), _cost_table(page), shift_part(page))


def _cost_table(page: Page) -> Safe:
    w, n, found = page.w, page.n, page.s["cost"]
    people = [p for p in page.people if p["bytes_up"] is not None or p["seconds"] is not None]
    if not people:
        return Safe("")
    title = w("table.cost")
    head = [
        w("col.participant"),
        *[f"{w(f'col.{k}')}#" for k in ("up", "down", "energy", "work", "carbon", "money")],
    ]
    spent = page.s["accounts"]
    own = {a["name"]: a for a in page.s["accounts"]["participants"]}
    people = [
        {**p, **{k: own.get(p["name"], {}).get(k) for k in ("grams", "money", "unusable")}}
        for p in people
    ]
    rest = {"bytes_up": None, "bytes_down": None, **spent["coordinator"]}
    whole = {
        "bytes_up": found["bytes_up"],
        "bytes_down": found["bytes_down"],
        "seconds": found["seconds"],
    }
    foot = [_cost_row(page, w("total"), {**spent["total"], **whole})]
    if rest["joules"] is not None or rest["money"]:
        foot.insert(0, _cost_row(page, w("cost.coordinator"), {**rest, "seconds": None}))
    opened = [el("h3", title), el("p", w("cost.table.note"), class_="under")]
    everyone = [_cost_row(page, p["name"], p) for p in people]
    if len(people) <= MANY:
        return join(*opened, grid(title, head, everyone, foot))
    largest = sorted(people, key=lambda p: -(p["bytes_up"] or 0))[: -(-len(people) // 10)]
    label = w("cost.largest", n=n.fixed(len(largest)), of=n.fixed(len(people)))
    shown = grid(title, head, [_cost_row(page, p["name"], p) for p in largest], foot)
    every = folded(w("show.all", n=n.fixed(len(people))), grid(title, head, everyone))
    return join(*opened, el("p", label, class_="under"), shown, every)


def _cost_row(page: Page, name: str, row: Json) -> list[Cell]:
    n = page.n
    return [
        name,
        n.size(row["bytes_up"]),
        n.size(row["bytes_down"]),
        under(n.energy(row["joules"]), page.w("books.unusable") if row.get("unusable") else None),
        n.duration(row["seconds"]),
        _grams(page, row),
        n.money(row.get("money") or {}),
    ]


def _grams(page: Page, row: Json) -> Cell:
    """CO₂e, and of which part of the energy where that is not all."""
    share = row.get("grams_share")
    part = (
        None
        if share is None or share >= WHOLE
        else page.w("cost.of", share=page.n.percent(share, 0))
    )
    return DASH if row.get("grams") is None else under(page.n.mass(row["grams"]), part)


def _carbon(page: Page) -> Safe | None:
    """What is known of carbon and money."""
    w, n, found = page.w, page.n, page.s["accounts"]
    whole, intensity = found["total"], found["sci"]
    if whole["grams"] is None and not whole["money"]:
        return el("p", w("carbon.none"))
    said = []
    if whole["grams"] is not None:
        said.append(w("carbon.here", grams=n.mass(whole["grams"])))
        if (whole["grams_share"] or 0.0) < WHOLE:
            said.append(w("carbon.part", share=n.percent(whole["grams_share"], 0)))
        made = whole["embodied"]
        said.append(
            w("carbon.embodied", grams=n.mass(made))
            if made is not None
            else w("carbon.embodied.none")
        )
        if intensity["grams_per_million_tokens"] is not None:
            said.append(w("carbon.sci", grams=n.mass(intensity["grams_per_million_tokens"])))
        said.append(w("carbon.not"))
    if whole["money"]:
        said.append(w("carbon.money", money=n.money(whole["money"])))
    return el("p", " ".join(said))
