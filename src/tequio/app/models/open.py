"""Using a run's models: predict, and export."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from tequio.app.saved_models import last_shared, read_familiarity, recorded_models
from tequio.config import MAIN, Federation
from tequio.config.cache import cache_folder
from tequio.core.errors import RunError
from tequio.core.texts.words import refusal
from tequio.core.update import Dense, Update
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.participant.adapted_model import HEAD_WEIGHT, AdaptedModel
from tequio.participant.base import load_base
from tequio.participant.choice import towards
from tequio.participant.general import Familiarity

SHARED = "shared"


@dataclass(frozen=True)
class Opened:
    """A model of a run, checked against its digest:

    `config` as for its base alone, `head` as the run started from it.

    digest: of the base, as the run recorded it. beside: of a general model that answers by two, the
        shared one and what weighs them.
    """

    name: str
    base: str
    config: Federation
    model: Update
    digest: str
    head: torch.Tensor | None
    beside: tuple[Update, Familiarity] | None = None

    def adapted(self, dtype: torch.dtype = torch.float32) -> AdaptedModel:
        """Its base on this machine, in float32 unless speed matters more."""
        base = load_base(
            self.config.base.model,
            self.config.task.kind,
            dtype,
            cache_folder(),
            recorded=self.digest,
        )
        return AdaptedModel(
            base, self.config.adapter.modules, self.config.adapter.scale, self.head, self.full
        )

    @property
    def full(self) -> bool:
        """Whether whole weights were trained."""
        return self.config.adapter.kind == "full"


def open_models(run: Path, who: str | None, general: bool = False) -> list[Opened]:
    """The model asked for, or all, those of one base together; each checked against its digest in
    the ledger.

    general: of a participant the model for everybody's texts: its own and the shared one together,
        or one between them. Raises RunError
    where the run has no such model.
    """
    folder = RunFolder.open(run)
    with Ledger.open(folder.ledger_path, read_only=True) as ledger:
        header = recorded_header(ledger, folder)
        rows = [e.body for e in ledger.entries("personal")]
        personal = {
            row["name"]: next(iter(recorded_models("personal", row).items()), None) for row in rows
        }
        shared, last = ledger.last("shared"), last_shared(ledger)
    recorded = {row["name"]: row for row in rows}
    config = config_from_header(header, folder.ledger_path)
    bases = {entry.name: entry.base for entry in config.participants}
    known = {n: (bases[n], *found) for n, found in personal.items() if found is not None}
    if last is not None:
        known[SHARED] = (MAIN, last[0], str(last[1]["digest"]))
    if shared is not None:
        for base, body in shared.body.get("bases", {}).items():
            known[shared_name(base)] = (base, base_file(base, SHARED_FILE), body["digest"])
    wanted = (
        sorted(known, key=lambda n: config.base_names().index(known[n][0]))
        if who is None
        else [who]
    )
    for name in wanted:
        if name not in known:
            raise refusal(RunError, "no-model-of", run=run, name=name, names=list(known) or None)
    digests, out = recorded_bases(header), []
    for name in wanted:
        base, path, digest = known[name]
        head_digest = (
            header["head_digest"] if base == MAIN else header["bases"][base]["head_digest"]
        )
        start = read_model(folder, base_file(base, HEAD_FILE), head_digest).entries.get(HEAD_WEIGHT)
        head = start.value if isinstance(start, Dense) else None
        model = read_model(folder, path, digest)
        beside = None
        if general and name in recorded:
            found = known.get(shared_name(base))
            common = None if found is None else read_model(folder, *found[1:])
            model, beside = _general(folder, recorded[name], model, common)
        out.append(Opened(name, base, config.part(base), model, digests[base], head, beside))
    return out


def _general(
    folder: RunFolder, body: Mapping[str, Any], own: Update, shared: Update | None
) -> tuple[Update, tuple[Update, Familiarity] | None]:
    familiarity, share = read_familiarity(folder, body), body.get("general", {}).get("share")
    if shared is None or (familiarity is None and share is None):
        raise refusal(RunError, "no-general-model", folder=folder.path, name=body["name"])
    return (
        (own, (shared, familiarity))
        if familiarity is not None
        else (towards(shared, own, float(share)), None)
    )


def shared_name(base: str) -> str:
    """What the shared model of a base is called."""
    return SHARED if base == MAIN else f"{SHARED}-{base}"


def members(run: Path) -> set[str]:
    """Names on the roster, of all bases."""
    folder = RunFolder.open(run)
    with Ledger.open(folder.ledger_path, read_only=True) as ledger:
        header = recorded_header(ledger, folder)
    return {row["name"] for row in header["config"]["participants"]}
