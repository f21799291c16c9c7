"""`tequio accounts`: energy, carbon and money of a run, and a participant's own book where it is on
this machine.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from tequio.api.emissions import run_emissions as run_emissions
from tequio.cli import output
from tequio.cli.options import Json, Lang
from tequio.core.texts.words import Words


def accounts(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, also a participant's own.")],
    own: Annotated[
        bool,
        typer.Option(
            "--own",
            help="Also the participants' own books in this folder, private money with them.",
        ),
    ] = False,
    lang: Lang = "en",
    json: Json = False,
) -> None:
    """Print what a run took, by participant: energy, CO2e (location-based), money and SCI.

    Grams for a model card come last.

    Money is in each participant's currency.
    """
    from tequio.ledger.folder import RunFolder
    from tequio.ledger.record import Ledger
    from tequio.participant.accounts import read_account_books
    from tequio.report.data.accounts import WHOLE, card, sums
    from tequio.report.data.accounts import accounts as of_ledger
    from tequio.report.data.carbon_schedule import shifted
    from tequio.report.data.records import adapted, at_home
    from tequio.report.data.versus_alone import against_alone, of_books

    with Ledger.open(RunFolder.open(folder).ledger_path, read_only=True) as ledger:
        entries = list(ledger.entries())
    found = of_ledger(entries)
    found["shift"] = shifted(entries)
    found["adapted"] = adapted(entries)
    found["alone"], found["home"] = against_alone(entries), at_home(entries)
    books = read_account_books(folder)
    found["card"] = card(found, entries, books)
    found["untold"] = {
        row["name"]: any(line["intensity"] is not None for line in books.get(row["name"], ()))
        for row in found["participants"]
        if row["joules"] and (row["grams_share"] or 0.0) < WHOLE
    }  # name -> whether its own book, where it is here, knows the carbon that it keeps to itself
    if own:
        found["books"] = {
            name: sums([{"energy": row, "money": row["money"]} for row in rows])
            for name, rows in books.items()
        }
        found["books_alone"] = of_books(books, entries)
    output.emit(found, json, lambda: _words(found, Words(lang)), lang)


def _words(found: Mapping[str, Any], w: Words) -> None:
    rows = [
        *found["participants"],
        {"name": w("books.coordinator"), **found["coordinator"]},
        {"name": w("books.all"), **found["total"]},
    ]
    kind = "adapted" if found["adapted"] else "home" if found["home"] else "run"
    output.table(_table(w(f"books.{kind}"), rows, w))
    if "books" in found:
        output.table(
            _table(
                w("books.own"), [{"name": name, **row} for name, row in found["books"].items()], w
            )
        )
    if found["alone"]["participants"]:
        rows = [
            *found["alone"]["participants"],
            {"name": w("books.all"), "as_good": None, **found["alone"]["total"]},
        ]
        output.table(_alone(w("books.alone.told"), rows, w))
    if found.get("books_alone"):
        output.table(
            _alone(
                w("books.alone.home" if found["home"] else "books.alone.same"),
                found["books_alone"],
                w,
            )
        )
    if found["shift"] is not None and found["shift"]["rounds"]:
        _shift(found["shift"], w)
    sci = found["sci"]
    if sci["grams_per_million_tokens"] is not None:
        key = "books.sci.with" if sci["embodied"] is not None else "books.sci.without"
        output.out.print(w(key, grams=f"{sci['grams_per_million_tokens']:.3g}"), markup=False)
    card = found["card"]
    emitted = card["co2_eq_emissions"]["emissions"]
    if emitted is None:
        output.out.print(w("books.card.none", why=_why(found, w)).rstrip(), markup=False)
        return
    output.out.print(
        w(
            "books.card",
            grams=f"{emitted:.4g}",
            scope=w(f"books.scope.{card['of']}", name=card["name"]),
        ),
        markup=False,
    )


def _alone(title: str, rows: list[dict[str, Any]], w: Words) -> Table:
    """What joining took against the own tuned local model; avoided is below zero where joining took
    more.
    """
    good = {True: w("books.good.yes"), False: w("books.good.no"), None: "–"}
    keys = ("who", "joined", "alone", "avoided.energy", "avoided.carbon", "avoided.money", "good")
    lines = [
        [
            row["name"],
            _watt_hours(row["joined"], ".4g"),
            _watt_hours(row["alone"], ".4g"),
            _watt_hours(row["avoided"], "+.3g"),
            _number(row["avoided"]["grams"], "+.4g"),
            _money(row["avoided"]["money"], "+.4g"),
            good[row.get("as_good")],
        ]
        for row in rows
    ]
    return output.tabular([w(f"books.{key}") for key in keys], lines, left=(0, 6), title=title)


def _watt_hours(row: Mapping[str, Any], form: str) -> str:
    return _number(None if row["joules"] is None else row["joules"] / 3600, form)


def _money(amounts: Mapping[str, float], form: str) -> str:
    return (
        " + ".join(f"{amount:{form}} {currency}" for currency, amount in sorted(amounts.items()))
        or "–"
    )


def _shift(found: Mapping[str, Any], w: Words) -> None:
    """When each trained in simulated time, and what that saved."""
    title = w("books.shift", began=found["began"], ended=found["ended"], policy=found["policy"])
    before = [w(f"books.{key}") for key in ("who", "rounds", "rested", "hours")]
    lines = [
        [
            row["name"],
            str(row["rounds"]),
            _number(row["rested"], "d"),
            _number(row["hours"], ".1f"),
            _number(row["grams"], ".4g"),
            _number(row["at_once"], ".4g"),
            "–" if row["saved"] is None else f"{100 * row['saved']:.1f} %",
        ]
        for row in (
            *found["participants"],
            {"name": w("books.all"), "rested": None, **found["total"]},
        )
    ]
    output.table(
        output.tabular([*before, "g CO2e", w("books.once"), w("books.saved")], lines, title=title)
    )
    output.out.print(w("books.ended", ended=found["ended_at_once"]), markup=False)
    if found["budget"] is not None:
        budget = found["budget"]
        said = w(
            "books.budget", spent=_number(budget["spent"], ".4g"), limit=f"{budget['kg_co2e']:.4g}"
        )
        output.out.print(said, markup=False)


def _why(found: Mapping[str, Any], w: Words) -> str:
    """Whose carbon is not known, why, and what to do."""
    said = []
    if private := [name for name, known in found["untold"].items() if known]:
        said.append(w("books.why.private", names=", ".join(private)))
    if silent := [name for name, known in found["untold"].items() if not known]:
        said.append(w("books.why.silent", names=", ".join(silent)))
    own = found["coordinator"]
    if own["joules"] and (own["grams_share"] or 0.0) < 1.0:
        said.append(w("books.why.coordinator"))
    return " ".join(said)


def _table(title: str, rows: list[dict[str, Any]], w: Words) -> Table:
    heads = [
        w("books.who"),
        w("books.energy"),
        "g CO2e/kWh",
        "g CO2e",
        w("books.embodied"),
        w("books.money"),
    ]
    lines = [
        [
            row["name"],
            _energy(row, w),
            _number(row.get("intensity"), ".0f"),
            _number(row["grams"], ".4g") + _part(row, w),
            _number(row["embodied"], ".4g"),
            _money(row["money"], ".4g"),
        ]
        for row in rows
    ]
    return output.tabular(heads, lines, title=title)


def _part(row: Mapping[str, Any], w: Words) -> str:
    """Of which share of the energy the grams are, where it is not all."""
    share = row["grams_share"] or 0.0
    return (
        ""
        if row["grams"] is None or share > 0.999
        else f" {w('books.part', share=f'{100 * share:.0f}')}"
    )


def _energy(row: Mapping[str, Any], w: Words) -> str:
    """The energy, and whether some of the row's figures could not be used."""
    said = "–" if row["joules"] is None else f"{row['joules'] / 3600:.3f} Wh"
    return f"{said} ({w('books.unusable')})" if row.get("unusable") else said


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
