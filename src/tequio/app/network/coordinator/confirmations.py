"""Which participants have not heard yet that the coordinator recorded their personal model: a
participant ends only when it has.

Their names stand in a file of the coordinator's folder, so that a coordinator that is started again
on a run that is over listens for them. The record has none of it: nothing of the outcome depends on
what a participant has heard.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tequio.app.network.hub.folder import UNCONFIRMED, node_numbers
from tequio.app.run_files import json_table
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger


def note_unheard(hub: Path, name: str, digest: str) -> None:
    """Note that a participant is to hear of its personal model.

    Called before the record has the model, so that a kill loses no name.
    """
    _write(hub, _rows(hub) | {name: digest})


def note_heard(hub: Path, names: Iterable[str]) -> None:
    """Note that these participants have heard of their personal models."""
    rows, heard = _rows(hub), set(names)
    if heard & rows.keys():
        _write(hub, {name: digest for name, digest in rows.items() if name not in heard})


def unheard(hub: Path, run: Path) -> dict[str, str]:
    """Return each participant that has not heard that its personal model is on record, with the
    model's digest; none that left.
    """
    rows, nodes = _rows(hub), node_numbers(hub)
    if not rows:
        return {}
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        recorded = {
            entry.body["name"]: entry.body.get("digest") for entry in ledger.entries("personal")
        }
    return {
        name: digest
        for name, digest in rows.items()
        if name in nodes and recorded.get(name) == digest
    }


def _rows(hub: Path) -> dict[str, str]:
    path = hub / UNCONFIRMED
    found = json_table(path) if path.exists() else {}
    return {name: digest for name, digest in found.items() if isinstance(digest, str)}


def _write(hub: Path, rows: Mapping[str, str]) -> None:
    RunFolder(hub).write_atomic(UNCONFIRMED, json.dumps(rows, indent=1).encode())
