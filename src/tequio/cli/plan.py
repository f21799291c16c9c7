"""`tequio plan`: what a federation will take before it runs, and after a run the forecast beside
what was measured.
"""

import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

import tequio
from tequio.cli import output
from tequio.cli.options import Json, Lang, Threads, set_threads
from tequio.core.texts.words import refusal


def plan(
    federation: Annotated[Path, typer.Argument(help="federation.toml.")],
    machine: Annotated[
        str | None,
        typer.Option(
            "--machine",
            help="A device of the catalogue for everybody. Default: as each says, else this "
            "machine.",
        ),
    ] = None,
    devices: Annotated[
        Path | None,
        typer.Option("--devices", help="TOML with devices of your own, over the catalogue."),
    ] = None,
    tariff: Annotated[
        float | None,
        typer.Option("--tariff", help="US dollars a kWh, for machines that are bought.", min=0),
    ] = None,
    after: Annotated[
        Path | None,
        typer.Option(
            "--after",
            help="A finished run of the last plan: set the two side by side, and correct the next.",
        ),
    ] = None,
    own: Annotated[
        bool,
        typer.Option(
            "--own",
            help="With participants' private money, carbon and budgets: for yourself, not to pass "
            "on.",
        ),
    ] = False,
    pilot: Annotated[
        bool,
        typer.Option(
            "--pilot", help="Also try one round: foretells for each whether joining will pay."
        ),
    ] = False,
    threads: Threads = 0,
    lang: Lang = "en",
    json: Json = False,
) -> None:
    """Forecast memory, time, energy, carbon and money for each and in all, and other ways to do it;
    a page and plan.json are written.
    """
    from tequio.app.preflight import check_federation, check_run

    if after is not None:
        check_run(after)
    check_federation(federation)
    from tequio.app.forecast.calibration import compare, not_learnt, recalibrate
    from tequio.cli.plan_tables import print_after, print_plan
    from tequio.report.html.plan import write_plan

    home = federation.resolve().parent
    if after is not None:
        last = last_plan(home)
        result = compare(last, after)
        result |= {"factors": recalibrate(last, result), "not_learnt": not_learnt(result)}
        write_plan(home, last | {"after": result}, lang)
        output.emit(result, json, lambda: print_after(result, lang), lang)
        return
    set_threads(threads)
    found = tequio.forecast(
        federation, machine=machine, devices=devices, tariff=tariff, own=own, pilot=pilot
    )
    result = dict(found.facts)
    path = write_plan(home, result, lang)
    output.emit(result | {"page": str(path)}, json, lambda: print_plan(result, path, lang), lang)


def last_plan(home: Path) -> dict[str, Any]:
    """plan.json in a federation's folder. Raises ConfigError where there is none."""
    from tequio.core.errors import ConfigError

    try:
        found: dict[str, Any] = json_.loads((home / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise refusal(ConfigError, "plan-missing", folder=home) from None
    return found
