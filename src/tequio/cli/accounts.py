"""`tequio accounts`: energy, carbon and money of a run, and a participant's own book where it is on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from tequio.cli import show
from tequio.cli.command import Json


def accounts(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, also a participant's own.")],
    own: Annotated[
        bool, typer.Option("--own", help="Also the participants' own books in this folder, private money with them.")
    ] = False,
    json: Json = False,
) -> None:
    """Say what a run took, by participant: energy, CO2e (location-based), money in each one's currency; SCI; grams for a model card."""
    from tequio.ledger.folder import RunFolder
    from tequio.ledger.record import Ledger
    from tequio.recipes.books import read_books
    from tequio.web.accounts import WHOLE, card, sums
    from tequio.web.accounts import accounts as of_ledger
    from tequio.web.alone import against_alone, of_books
    from tequio.web.records import adapted, at_home
    from tequio.web.shifted import shifted

    with Ledger.open(RunFolder.open(folder).ledger_path, read_only=True) as ledger:
        entries = list(ledger.entries())
    found = of_ledger(entries)
    found["shift"] = shifted(entries)
    found["adapted"] = adapted(entries)
    found["alone"], found["home"] = against_alone(entries), at_home(entries)
    books = read_books(folder)
    found["card"] = card(found, entries, books)
    found["untold"] = {
        row["name"]: any(line["intensity"] is not None for line in books.get(row["name"], ()))
        for row in found["participants"]
        if row["joules"] and (row["grams_share"] or 0.0) < WHOLE
    }  # name -> whether its own book, where it is here, knows the carbon that it keeps to itself
    if own:
        found["books"] = {
            name: sums([{"energy": row, "money": row["money"]} for row in rows]) for name, rows in books.items()
        }
        found["books_alone"] = of_books(books, entries)
    show.emit(found, json, lambda: _words(found))


def emissions_of(folder: Path) -> dict[str, Any]:
    """The field `co2_eq_emissions` of a model card; its `emissions` are None where they are not known."""
    from tequio.ledger.folder import RunFolder
    from tequio.ledger.record import Ledger
    from tequio.recipes.books import read_books
    from tequio.web.accounts import accounts as of_ledger
    from tequio.web.accounts import card

    with Ledger.open(RunFolder.open(folder).ledger_path, read_only=True) as ledger:
        entries = list(ledger.entries())
    found: dict[str, Any] = card(of_ledger(entries), entries, read_books(folder))["co2_eq_emissions"]
    return found


def _words(found: Mapping[str, Any]) -> None:
    rows = [
        *found["participants"],
        {"name": "coordinator", **found["coordinator"]},
        {"name": "in all", **found["total"]},
    ]
    home = f"What the personal model took{'' if found['adapted'] else '; the rounds are in the own book: --own'}"
    show.table(_table(home if found["home"] else "What the run took, as it was told", rows))
    if "books" in found:
        books = [{"name": name, **row} for name, row in found["books"].items()]
        show.table(_table("The participants' own books (private), lost work with it", books))
    if found["alone"]["participants"]:
        rows = [*found["alone"]["participants"], {"name": "in all", "as_good": None, **found["alone"]["total"]}]
        show.table(_alone("Joining against training alone, as it was told", rows))
    if found.get("books_alone"):
        what = "Joining against training alone" if found["home"] else "The same"
        show.table(_alone(f"{what} by the participants' own books (private)", found["books_alone"]))
    if found["shift"] is not None and found["shift"]["rounds"]:
        _shift(found["shift"])
    sci = found["sci"]
    if sci["grams_per_million_tokens"] is not None:
        made = "with" if sci["embodied"] is not None else "without"
        show.out.print(
            f"SCI (ISO/IEC 21031): {sci['grams_per_million_tokens']:.3g} g CO2e per {sci['unit']}, {made} embodied carbon. "
            f"Boundary: {sci['boundary']}."
        )
    emitted, scope = found["card"]["co2_eq_emissions"]["emissions"], found["card"]["scope"]
    known = f"not known. {_why(found)}" if emitted is None else f"{emitted:.4g}, {scope}"
    show.out.print(f"Grams for a model card: {known}", markup=False)


def _alone(title: str, rows: list[dict[str, Any]]) -> Table:
    """What joining took against the own tuned local model; avoided is below zero where joining took more."""
    table = Table(title=title)
    for column in ("who", "joined Wh", "alone Wh", "avoided Wh", "avoided g CO2e", "avoided money", "alone as good?"):
        table.add_column(column, justify="left" if column in ("who", "alone as good?") else "right", no_wrap=True)
    for row in rows:
        avoided = row["avoided"]
        joules = [row["joined"]["joules"], row["alone"]["joules"], avoided["joules"]]
        wh = [None if value is None else value / 3600 for value in joules]
        money = " + ".join(f"{amount:+.4g} {currency}" for currency, amount in sorted(avoided["money"].items()))
        good = {True: "as far as the test tells", False: "never reached it", None: "–"}[row.get("as_good")]
        figures = [
            _number(wh[0], ".4g"),
            _number(wh[1], ".4g"),
            _number(wh[2], "+.3g"),
            _number(avoided["grams"], "+.4g"),
        ]
        table.add_row(row["name"], *figures, money or "–", good)
    return table


def _shift(found: Mapping[str, Any]) -> None:
    """When each trained in simulated time, and what that saved."""
    table = Table(title=f"Training in simulated time, {found['began']} to {found['ended']} (policy {found['policy']})")
    for column in ("who", "rounds", "sat out", "hours", "g CO2e", "at once", "saved"):
        table.add_column(column, justify="left" if column == "who" else "right", no_wrap=True)
    for row in (*found["participants"], {"name": "in all", "rested": None, **found["total"]}):
        table.add_row(
            row["name"],
            str(row["rounds"]),
            _number(row["rested"], "d"),
            _number(row["hours"], ".1f"),
            _number(row["grams"], ".4g"),
            _number(row["at_once"], ".4g"),
            "–" if row["saved"] is None else f"{100 * row['saved']:.1f} %",
        )
    show.table(table)
    show.out.print(f"At once, round upon round, the rounds would have ended at {found['ended_at_once']}.", markup=False)
    if found["budget"] is not None:
        budget = found["budget"]
        spent = _number(budget["spent"], ".4g")
        show.out.print(f"Budget at rated power: {spent} of {budget['kg_co2e']:.4g} kg CO2e.", markup=False)


def _why(found: Mapping[str, Any]) -> str:
    """Whose carbon is not known, why, and what to do."""
    said = []
    if private := [name for name, known in found["untold"].items() if known]:
        said.append(f"Kept private by {', '.join(private)} ([energy] tell = false in participant.toml).")
    if silent := [name for name, known in found["untold"].items() if not known]:
        why = "[energy] country or intensity is missing in participant.toml, does not cover the time, or is not told"
        said.append(f"Of {', '.join(silent)}: {why}.")
    own = found["coordinator"]
    if own["joules"] and (own["grams_share"] or 0.0) < 1.0:
        said.append("Of the coordinator: say [energy] country or intensity in federation.toml.")
    return " ".join(said)


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title)
    for column in ("who", "energy", "g CO2e/kWh", "g CO2e", "embodied g", "money"):
        table.add_column(column, justify="left" if column == "who" else "right", no_wrap=True)
    for row in rows:
        share = row["grams_share"] or 0.0
        part = "" if row["grams"] is None or share > 0.999 else f" (of {100 * share:.0f} %)"
        money = " + ".join(f"{amount:.4g} {currency}" for currency, amount in sorted(row["money"].items()))
        table.add_row(
            row["name"],
            "–" if row["joules"] is None else f"{row['joules'] / 3600:.3f} Wh",
            _number(row.get("intensity"), ".0f"),
            _number(row["grams"], ".4g") + part,
            _number(row["embodied"], ".4g"),
            money or "–",
        )
    return table


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
