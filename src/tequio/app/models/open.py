"""Using a run's models: predict, and export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from tequio.app.run_files import (
    HEAD_FILE,
    SHARED_FILE,
    base_file,
    config_from_header,
    read_model,
    recorded_bases,
    recorded_header,
)
from tequio.app.saved_models import last_shared, recorded_models
from tequio.config import MAIN, Federation
from tequio.config.cache import cache_folder
from tequio.core.errors import RunError
from tequio.core.update import Dense, Update
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.adapted_model import HEAD_WEIGHT, AdaptedModel
from tequio.participant.base import load_base
from tequio.participant.choice import towards

SHARED = "shared"


@dataclass(frozen=True)
class Opened:
    """A model of a run, checked against its digest: `config` as for its base alone, `head` as the run started from it.

    digest: of the base, as the run recorded it.
    """

    name: str
    base: str
    config: Federation
    model: Update
    digest: str
    head: torch.Tensor | None

    def adapted(self, dtype: torch.dtype = torch.float32) -> AdaptedModel:
        """Its base on this machine, in float32 unless speed matters more."""
        base = load_base(self.config.base.model, self.config.task.kind, dtype, cache_folder(), recorded=self.digest)
        return AdaptedModel(base, self.config.adapter.modules, self.config.adapter.scale, self.head, self.full)

    @property
    def full(self) -> bool:
        """Whether whole weights were trained."""
        return self.config.adapter.kind == "full"


def open_models(run: Path, who: str | None, general: bool = False) -> list[Opened]:
    """The model asked for, or all, those of one base together; each checked against its digest in the ledger.

    general: of a participant the model for everybody's texts, which lies between the shared model and its own. Raises
    RunError where the run has no such model.
    """
    folder = RunFolder.open(run)
    with Ledger.open(folder.ledger_path, read_only=True) as ledger:
        header = recorded_header(ledger, folder)
        rows = [e.body for e in ledger.entries("personal")]
        personal = {row["name"]: next(iter(recorded_models("personal", row).items()), None) for row in rows}
        shared, last = ledger.last("shared"), last_shared(ledger)
    shares = {row["name"]: row.get("general", {}).get("share") for row in rows}
    config = config_from_header(header, folder.ledger_path)
    bases = {entry.name: entry.base for entry in config.participants}
    known = {n: (bases[n], *found) for n, found in personal.items() if found is not None}
    if last is not None:
        known[SHARED] = (MAIN, last[0], str(last[1]["digest"]))
    if shared is not None:
        for base, body in shared.body.get("bases", {}).items():
            known[shared_name(base)] = (base, base_file(base, SHARED_FILE), body["digest"])
    wanted = sorted(known, key=lambda n: config.base_names().index(known[n][0])) if who is None else [who]
    for name in wanted:
        if name not in known:
            these = ", ".join(known) or "none yet: the run has not come that far"
            raise RunError(f"{run} has no model of {name!r}.", f"It has: {these}.", "Name one of these.")
    digests, out = recorded_bases(header), []
    for name in wanted:
        base, path, digest = known[name]
        head_digest = header["head_digest"] if base == MAIN else header["bases"][base]["head_digest"]
        start = read_model(folder, base_file(base, HEAD_FILE), head_digest).entries.get(HEAD_WEIGHT)
        head = start.value if isinstance(start, Dense) else None
        model = read_model(folder, path, digest)
        if general and name in shares:
            found = known.get(shared_name(base))
            common = None if found is None else read_model(folder, *found[1:])
            model = _general(run, name, model, common, shares[name])
        out.append(Opened(name, base, config.part(base), model, digests[base], head))
    return out


def _general(run: Path, name: str, own: Update, shared: Update | None, share: float | None) -> Update:
    if share is None or shared is None:
        why = "An earlier version made its personal model." if share is None else "Its shared model is not known here."
        raise RunError(f"{run} has no general model of {name!r}.", why, "Use its shared model: give the name 'shared'.")
    return towards(shared, own, share)


def shared_name(base: str) -> str:
    """What the shared model of a base is called."""
    return SHARED if base == MAIN else f"{SHARED}-{base}"


def members(run: Path) -> set[str]:
    """Names on the roster, of all bases."""
    folder = RunFolder.open(run)
    with Ledger.open(folder.ledger_path, read_only=True) as ledger:
        header = recorded_header(ledger, folder)
    return {row["name"] for row in header["config"]["participants"]}
