"""`tequio backup`: a copy of the coordinator's folder that can be restored."""

from pathlib import Path
from typing import Annotated

import typer

from tequio.cli import output
from tequio.cli.options import Json


def backup(
    folder: Annotated[
        Path, typer.Argument(help="Folder that `coordinator init` made.", metavar="HUB")
    ],
    target: Annotated[
        Path, typer.Argument(help="New folder, or new file that ends in .tar or .tar.gz.")
    ],
    json: Json = False,
) -> None:
    """Copy a coordinator's folder, keys included, so that it can be restored.

    The coordinator may serve meanwhile.
    """
    from tequio.app.network.hub.backup import back_up

    made = back_up(folder, target)

    def words() -> None:
        output.out.print(
            f"Wrote {made.path}: {made.files} files, {made.bytes:,} bytes, {made.records} records."
        )
        output.out.print(
            "It holds the coordinator's keys and tokens: only you may read it. Keep it as you keep "
            "a key."
        )
        if made.outside:
            output.out.print("The coordinator also needs these, which are not in it:")
            for path in made.outside:
                output.out.print(f"  {path}")
        output.out.print("How to restore it: docs/operating.md.")

    output.emit(made.facts(), json, words)
