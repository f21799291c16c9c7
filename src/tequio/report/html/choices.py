"""In part 2 of the report: why each keeps what it keeps, its classes, and what to mind of its
data.
"""

from collections.abc import Sequence

from tequio.report.data.records import Json, mean
from tequio.report.format import DASH
from tequio.report.html.markup import Safe, el, join
from tequio.report.html.page import MANY, Cell, Page, folded, grid, grid_of_all, under
from tequio.report.html.verdict import notes_in_words

FEW = "<5"


def why_part(page: Page) -> Safe | None:
    """For each participant the rule that chose, and its candidates on validation."""
    w = page.w
    people = [p for p in page.people if p["choice"]["rows"] and p["chosen"]]
    if not people:
        return None
    parts = [_why(page, p) for p in people]
    shown = (
        parts if len(parts) <= MANY else [folded(w("show.all", n=page.n.fixed(len(parts))), *parts)]
    )
    return join(el("h3", w("why.title")), el("p", w("why.what"), class_="under"), *shown)


def _why(page: Page, person: Json) -> Safe:
    w, n, found = page.w, page.n, person["choice"]
    values = {"name": person["name"], "choice": page.choice(person["chosen"])}
    said = (
        w(f"why.rule.{found['rule']}", **values)
        if found["rule"]
        else f"{values['name']}: {values['choice']}"
    )
    if found["share"] is not None and found["favoured"] is not None:
        facts = {"share": n.percent(found["share"], 0), "favoured": n.percent(found["favoured"], 0)}
        said += " " + w("why.share", texts=n.fixed(found["texts"]), **facts)
    if found["few"]:
        said += " " + w("why.few", texts=n.fixed(found["texts"]))
    if found["rule"] != "lowest_loss" and found["lead"] is not None and found["error"] is not None:
        figures = {"lead": n.fixed(found["lead"], 4), "error": n.fixed(found["error"], 4)}
        said += " " + w(f"why.error.{found['rule']}", best=page.choice(found["best"]), **figures)
    head = [
        w("col.candidate"),
        f"{w('col.valid.loss')}#",
        f"{w('col.valid.right')}#",
        f"{w('col.valid.texts')}#",
    ]
    body: list[list[Cell]] = [
        [
            under(page.choice(row["name"]), w("why.kept") if row["chosen"] else None),
            n.fixed(row["loss"], 3),
            n.fixed(row["right"]),
            n.fixed(row["examples"]),
        ]
        for row in found["rows"]
    ]
    return folded(said, grid(said, head, body))


def classes_part(page: Page) -> Safe | None:
    """Balanced accuracy and macro-F1 beside the trivial baseline, and recall by class."""
    w = page.w
    people = [p for p in page.people if p["classes"]]
    if not people:
        return None
    figures = [(key, model) for key in ("balanced", "macro") for model in ("alone", "kept")]
    head = [
        w("col.participant"),
        w("col.trivial"),
        *(f"{w(f'col.{k}')}, {w(f'col.{m}')}#" for k, m in figures),
    ]
    return join(
        el("h3", w("classes.title")),
        el("p", _classes_here(page, people)),
        el("p", w("classes.what"), class_="under"),
        grid_of_all(page, w("classes.title"), head, [_class_row(page, p) for p in people]),
        *([_recalls(page, p) for p in people] if len(people) <= MANY else []),
    )


def _classes_here(page: Page, people: Sequence[Json]) -> str:
    found = [p["classes"] for p in people]
    alone, retained = (
        mean(c["balanced_accuracy"][model] for c in found) for model in ("local", "personal")
    )
    return page.w(
        "classes.here",
        baseline=page.n.percent(mean(c["baseline"]["balanced_accuracy"] for c in found), 0),
        local=page.n.percent(alone, 0),
        personal=page.n.percent(retained, 0),
    )


def _class_row(page: Page, person: Json) -> list[Cell]:
    found, n = person["classes"], page.n
    baseline = found["baseline"]
    always = page.w(
        "classes.always", label=baseline["label"], accuracy=n.percent(baseline["accuracy"], 0)
    )
    rest = [
        n.percent(found[key][model], 0)
        for key in ("balanced_accuracy", "macro_f1")
        for model in ("local", "personal")
    ]
    trivial = under(
        n.percent(baseline["balanced_accuracy"], 0), None if baseline["label"] is None else always
    )
    return [person["name"], trivial, *rest]


def _recalls(page: Page, person: Json) -> Safe:
    w, n = page.w, page.n
    head = [
        w("col.class"),
        f"{w('col.texts')}#",
        f"{w('col.right.alone')}#",
        f"{w('col.right.kept')}#",
        w("col.taken"),
    ]
    body: list[list[Cell]] = [
        [
            row["label"],
            FEW if row["support"] is None else n.fixed(row["support"]),
            *(_range(page, row["right"][model]) for model in ("local", "personal")),
            ", ".join(f"{other['label']} ({n.fixed(other['count'])})" for other in row["taken_for"])
            or DASH,
        ]
        for row in person["classes"]["rows"]
    ]
    title = w("classes.of", name=person["name"])
    return folded(title, grid(title, head, body))


def _range(page: Page, found: list[int] | None) -> str:
    if found is None:
        return DASH
    low, high = found
    if low == high:
        return page.n.fixed(low)
    return FEW if low == 0 and high == 4 else f"{page.n.fixed(low)}–{page.n.fixed(high)}"


def notes_part(page: Page) -> Safe | None:
    """Rows left out and why, texts cut, classes missing: a line for each participant that has
    any.
    """
    found = [(p["name"], notes) for p in page.people if (notes := notes_in_words(page, p))]
    if not found:
        return None
    items = [el("li", el("strong", f"{name}: "), " ".join(notes)) for name, notes in found]
    shown = el("ul", *items[:MANY], class_="limits")
    rest = items[MANY:]
    more = (
        folded(page.w("show.more", n=page.n.fixed(len(rest))), el("ul", *rest, class_="limits"))
        if rest
        else None
    )
    return join(el("h3", page.w("notes.title")), shown, more)
