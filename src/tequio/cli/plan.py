"""`tequio plan`: what a federation will take before it runs, and after a run the forecast beside what was measured."""

from __future__ import annotations

import json as json_
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from tequio.cli import show
from tequio.cli.command import Json, Lang, Threads, set_threads

SHOWN = 8  # ways and devices in the terminal; the page and --json have all


def plan(
    federation: Annotated[Path, typer.Argument(help="federation.toml.")],
    machine: Annotated[
        str | None,
        typer.Option(
            "--machine", help="A device of the catalogue for everybody. Default: as each says, else this machine."
        ),
    ] = None,
    devices: Annotated[
        Path | None, typer.Option("--devices", help="TOML with devices of your own, over the catalogue.")
    ] = None,
    tariff: Annotated[
        float | None, typer.Option("--tariff", help="US dollars a kWh, for machines that are bought.", min=0)
    ] = None,
    after: Annotated[
        Path | None,
        typer.Option(
            "--after", help="A finished run of the last plan: set the two side by side, and correct the next."
        ),
    ] = None,
    own: Annotated[
        bool,
        typer.Option(
            "--own", help="With participants' private money, carbon and budgets: for yourself, not to pass on."
        ),
    ] = False,
    threads: Threads = 0,
    lang: Lang = "en",
    json: Json = False,
) -> None:
    """Forecast memory, time, energy, carbon and money for each and in all, and other ways to do it; a page and plan.json are written."""
    from tequio.recipes.forecast import compare, not_learnt, recalibrate
    from tequio.web.plan import write_plan

    home = federation.resolve().parent
    if after is not None:
        found = last_plan(home)
        result = compare(found, after)
        result |= {"factors": recalibrate(found, result), "not_learnt": not_learnt(result)}
        write_plan(home, found | {"after": result}, lang)
        show.emit(result, json, lambda: _after(result))
        return
    set_threads(threads)
    from tequio.planning.card import card_name
    from tequio.planning.devices import catalogue, device_of
    from tequio.recipes.config import load_federation
    from tequio.recipes.forecast import key_of, known_factors
    from tequio.recipes.plan import make_plan
    from tequio.recipes.wire import read_roster, wire

    config, known = load_federation(federation), catalogue(devices)
    if machine is not None:
        device_of(machine, known)
    roster = read_roster(config)
    wired = wire(config, roster=roster)
    import torch

    factors = known_factors(key_of(wired.bench.base.digest, torch.get_num_threads(), card_name()))
    result = make_plan(config, wired, roster, known, machine, factors, tariff, own)
    path = write_plan(home, result, lang)
    show.emit(result | {"page": str(path)}, json, lambda: _words(result, path))


def last_plan(home: Path) -> dict[str, Any]:
    """plan.json in a federation's folder. Raises ConfigError where there is none."""
    from tequio.core.errors import ConfigError

    try:
        found: dict[str, Any] = json_.loads((home / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        what = f"There is no plan of it in {home}."
        raise ConfigError(what, "", "Make one before the run: tequio plan federation.toml") from None
    return found


def _words(result: Mapping[str, Any], path: Path) -> None:
    table = Table(title=f"Plan of {result['federation']}: each on its own machine")
    for column in ("who", "machine", "rank", "fits", "rounds", "personal", "energy", "g CO2e", "money", "sent"):
        table.add_column(column, justify="left" if column in ("who", "machine") else "right", no_wrap=True)
    rows = [*result["participants"], *([result["centre"]] if result["centre"] else [])]
    for row in rows:
        seconds = row["seconds"]
        own = next((m for m in row["memory"] if m["kind"] == f"LoRA, rank {row['rank']}"), row["memory"][-1])
        table.add_row(
            row["name"],
            row["machine"],
            str(row["rank"]),
            f"{'yes' if own['fits'] else 'NO'}, {own['need'] / 2**30:.2f} of {own['have'] / 2**30:.1f} GiB",
            _time(seconds["train"] + seconds["evaluate"] + seconds["network"]),
            _time(seconds["personal"]),
            _energy(row["joules"]),
            "–" if row["grams"] is None else f"{row['grams']:.3g}",
            _money(row["money"]),
            f"{row['bytes_up'] / 1e6:.2f} MB",
        )
    whole = result["total"]
    carbon = "–" if whole["grams"] is None else f"{whole['grams']:.3g}"
    table.add_row(
        *("in all", "", "", _one_process(result), _time(whole["seconds"]), ""),
        *(_energy(whole["joules"]), carbon, _money(whole["money"]) + _part(whole), f"{whole['bytes_up'] / 1e6:.2f} MB"),
    )
    show.table(table)
    _declared(result)
    table = Table(title=f"Ways to do it (* Pareto set over {', '.join(result['axes'])}; (*) if data could leave)")
    for column in ("way", "where", "texts a model learns from", "time", "energy", "g CO2e", "money", "best"):
        table.add_column(column, justify="left" if column in ("way", "where", "best") else "right", no_wrap=True)
    for row in result["options"][:SHOWN]:
        mark = "*" if row["best"] else "(*)" if row["best_of_all"] else ""
        table.add_row(
            *(row["key"], row["where"], f"{row['quality']:.0f}", _time(row["seconds"]), _energy(row["joules"])),
            *("–" if row["grams"] is None else f"{row['grams']:.3g}", _money(row["money"]), mark),
        )
    show.table(table)
    for row in result["break_even"][:SHOWN]:
        if row["hours"] is not None:
            unsure = f" (unchecked: {', '.join(row['unsure'])})" if row["unsure"] else ""
            runs = f", {row['runs']:.3g} such runs" if row["runs"] else ""
            show.out.print(
                f"{row['device']}: buying ({row['buy']:.0f} USD) beats renting ({row['rent']:.2f} USD/h) after "
                f"{row['hours']:.0f} hours of use{runs}{unsure}.",
                markup=False,
            )
    weak = result["weakest"]
    if weak is not None:
        show.out.print(
            f"The weakest is {weak['name']}: rank {weak['rank']}, {weak['steps']} steps, {_time(weak['round_seconds'])} a round "
            f"(the group's: {_time(weak['group_round_seconds'])}). What would help, most first:",
            markup=False,
        )
        for lever in weak["levers"]:
            show.out.print(
                f"  {lever['what']}: rank {lever['rank']}, {lever['steps']} steps, a round of {_time(lever['round_seconds'])}",
                markup=False,
            )
    corrected = {k: v for k, v in result["factors"].items() if v != 1.0}
    if corrected:
        show.out.print("Corrected by earlier runs: " + ", ".join(f"{k} × {v:.3g}" for k, v in corrected.items()))
    for limit in result["limits"]:
        show.out.print(f"[dim]{limit}[/dim]")
    show.out.print(f"Page: {path}", markup=False)


def _one_process(result: Mapping[str, Any]) -> str:
    """The memory of all of it in one process, and of that process on its graphics card where it has one."""
    card = result["card_memory"]
    beside = "" if card is None else f", card {card / 2**30:.2f}"
    return f"one process {result['process_memory'] / 2**30:.2f}{beside} GiB"


def _declared(result: Mapping[str, Any]) -> None:
    """What is left out as private; budgets and declared speeds beside the forecast."""
    from tequio.measure.budget import WORDS

    if result["private"]:
        kept = "; ".join(f"{name}: {', '.join(what)}" for name, what in result["private"].items())
        show.out.print(f"Private, and left out: {kept}. With them, for yourself: --own.", markup=False)
    if result["budgets"]:
        table = Table(title="Budgets: what does not fit is not made")
        numbers = ("rounds", "with personal models", "budget")
        for column in ("whose", "of", *numbers, ""):
            table.add_column(column, justify="right" if column in numbers else "left", no_wrap=True)
        for row in result["budgets"]:
            need = ["–" if row[key] is None else f"{row[key]:.3g} {row['unit']}" for key in ("rounds", "whole")]
            limit = f"{row['limit']:g} {row['unit']}"
            table.add_row(row["who"] or "all together", WORDS[row["key"]], *need, limit, _fits(row))
        show.table(table)
    if result["declared"]:
        each = ", ".join(f"{row['name']} {_time(row['seconds'])}" for row in result["declared"])
        show.out.print(
            "Times on this machine are by its own speed, the same for all. By the tokens_per_second that they declare, training and "
            f"uploads of all rounds would take: {each}.",
            markup=False,
        )


def _fits(row: Mapping[str, Any]) -> str:
    rounds, whole = row["ratio"], row["whole_ratio"]
    if rounds is None:
        return "not known"
    if rounds > 1:
        return f"rounds over by × {rounds:.3g}"
    return "within" if whole <= 1 else f"over by × {whole:.3g}: personal models cut"


def _after(result: Mapping[str, Any]) -> None:
    table = Table(title="Forecast beside outcome (seconds at work)")
    for column in ("who", "train", "evaluate", "personal", "in all", "measured ÷ forecast", "energy ÷ forecast"):
        table.add_column(column, justify="left" if column == "who" else "right", no_wrap=True)
    for row in result["participants"]:
        said, was = row["predicted"], row["measured"]
        both = [f"{said[k]:.1f} → {was[k]:.1f}" for k in ("train", "evaluate", "personal", "work")]
        why = "" if row["alike"] else " (cut by a budget)" if row["cut"] else f" (forecast: {row['machine']})"
        name = f"{row['name']}{why}"
        table.add_row(name, *both, *(_ratio(row[key] if row["alike"] else None) for key in ("ratio", "joules_ratio")))
    show.table(table)
    for what, memory in (("process", result["memory"]), ("graphics card", result["card"])):
        if memory["ratio"]:
            show.out.print(
                f"Memory of the {what}: {memory['predicted'] / 2**30:.2f} GiB forecast, {memory['measured'] / 2**30:.2f} GiB at most, "
                f"{memory['ratio']:.2f} of it."
            )
    show.out.print(
        f"Time {_ratio(result['ratio'])}, energy {_ratio(result['joules_ratio'])} of the forecast, of those that were computed where "
        "they were forecast. The next plan is corrected: "
        + (", ".join(f"{machine} × {factor:.3g}" for machine, factor in result["factors"].items()) or "by nothing")
    )
    if result["not_learnt"]:
        why = "all of it was computed on this machine" if result["simulation"] else "each worked on its own machine"
        show.out.print(f"Not learnt: {', '.join(result['not_learnt'])}. In this run {why}.", markup=False)


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _energy(joules: float) -> str:
    return f"{joules / 3600:.3g} Wh" if joules < 3.6e6 else f"{joules / 3.6e6:.3g} kWh"


def _part(whole: Mapping[str, Any]) -> str:
    """Of how many the money is, where it is not of all."""
    priced, of = whole["priced"]
    return f" (of {priced} of {of})" if 0 < priced < of else ""


def _money(money: Mapping[str, float] | None) -> str:
    return "–" if not money else " + ".join(f"{amount:.3g} {currency}" for currency, amount in sorted(money.items()))
