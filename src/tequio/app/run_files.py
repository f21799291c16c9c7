"""What lies where in a run's folder, and how it is read back: models by name and digest, the ledger
only when its chain is whole.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tequio.config import MAIN, Federation, validated
from tequio.core.canonical import digest_update, pack, unpack
from tequio.core.errors import ConfigError, LedgerCorrupt, LedgerError, UpdateError
from tequio.core.texts.words import refusal
from tequio.core.update import Update
from tequio.ledger.folder import LEDGER, RunFolder
from tequio.ledger.record import Ledger, verify
from tequio.participant.choice import EARLIER_RULE

HEAD_FILE = "head.safetensors"
SHARED_FILE = "shared.safetensors"


def base_file(name: str, file: str) -> str:
    """Where a file of one base lies in the run."""
    return file if name == MAIN else f"bases/{name}/{file}"


def salt_file(name: str) -> str:
    """Where the salt of a participant's commitment lies in its folder."""
    return f"participants/{name}/salt"


def save(folder: RunFolder, relative: str, update: Update) -> None:
    """Write a model into the run's folder."""
    folder.write_atomic(relative, pack(update))


def read_model(folder: RunFolder, relative: str, expected: str) -> Update:
    """A model file of the run.

    Raises UpdateError if it is missing or not what the ledger recorded.
    """
    path = folder.path / relative
    try:
        update = unpack(path.read_bytes(), str(path))
    except OSError as error:
        raise refusal(UpdateError, "unreadable", path=path, error=type(error).__name__) from None
    if digest_update(update) != expected:
        raise refusal(UpdateError, "model-changed", path=path)
    return update


def json_table(path: Path) -> dict[str, Any]:
    """A JSON file that Tequio wrote, and that is a table.

    Raises ConfigError where it cannot be read or is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise refusal(ConfigError, "unreadable", path=path, error=error.strerror) from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise refusal(ConfigError, "damaged", path=path)
    return found


def config_from_header(header: Mapping[str, Any], path: Path) -> Federation:
    """The federation.toml that a record has.

    Raises ConfigError where this version reads it otherwise; path: of the ledger.
    """
    return validated(header["config"], Federation, path)


def unbroken(folder: RunFolder) -> Ledger:
    """The ledger, after its whole chain was checked: nothing is built on a damaged record."""
    found = verify(folder.ledger_path)
    if not found.ok:
        first = found.problems[0]
        place = str(folder.ledger_path) + ("" if first.seq is None else f", record {first.seq}")
        raise refusal(LedgerCorrupt, "records-damaged", place=place, why=first.what.rstrip("."))
    return Ledger.open(folder.ledger_path)


def begun_header(run: Path) -> Mapping[str, Any] | None:
    """The body of entry 0 of a run that may not have begun: None where it has not."""
    if not (run / LEDGER).exists():
        return None
    folder = RunFolder.open(run)
    with Ledger.open(folder.ledger_path, read_only=True) as ledger:
        return recorded_header(ledger, folder)


def recorded_bases(header: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each base that a record has, by the base's name."""
    found = {MAIN: header["base"]["digest"]}
    return found | {name: row["base"]["digest"] for name, row in header.get("bases", {}).items()}


def recorded_rule(header: Mapping[str, Any]) -> str:
    """Return the rule by which participants of a run choose their personal model, as its record
    began.
    """
    return str(header.get("choice_rule", EARLIER_RULE))


def recorded_header(ledger: Ledger, folder: RunFolder) -> Mapping[str, Any]:
    """The body of entry 0. Raises LedgerError if there is none."""
    entry = ledger.last("run")
    if entry is None:
        raise refusal(LedgerError, "record-missing", path=folder.ledger_path, record="run")
    return entry.body
