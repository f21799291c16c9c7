"""Leaving a federation: the coordinator is told, if it can be reached, and what is ours is put into
one folder that needs nobody.

The bundle is a run of its own: `tequio verify`, `predict`, `export` and `report` work on it. No
key, token, salt or data are in it.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tequio.app.models.export import export_models
from tequio.app.models.open import open_models
from tequio.app.models.verify import model_files, verify_run
from tequio.app.network.participant.join import FEDERATION, KEY, read_authority, read_identity
from tequio.app.run_files import read_model
from tequio.core.canonical import pack
from tequio.core.errors import ConfigError, LedgerCorrupt, NetworkError
from tequio.core.texts.words import refusal
from tequio.ledger.folder import BUNDLE, IDENTITY, RUN, RunFolder, own_folder
from tequio.ledger.record import Ledger
from tequio.ledger.store import copy
from tequio.runtimes.flower.enrolment_client import take_leave
from tequio.trust.keys import load_key
from tequio.trust.leave_request import leave_request

ADAPTERS, README = "adapters", "README.md"


Emissions = Callable[[Path], Mapping[str, Any]]
"""Of a run's folder: the field `co2_eq_emissions` of a model card."""


def leave_federation(
    folder: Path, out: Path | None, emissions: Emissions | None = None
) -> dict[str, Any]:
    """Tell the coordinator, and write the bundle; nothing of the folder is lost.

    `told`: whether the coordinator took it, else `why`.

    emissions: for the adapters' model cards, asked of the run, whose account book stays behind;
        None: no cards.
    Raises ConfigError if the bundle's folder is in use, RunBusy while `tequio participate` runs.
    """
    identity, run, bundle = read_identity(folder), folder / RUN, out or folder / BUNDLE
    if bundle.exists() and (not bundle.is_dir() or any(bundle.iterdir())):
        raise refusal(ConfigError, "path-exists", path=bundle)
    begun = (run / "ledger.sqlite").exists()
    with RunFolder.open(run).lock() if begun else nullcontext():
        why = "" if identity.get("told") == "yes" else _tell(folder, identity)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        left = {**identity, "left": identity.get("left", now), "told": "no" if why else "yes"}
        left.pop("bundle", None)  # of a bundle elsewhere, an earlier one
        RunFolder(folder).write_atomic(IDENTITY, json.dumps(left, indent=1).encode())
        models = _bundle(folder, identity["name"], bundle, emissions) if begun else []
        if begun and out is not None:
            place = {**left, "bundle": str(out.absolute())}
            RunFolder(folder).write_atomic(IDENTITY, json.dumps(place, indent=1).encode())
    made = str(bundle) if begun else None
    return {"name": identity["name"], "told": not why, "why": why, "bundle": made, "models": models}


def _tell(folder: Path, identity: dict[str, str]) -> str:
    """Nothing where the coordinator took it, else why not."""
    try:
        key, authority = load_key(folder / identity.get("key", KEY)), read_authority(folder)
        return take_leave(
            identity["address"], authority, leave_request(key, identity["name"], identity["node"])
        )
    except NetworkError as error:
        return str(error)


def _bundle(folder: Path, name: str, bundle: Path, emissions: Emissions | None) -> list[str]:
    """The models in it. It appears whole or not at all."""
    run, fresh = folder / RUN, bundle.with_name(f".{bundle.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)  # of a try that was cut off
    copy(run / "ledger.sqlite", own_folder(fresh) / "ledger.sqlite")
    place = RunFolder(fresh)
    with Ledger.open(fresh / "ledger.sqlite", read_only=True) as ledger:
        for file, digest in model_files(ledger).items():
            place.write_atomic(file, pack(read_model(RunFolder(run), file, digest)))
    place.write_atomic(FEDERATION, (folder / FEDERATION).read_bytes())
    opened = open_models(fresh, None)
    if opened and not opened[0].full:
        carbon = None if emissions is None else emissions(run)
        export_models(fresh, None, fresh / ADAPTERS, False, carbon, rank=None)
    models = [model.name for model in opened]
    place.write_atomic(README, _readme(name, models).encode())
    found = verify_run(fresh)
    if not found["ok"]:
        raise refusal(
            LedgerCorrupt,
            "records-damaged",
            place=str(run),
            why=str(found["problems"][0]).rstrip("."),
        )
    if bundle.exists():
        bundle.rmdir()
    os.replace(fresh, bundle)
    return models


def _readme(name: str, models: list[str]) -> str:
    """How to go on alone, in plain words, English and Spanish."""
    whose = name if name in models or not models else models[0]
    return (
        TEXT.replace("MODELS", ", ".join(models) or "–")
        .replace("WHOSE", whose)
        .replace("NAME", name)
    )


TEXT = """\
# What NAME takes along

This folder needs no coordinator and no network. There is no key, no token and no text of your data in it.

- `ledger.sqlite`: your own record; `tequio verify .` recomputes it and checks every model against it.
- `participants/NAME/`: your personal model, where one was made, and the last shared model that you were sent.
- `shared.safetensors`: the final shared model, where it was made.
- `adapters/`: the same in PEFT's format with a model card, which loads without Tequio (not where whole weights were trained).
- `federation.toml`: what all had agreed to. `report.en.html`, `report.es.html`: the report.

In it are models of: MODELS.

    tequio predict . WHOSE "a text"
    tequio export . --merged

To make a new personal model from the last shared model and your data, with no network: `tequio island FOLDER`, on the folder that
`tequio join` made.
Guard the models as you guard your data: who has one can learn something about the data it was made from.
To come back, ask the coordinator for a new invitation.

# Lo que NAME se lleva

Esta carpeta no necesita coordinación ni red. No contiene claves, ni invitaciones, ni textos de sus datos.

- `ledger.sqlite`: su propio registro; `tequio verify .` lo recalcula y compara con él cada modelo.
- `participants/NAME/`: su modelo personal, si se hizo, y el último modelo compartido que recibió.
- `shared.safetensors`: el modelo compartido final, si se hizo.
- `adapters/`: lo mismo en el formato de PEFT, con una ficha; se carga sin Tequio (salvo si se entrenaron los pesos completos).
- `federation.toml`: lo que todos acordaron. `report.en.html`, `report.es.html`: el informe.

Contiene modelos de: MODELS.

    tequio predict . WHOSE "un texto"
    tequio export . --merged

Para hacer otro modelo personal con el último modelo compartido y sus datos, sin red: `tequio island FOLDER`, con la carpeta que creó
`tequio join`.
Guarde los modelos como guarda sus datos: quien tiene uno puede averiguar algo de los datos con que se hizo.
Para volver, pida una nueva invitación a la coordinación.
"""
