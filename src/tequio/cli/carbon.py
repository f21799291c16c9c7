"""`tequio carbon`: files of carbon intensities, and the table of countries."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tequio.cli import output
from tequio.cli.options import Json

carbon = typer.Typer(
    help="Carbon intensities of electricity: import a publisher's file, check one, list countries.",
    no_args_is_help=True,
)
File = Annotated[Path, typer.Argument(help="A file on this machine; nothing is fetched.")]


@carbon.command("import")
def import_(
    file: File,
    source: Annotated[
        Literal["uk", "carbon-aware", "electricity-maps", "watttime"],
        typer.Option("--from", help="Who published it."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="The CSV to write. Default: intensity.csv here.")
    ] = None,
    zone: Annotated[
        str | None, typer.Option("--zone", help="Its zone, where the file does not say.")
    ] = None,
    licence: Annotated[
        str, typer.Option("--licence", help="The publisher's terms, kept with each value.")
    ] = "not stated",
    issued: Annotated[
        str | None,
        typer.Option(
            "--issued", help="When its forecasts were made (UTC), where the file does not say."
        ),
    ] = None,
    estimated: Annotated[
        bool,
        typer.Option(
            "--estimated",
            help="Keep values that the publisher estimated, marked. Default: left out.",
        ),
    ] = False,
    forecasts: Annotated[
        bool, typer.Option("--forecasts/--no-forecasts", help="Keep forecasts, or leave them out.")
    ] = True,
    json: Json = False,
) -> None:
    """Turn a publisher's file into the canonical CSV that `[energy] intensity` reads."""
    from tequio.measure.intensity_files import import_file

    found = import_file(
        file, source, out or Path("intensity.csv"), zone, licence, issued, estimated, forecasts
    )

    def words() -> None:
        if found["estimated"]:
            output.out.print(
                f"Estimated by the publisher, and marked in their source: {found['estimated']} "
                "values."
            )
        for reason, count in found["left_out"].items():
            keep = "; keep them, marked, with --estimated" if reason == "estimated" else ""
            output.out.print(f"Left out, {reason}: {count} of the file's values{keep}.")
        _say(found, f'Wrote {found["file"]}. Use it: [energy] intensity = "{found["file"]}"')

    output.emit(found, json, words)


@carbon.command()
def check(file: File, json: Json = False) -> None:
    """Read a canonical CSV strictly, and say what is in it."""
    from tequio.measure.intensity_files import check_file

    found = check_file(file)
    output.emit(found, json, lambda: _say(found, "No gap, no overlap."))


@carbon.command()
def countries(
    name: Annotated[
        str | None, typer.Argument(help="One country, by code or name. Default: all.")
    ] = None,
    json: Json = False,
) -> None:
    """Annual averages by country, with their year and source."""
    from tequio.measure.intensity_files import table_of

    found = table_of(name)

    words = [
        f"{row['alpha_2']}  {row['alpha_3']}  {row['g_per_kwh']:7.1f}  {row['year']}  "
        f"{row['country']}"
        for row in found["countries"]
    ]
    output.emit(found, json, lambda: output.say(*words, f"g CO2e/kWh. {found['source']}"))


def _say(found: dict[str, object], end: str) -> None:
    for row in found["series"]:  # type: ignore[attr-defined]
        output.out.print(
            f"{row['zone']}, {row['kind']}, {row['signal']}: {row['windows']} values from "
            f"{row['from']} to {row['to']}, {_grams(row['lowest'])} to {_grams(row['highest'])}, "
            f"mean {_grams(row['mean'])} g CO2e/kWh",
            markup=False,
        )
    output.out.print(end, markup=False)


def _grams(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
