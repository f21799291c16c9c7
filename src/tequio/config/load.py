"""How both files are read: strictly; what is wrong is said key by key (`explain`).

Relative paths start at the file's own folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from tequio.config.accounting import EnergySection
from tequio.config.explain import explain
from tequio.config.federation import Federation
from tequio.config.fields import Section
from tequio.config.participant import ParticipantFile
from tequio.config.reference import FILES
from tequio.config.sections import BaseSection
from tequio.config.stored import RETIRED, without_retired
from tequio.config.toml_text import decode_toml, parse_toml
from tequio.core.errors import ConfigError
from tequio.core.files import read_regular

Model = TypeVar("Model", bound=Section)
LARGEST = 1 << 22  # bytes of a configuration file


def load_federation(path: Path) -> Federation:
    """Read federation.toml; paths in it become absolute. Raises ConfigError naming file and key."""
    return _absolute_federation(_load(path, Federation), path.resolve().parent)


def federation_of_text(text: str, source: str) -> Federation:
    """A federation.toml that came as text, from `source`; its paths are those of the machine that it came from."""
    return validated(parse_toml(text, source), Federation, Path(source))


def load_participant(path: Path | None, expected: str | None = None) -> ParticipantFile:
    """Read a participant.toml whose name must be `expected`, if given. Raises ConfigError naming file and key."""
    if path is None:
        fix = 'Add file = "…/participant.toml" to it, or run across a network: tequio coordinator --help'
        raise ConfigError(f"[[participants]] {expected}: it has no file,", "which a run on this machine needs.", fix)
    loaded = _load(path, ParticipantFile)
    if expected is not None and loaded.name != expected:
        why = f"The roster in federation.toml calls it {expected!r}."
        raise ConfigError(f"{path}: name = {loaded.name!r}.", why, "Make the two names the same.")
    root = path.resolve().parent
    paths = {key: _all_absolute(getattr(loaded.data, key), root) for key in ("path", "train", "validation", "test")}
    data = loaded.data.model_copy(update=paths)
    return loaded.model_copy(
        update={"data": data, "base": _absolute(loaded.base, root), "energy": _placed(loaded.energy, root)}
    )


def whole(recorded: Any) -> dict[str, Any]:
    """Return the configuration that a record keeps with every key, as JSON values; as it lies there where it is not readable."""
    try:
        return validated(recorded, Federation, Path()).model_dump(mode="json")
    except (ConfigError, TypeError):
        return dict(recorded) if isinstance(recorded, Mapping) else {}


def _all_absolute(paths: Path | list[Path] | None, root: Path) -> Path | list[Path] | None:
    return [_below(path, root) for path in paths] if isinstance(paths, list) else _absolute(paths, root)


def _absolute(path: Path | None, root: Path) -> Path | None:
    return None if path is None else _below(path, root)


def _placed(energy: EnergySection, root: Path) -> EnergySection:
    return energy.model_copy(update={"intensity": _absolute(energy.intensity, root)})


def _below(path: Path, root: Path) -> Path:
    """`path` seen from `root`, with ~ opened (that of an unknown user stays, and is a file that is not there)."""
    return root / os.path.expanduser(path)


def _absolute_federation(loaded: Federation, root: Path) -> Federation:
    """With absolute paths. `base.model` is one if there is such a folder or file; otherwise it is an id of the hub."""
    roster = [e.model_copy(update={"file": _absolute(e.file, root)}) for e in loaded.participants]
    slices = {name: _below(p, root) for name, p in loaded.gate.slices.items()}
    changes: dict[str, Any] = {
        "participants": roster,
        "gate": loaded.gate.model_copy(update={"slices": slices}),
    }
    changes["energy"] = _placed(loaded.energy, root)
    changes["base"] = _local(loaded.base, root)
    changes["bases"] = [_local(further, root) for further in loaded.bases]
    if loaded.local.data is not None:
        changes["local"] = loaded.local.model_copy(update={"data": _below(loaded.local.data, root)})
    if loaded.centre is not None:
        changes["centre"] = loaded.centre.model_copy(update={"data": _below(loaded.centre.data, root)})
    return loaded.model_copy(update=changes)


AnyBase = TypeVar("AnyBase", bound=BaseSection)


def _local(base: AnyBase, root: Path) -> AnyBase:
    """The base with an absolute path, if there is such a folder or file (no error for what can be no path)."""
    local = _below(Path(base.model), root)
    return base.model_copy(update={"model": str(local)}) if os.path.exists(local) else base


def _load(path: Path, model: type[Model]) -> Model:
    try:
        raw = read_regular(path, LARGEST)
    except FileNotFoundError:
        raise ConfigError(f"There is no file {path}.", "", "Write one with: tequio init FOLDER") from None
    except IsADirectoryError:
        expected = next(file for file, of in FILES.items() if of is model)
        raise ConfigError(f"{path} is a folder.", f"Expected a {expected}.toml.", "Give the file inside it.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from None
    return validated(parse_toml(decode_toml(raw, str(path)), str(path)), model, path)


def validated(raw: Mapping[str, Any], model: type[Model], path: Path) -> Model:
    """`raw` as a section. Raises ConfigError naming `path`, from which it comes or where it goes, and each faulty key."""
    if model is Federation and isinstance(raw, Mapping):
        raw = without_retired(raw, path, RETIRED)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        elsewhere = {f"{file}.toml": of.model_fields.keys() - model.model_fields.keys() for file, of in FILES.items()}
        raise ConfigError(f"{path}:", "; ".join(explain(e, model, elsewhere) for e in error.errors())) from None
