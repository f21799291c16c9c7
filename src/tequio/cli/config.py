"""`tequio config`: what a key of the configuration files means, and their JSON Schema."""

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from tequio.cli import output
from tequio.cli.options import Json

config = typer.Typer(
    help="Keys of both configuration files: their meaning, and JSON Schemas.", no_args_is_help=True
)


@config.command("explain")
def explain(
    key: Annotated[
        str,
        typer.Argument(help="A key, with or without its table (train.rounds, rounds), or a table."),
    ],
    json: Json = False,
) -> None:
    """Say what a key of federation.toml or participant.toml means, its type, and its default."""
    from tequio.config.reference import find

    found = find(key)

    def words() -> None:
        for each in found:
            kind = f"type: {each.type}\n  default: {each.default}".replace("**", "").replace(
                "`", ""
            )
            output.out.print(f"{each.name} ({each.file})\n  {each.meaning}\n  {kind}\n")

    output.emit({"keys": [asdict(each) for each in found]}, json, words)


@config.command("schema")
def schema(
    file: Annotated[
        Literal["federation", "participant"], typer.Argument(help="Of which file.")
    ] = "federation",
    json: Json = False,
) -> None:
    """Print the JSON Schema (Draft 2020-12) of federation.toml or participant.toml, with which
    editors explain and check keys.
    """
    from tequio.config.reference import schema as schema_of

    output.emit(schema_of(file), True, lambda: None)
