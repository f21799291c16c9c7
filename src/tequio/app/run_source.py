"""Where the federation.toml of a run lies, and whether it was edited since: a run resumes what its
record says, and not the file.

source.json   the file as seen from the run, the folder in which it lay, and whether its seed was replaced on the command line
"""

import json
import os
from pathlib import Path
from typing import Any

from tequio.app.run_files import json_table
from tequio.config import Federation, changes, load_federation, stored
from tequio.core.errors import RunError
from tequio.core.texts.words import refusal
from tequio.ledger.folder import RunFolder

SOURCE = "source.json"


def remember_source(folder: RunFolder, federation: Path, seed: int | None) -> None:
    """Keep in a new run where its federation.toml is; it is in no record, for it is a path of this
    machine.
    """
    file = federation.resolve()
    found = {
        "federation": os.path.relpath(file, folder.path.resolve()),
        "root": str(file.parent),
        "seed": seed,
    }
    folder.write_atomic(SOURCE, json.dumps(found, indent=1).encode())


def check_unedited(run: Path, recorded: Federation) -> None:
    """Raises RunError naming each key of federation.toml that differs from the record; without such
    a file the record alone counts.
    """
    found = _source(run, recorded)
    if found is None:
        return
    file, root, seed = found
    now = load_federation(file)
    if seed is not None:
        now = now.model_copy(update={"seed": seed})
    then = _moved(stored(recorded), root, str(file.parent))
    differences = changes(stored(now), then)
    if differences:
        raise refusal(
            RunError, "run-edited", run=str(run), file=str(file), differences="; ".join(differences)
        )


def _source(run: Path, recorded: Federation) -> tuple[Path, str, int | None] | None:
    """(federation.toml, the folder in which it lay, the seed that replaced its own), where it is
    still there.
    """
    folder = run.resolve()
    if (folder / SOURCE).is_file():
        found = json_table(folder / SOURCE)
        file = Path(os.path.normpath(folder / str(found.get("federation", ""))))
        seed = found.get("seed")
        return (
            (file, str(found.get("root")), seed if isinstance(seed, int) else None)
            if file.is_file()
            else None
        )
    file = folder.parent.parent / "federation.toml"  # where runs of earlier versions have it
    if (
        folder.parent.name != "runs"
        or not file.is_file()
        or load_federation(file).name != recorded.name
    ):
        return None
    return file, str(file.parent), recorded.seed


def _moved(value: Any, old: str, new: str) -> Any:
    """`value` with its paths below the folder `old` below `new`, where the whole federation was
    moved.
    """
    if isinstance(value, dict):
        return {key: _moved(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_moved(item, old, new) for item in value]
    if isinstance(value, str) and (value == old or value.startswith(old + os.sep)):
        return new + value[len(old) :]
    return value
