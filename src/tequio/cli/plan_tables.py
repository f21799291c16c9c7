"""A plan in the terminal, and a run's outcome beside it, in the words of the page where it has
such.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tequio.cli import output
from tequio.core.reason import Reason
from tequio.core.texts.words import Lang, Words
from tequio.participant.foretelling import FEWEST
from tequio.report.data.forecast import corrected, machines, not_learnt, plan_rows, unchecked

SHOWN = 8  # ways and devices in the terminal; the page and --json have all
PLACES = {"hybrid": "plan.where.hybrid", "alone": "plan.where.alone", "renewable": "forecast.green"}


def print_plan(result: Mapping[str, Any], path: Path, lang: Lang = "en") -> None:
    """What each needs, budgets, the ways to do it, buy or rent, the weakest, what to keep in mind,
    where the page is.
    """
    w = Words(lang)
    _each(result, w)
    _declared(result, w)
    _ways(result, w)
    _even(result, w)
    _weakest(result, w)
    _pilot(result, w)
    factors = corrected({k: v for k, v in result["factors"].items() if v != 1.0}, w, _three)
    if factors:
        output.out.print(w("forecast.corrected", factors=factors), markup=False)
    for limit in result["limits"]:
        output.out.print(w.reason(limit), style="dim", markup=False)
    output.out.print(w("forecast.page", path=path), markup=False)


def _pilot(result: Mapping[str, Any], w: Words) -> None:
    if not result.get("pilot"):
        return
    form = "{:+.0%} ({:+.0%} … {:+.0%})"
    lines = [
        [
            row["name"],
            "–" if row["benefit"] is None else form.format(*_figures(row)),
            w(f"pilot.{row['verdict']}"),
        ]
        for row in result["pilot"]
    ]
    heads = (w("books.who"), w("pilot.benefit"), w("pilot.verdict"))
    output.out.print(
        output.tabular(heads, lines, left=(0, 2), title=w("pilot.title"), wrapped=range(3))
    )
    output.out.print(w("pilot.what"), style="dim", markup=False)


def print_trial(row: Mapping[str, Any], lang: Lang = "en") -> None:
    """Show what an earlier shared model foretells of one participant, and how many texts would
    tell.
    """
    w = Words(lang)
    if row["benefit"] is None:
        output.out.print(w("pilot.nothing", name=row["name"]), markup=False)
    else:
        benefit, low, high = (f"{figure:+.0%}" for figure in _figures(row))
        said = {"name": row["name"], "verdict": w(f"pilot.{row['verdict']}"), "texts": row["texts"]}
        output.out.print(
            w("pilot.trial", **said, benefit=benefit, low=low, high=high), markup=False
        )
        if row["texts"] < FEWEST:
            output.out.print(w("pilot.few", fewest=FEWEST), markup=False)
        elif row["needed"] is not None:
            output.out.print(w("pilot.needed", needed=row["needed"]), markup=False)
    output.out.print(w("pilot.trial.what"), style="dim", markup=False)


def _figures(row: Mapping[str, Any]) -> tuple[float, float, float]:
    return row["benefit"], row["low"], row["high"]


def _each(result: Mapping[str, Any], w: Words) -> None:
    title = f"{w('plan.title', name=result['federation'])}: {w('plan.where.alone')}"
    heads = [
        w("books.who"),
        _head("col.machine", w),
        _head("col.rank", w),
        w("forecast.fits"),
        _head("col.rounds", w),
        w("forecast.personal"),
        w("books.energy"),
        "g CO2e",
        w("books.money"),
        _head("col.up", w),
    ]
    whole = result["total"]
    every = [
        *(w("books.all"), "", "", _one_process(result, w), _time(whole["seconds"]), ""),
        *(
            _energy(whole["joules"]),
            _three(whole["grams"]),
            _money(whole["money"]) + _part(whole, w),
        ),
        f"{whole['bytes_up'] / 1e6:.2f} MB",
    ]
    lines = [*(_each_row(row, w) for row in plan_rows(result, w)), every]
    output.table(output.tabular(heads, lines, left=(0, 1), title=title))


def _each_row(row: Mapping[str, Any], w: Words) -> list[str]:
    seconds = row["seconds"]
    kind = Reason("plan-rank", {"rank": row["rank"]}).as_record()
    own = next((m for m in row["memory"] if m["kind"] == kind), row["memory"][-1])
    need, have = f"{own['need'] / 2**30:.2f}", f"{own['have'] / 2**30:.1f}"
    return [
        row["name"],
        machines([row["machine"]], w),
        str(row["rank"]),
        w("forecast.fits.yes" if own["fits"] else "forecast.fits.no", need=need, have=have),
        _time(seconds["train"] + seconds["evaluate"] + seconds["network"]),
        _time(seconds["personal"]),
        _energy(row["joules"]),
        _three(row["grams"]),
        _money(row["money"]),
        f"{row['bytes_up'] / 1e6:.2f} MB",
    ]


def _one_process(result: Mapping[str, Any], w: Words) -> str:
    """The memory of all of it in one process, and of that process on its graphics card where it has
    one.
    """
    need, card = f"{result['process_memory'] / 2**30:.2f}", result["card_memory"]
    if card is None:
        return w("forecast.process", need=need)
    return w("forecast.process.card", need=need, card=f"{card / 2**30:.2f}")


def _declared(result: Mapping[str, Any], w: Words) -> None:
    """What is left out as private; budgets and declared speeds beside the forecast."""
    if result["private"]:
        private = {
            name: [w.name("forecast.kept", one) for one in what]
            for name, what in result["private"].items()
        }
        said = "; ".join(f"{name}: {', '.join(what)}" for name, what in private.items())
        output.out.print(w("forecast.private", private=said), markup=False)
    if result["budgets"]:
        heads = [
            _head(key, w)
            for key in ("budget.whose", "budget.of", "col.rounds", "budget.whole", "budget")
        ]
        lines = [
            [
                row["who"] or w("plan.budget.all"),
                w("plan.axis.seconds" if row["key"] == "hours" else f"plan.budget.of.{row['key']}"),
                *(
                    "–" if row[key] is None else f"{row[key]:.3g} {row['unit']}"
                    for key in ("rounds", "whole")
                ),
                f"{row['limit']:g} {row['unit']}",
                _fits(row, w),
            ]
            for row in result["budgets"]
        ]
        output.table(
            output.tabular([*heads, ""], lines, left=(0, 1, 5), title=w("forecast.budgets"))
        )
    if result["declared"]:
        each = ", ".join(f"{row['name']} {_time(row['seconds'])}" for row in result["declared"])
        output.out.print(w("forecast.declared", each=each), markup=False)


def _fits(row: Mapping[str, Any], w: Words) -> str:
    rounds, whole = row["ratio"], row["whole_ratio"]
    if rounds is None:
        return w("plan.budget.unknown")
    if rounds > 1:
        return w("plan.budget.over", ratio=_three(rounds))
    return w("plan.budget.within") if whole <= 1 else w("plan.budget.cut", ratio=_three(whole))


def _ways(result: Mapping[str, Any], w: Words) -> None:
    title = w(
        "forecast.ways", axes=", ".join(w(f"forecast.axis.{axis}") for axis in result["axes"])
    )
    heads = [
        _head("way", w),
        _head("where", w),
        w("forecast.texts"),
        _head("col.time", w),
        w("books.energy"),
        "g CO2e",
        w("books.money"),
        w("forecast.best"),
    ]
    lines = [
        [
            w(f"forecast.way.{row['key']}"),
            row["where"] if row["key"] == "central" else w(PLACES[row["key"]]),
            f"{row['quality']:.0f}",
            _time(row["seconds"]),
            _energy(row["joules"]),
            _three(row["grams"]),
            _money(row["money"]),
            "*" if row["best"] else "(*)" if row["best_of_all"] else "",
        ]
        for row in result["options"][:SHOWN]
    ]
    output.table(output.tabular(heads, lines, left=(0, 1, 7), title=title))


def _even(result: Mapping[str, Any], w: Words) -> None:
    for row in result["break_even"][:SHOWN]:
        if row["hours"] is None:
            continue
        more = w("forecast.even.runs", n=_three(row["runs"])) if row["runs"] else ""
        if row["unsure"]:
            more += f" {w('forecast.even.unsure', what=unchecked(row['unsure'], w))}"
        figures = {
            "buy": f"{row['buy']:.0f}",
            "rent": f"{row['rent']:.2f}",
            "hours": f"{row['hours']:.0f}",
        }
        output.out.print(
            w("forecast.even", device=row["device"], more=more, **figures), markup=False
        )


def _weakest(result: Mapping[str, Any], w: Words) -> None:
    weak = result["weakest"]
    if weak is None:
        return
    rounds = {"time": _time(weak["round_seconds"]), "group": _time(weak["group_round_seconds"])}
    said = w(
        "forecast.weakest", name=weak["name"], rank=weak["rank"], steps=weak["steps"], **rounds
    )
    output.out.print(said, markup=False)
    for row in weak["levers"]:
        what, time = w.reason(row["what"]), _time(row["round_seconds"])
        said = w("forecast.lever", what=what, rank=row["rank"], steps=row["steps"], time=time)
        output.out.print(f"  {said}", markup=False)


def print_after(result: Mapping[str, Any], lang: Lang = "en") -> None:
    """Forecast beside outcome: of each, of memory, and by what the next plan is corrected."""
    w = Words(lang)
    heads = [
        w("books.who"),
        w("forecast.train"),
        w("forecast.evaluate"),
        w("forecast.personal"),
        w("books.all"),
        w("forecast.ratio"),
        _head("col.energy_ratio", w),
    ]
    lines = [_after_row(row, w) for row in result["participants"]]
    output.table(output.tabular(heads, lines, title=w("forecast.after")))
    for key, memory in (
        ("forecast.memory", result["memory"]),
        ("forecast.memory.card", result["card"]),
    ):
        if memory["ratio"]:
            gib = {what: f"{memory[what] / 2**30:.2f}" for what in ("predicted", "measured")}
            output.out.print(w(key, ratio=_ratio(memory["ratio"]), **gib), markup=False)
    factors = corrected(result["factors"], w, _three) or w("forecast.nothing")
    ratios = {"time": _ratio(result["ratio"]), "energy": _ratio(result["joules_ratio"])}
    output.out.print(w("forecast.whole", factors=factors, **ratios), markup=False)
    if untaught := not_learnt(result, w):
        output.out.print(untaught, markup=False)


def _after_row(row: Mapping[str, Any], w: Words) -> list[str]:
    said, was = row["predicted"], row["measured"]
    both = [f"{said[k]:.1f} → {was[k]:.1f}" for k in ("train", "evaluate", "personal", "work")]
    cut = (
        f"({w('plan.cut')})"
        if row["cut"]
        else w("forecast.machine", machine=machines([row["machine"]], w))
    )
    name = row["name"] if row["alike"] else f"{row['name']} {cut}"
    return [
        name,
        *both,
        *(_ratio(row[key] if row["alike"] else None) for key in ("ratio", "joules_ratio")),
    ]


def _head(key: str, w: Words) -> str:
    """The page's word for it, as the terminal writes the head of a column."""
    return w(f"plan.{key}").lower()


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _three(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _energy(joules: float) -> str:
    return f"{joules / 3600:.3g} Wh" if joules < 3.6e6 else f"{joules / 3.6e6:.3g} kWh"


def _part(whole: Mapping[str, Any], w: Words) -> str:
    """Of how many the money is, where it is not of all."""
    priced, of = whole["priced"]
    return f" ({w('plan.priced', n=priced, of=of)})" if 0 < priced < of else ""


def _money(money: Mapping[str, float] | None) -> str:
    return (
        "–"
        if not money
        else " + ".join(
            f"{_three(amount)} {currency}" for currency, amount in sorted(money.items())
        )
    )
