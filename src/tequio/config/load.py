"""How both files are read: strictly; what is wrong is said key by key (`explain`).

Relative paths start at the file's own folder.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

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
from tequio.core.texts.words import refusal

Model = TypeVar("Model", bound=Section)
LARGEST = 1 << 22  # bytes of a configuration file


def load_federation(path: Path) -> Federation:
    """Read federation.toml; paths in it become absolute. Raises ConfigError naming file and key."""
    return _load(path, Federation)


def federation_of_text(text: str, source: str) -> Federation:
    """A federation.toml that came as text, from `source`; its paths are those of the machine that
    it came from.
    """
    return validated(parse_toml(text, source), Federation, Path(source))


def load_participant(path: Path | None, expected: str | None = None) -> ParticipantFile:
    """Read a participant.toml whose name must be `expected`, if given.

    Raises ConfigError naming file and key.
    """
    if path is None:
        raise refusal(ConfigError, "roster-without-file", name=expected)
    loaded = _load(path, ParticipantFile)
    if expected is not None and loaded.name != expected:
        raise refusal(ConfigError, "other-name", path=path, own_name=loaded.name, name=expected)
    return loaded


def whole(recorded: Any) -> dict[str, Any]:
    """Return the configuration that a record keeps with every key, as JSON values; as it lies there
    where it is not readable.
    """
    try:
        return validated(recorded, Federation, Path()).model_dump(mode="json")
    except (ConfigError, TypeError):
        return dict(recorded) if isinstance(recorded, Mapping) else {}


def _rooted(value: Any, root: Path) -> Any:
    """Return a section with each path in it seen from `root`, and each base that is a folder or
    file there as an absolute path.
    """
    if isinstance(value, Path):
        return _below(value, root)
    if isinstance(value, list):
        return [_rooted(item, root) for item in value]
    if isinstance(value, dict):
        return {key: _rooted(item, root) for key, item in value.items()}
    if not isinstance(value, Section):
        return value
    changes = {key: new for key, old in value if (new := _rooted(old, root)) != old}
    if isinstance(value, BaseSection) and os.path.exists(local := _below(Path(value.model), root)):
        changes["model"] = str(local)
    return value.model_copy(update=changes)


def _below(path: Path, root: Path) -> Path:
    """`path` seen from `root`, with ~ opened (that of an unknown user stays, and is a file that is
    not there).
    """
    return root / os.path.expanduser(path)


def federation_table(path: Path) -> dict[str, Any]:
    """Read federation.toml as it is written, before its keys are checked. Raises ConfigError."""
    return _table(path, Federation)


def of_table(raw: Mapping[str, Any], model: type[Model], source: Path, root: Path) -> Model:
    """Return `raw` as a whole file, its paths seen from the folder `root`.

    Raises ConfigError naming `source` and each faulty key.
    """
    found: Model = _rooted(validated(raw, model, source), root)
    return found


def _load(path: Path, model: type[Model]) -> Model:
    return of_table(_table(path, model), model, path, path.resolve().parent)


def _table(path: Path, model: type[Section]) -> dict[str, Any]:
    try:
        raw = read_regular(path, LARGEST)
    except FileNotFoundError:
        raise refusal(ConfigError, "config-missing", path=path) from None
    except IsADirectoryError:
        expected = next(file for file, of in FILES.items() if of is model)
        raise refusal(ConfigError, "path-is-a-folder", path=path, file=f"{expected}.toml") from None
    except OSError as error:
        raise refusal(ConfigError, "unreadable", path=path, error=error.strerror) from None
    return parse_toml(decode_toml(raw, str(path)), str(path))


def validated(raw: Mapping[str, Any], model: type[Model], path: Path) -> Model:
    """`raw` as a section.

    Raises ConfigError naming `path`, from which it comes or where it goes, and each faulty key.
    """
    if model is Federation and isinstance(raw, Mapping):
        raw = without_retired(raw, path, RETIRED)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        elsewhere = {
            f"{file}.toml": of.model_fields.keys() - model.model_fields.keys()
            for file, of in FILES.items()
        }
        faults = [explain(e, model, elsewhere).as_record() for e in error.errors()]
        raise refusal(ConfigError, "keys-unfit", path=path, faults=faults) from None
