"""The worlds by name, and how each is written as a federation that `tequio run` takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.study.worlds import (
    airlines,
    clinics,
    excavators,
    hospitals,
    manual_languages,
    manual_sections,
    schools,
)
from benchmarks.study.worlds.types import RealWorld
from tequio.app.demos.catalogue import RECIPES
from tequio.app.demos.text import Sample
from tequio.app.demos.types import describe, four_tiers
from tequio.config.cache import cache_folder
from tequio.config.templates import write_federation
from tequio.core.canonical import canonical_json, digest
from tequio.core.errors import ConfigError, ResourceError

WORLDS: Mapping[str, Callable[[Path, int], RealWorld]] = {
    hospitals.NAME: hospitals.prepare,
    airlines.NAME: airlines.prepare,
    excavators.NAME: excavators.prepare,
    schools.NAME: schools.prepare,
    schools.DISJOINT: schools.prepare_disjoint,
    clinics.NAME: clinics.prepare,
    clinics.EXTREME: clinics.prepare_extreme,
    manual_sections.NAME: manual_sections.prepare,
    manual_languages.NAME: manual_languages.prepare,
}
FASTEST = {"minilm": 4000.0, "smollm2": 300.0}  # tokens a second, as in the demos
SOURCES = "sources.json"


def make_world(name: str, seed: int = 0) -> RealWorld:
    """Fetch what the world needs into the cache, and split it.

    ConfigError if it is unknown, DataError offline.
    """
    if name not in WORLDS:
        raise ConfigError(f"There is no world {name!r}.", f"Known: {', '.join(WORLDS)}.")
    return WORLDS[name](cache_folder(), seed)


def write_world(
    name: str,
    folder: Path,
    seed: int = 0,
    limits: Mapping[str, int] = MappingProxyType({}),
    changes: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    with_centre: bool = True,
) -> Path:
    """Write the world below `folder` and return its federation.toml.

    ConfigError if something stands there already.

    limits: caps on each participant's rows (`max_train`, `max_validation`, `max_test`); none by
        default.
    changes: table -> keys that replace the demo's settings, such as {"train": {"rounds": 3}}.
    with_centre = False leaves out centre and gate.
    """
    world = make_world(name, seed)
    return write(world, folder, _model(world), limits, changes, with_centre)


def write(
    world: RealWorld,
    folder: Path,
    model: Path,
    limits: Mapping[str, int] = MappingProxyType({}),
    changes: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    with_centre: bool = True,
) -> Path:
    """Write a world that was made already, over the base in `model`. See `write_world`."""
    recipe = RECIPES[world.like]
    federation: dict[str, Any] = {
        "name": f"world-{world.name}",
        "seed": world.seed,
        "base": {"model": str(model), "licence": recipe.model.licence},
        **{key: dict(value) for key, value in recipe.settings.items()},
    }
    federation["train"]["round_seconds"] = recipe.round_seconds
    if world.labels is not None:
        federation["task"]["labels"] = dict(world.labels)
    if world.centre is not None and with_centre:
        licence = _licences(world)
        federation["centre"] = {**federation["centre"], "data": "centre.jsonl", "licence": licence}
        federation["gate"]["slices"] = {n: f"slices/{n}.jsonl" for n in world.slices}
    else:
        federation.pop("centre", None)
        federation.pop("gate", None)
    for table, keys in changes.items():
        federation[table] = {**federation.get(table, {}), **keys}
    path = write_federation(folder, federation, _roster(world, limits))
    _write_texts(world, folder)
    return path


def sizes(world: RealWorld) -> dict[str, Any]:
    """Return counts and licences that may be shown; no text."""
    return {
        "world": world.name,
        "seed": world.seed,
        "counts": {place: describe(rows) for place, rows in world.places().items()},
        "removed_duplicates": dict(world.removed),
        "sources": [asdict(entry) for entry in (*world.provenance, RECIPES[world.like].model)],
    }


def _model(world: RealWorld) -> Path:
    return RECIPES[world.like].base(cache_folder())


def _licences(world: RealWorld) -> str:
    return "; ".join(f"{entry.name}: {entry.licence}" for entry in world.provenance)


def _roster(world: RealWorld, limits: Mapping[str, int]) -> Sequence[Mapping[str, Any]]:
    tiers = four_tiers(FASTEST[world.base])
    licence = _licences(world)
    return [
        {
            "name": name,
            "data": {
                **{part: f"../data/{name}/{part}.jsonl" for part in split.parts()},
                **limits,
                "licence": licence,
            },
            "hardware": asdict(tiers[world.ranks[name]]),
        }
        for name, split in world.participants.items()
    ]


def _write_texts(world: RealWorld, folder: Path) -> None:
    """Write each place's texts as JSONL, and sources.json with counts, licences and the digests of
    the files.
    """
    try:
        files = {f"{place}.jsonl": _jsonl(rows) for place, rows in world.places().items()}
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        record = {
            **sizes(world),
            "files": {file: digest(content) for file, content in files.items()},
        }
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        (folder / SOURCES).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResourceError(
            f"{folder} cannot be written ({error.strerror}).", "", "Name another folder."
        ) from None


def _jsonl(rows: Sequence[Sample]) -> bytes:
    return b"".join(canonical_json(row.as_row()) + b"\n" for row in rows)
