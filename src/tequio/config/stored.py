"""How a record keeps a configuration: only the keys that differ from their default, so that a run
outlives keys that come and go.

A key that is not stored stands at its default. So the default of a key never changes: a new key
gets the new meaning, and the old key is retired.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from tequio.core.errors import ConfigError
from tequio.core.texts.words import refusal

RETIRED: Mapping[str, Any] = MappingProxyType({})
"""Key that federation.toml had once -> its default then: "train.warmup": 0.

For a list of tables, a key is meant in each of its tables.
"""


def stored(config: BaseModel) -> dict[str, Any]:
    """Return `config` as JSON values, without the keys that stand at their default.

    A table that is there stays, empty where all its keys stand at their default: it may switch
    something on.
    """
    return config.model_dump(mode="json", exclude_defaults=True)


def without_retired(
    raw: Mapping[str, Any], source: Path, retired: Mapping[str, Any] = RETIRED
) -> dict[str, Any]:
    """Return `raw` without the retired keys, which must stand at their default.

    Raises ConfigError naming `source`, from which it comes, and the retired key that has another
    value.
    """
    found: Any = raw
    for key, default in retired.items():
        found = _without(found, key.split("."), key, default, source)
    return dict(found)


def _without(value: Any, parts: list[str], key: str, default: Any, source: Path) -> Any:
    if isinstance(value, list | tuple):
        return [_without(item, parts, key, default, source) for item in value]
    if not isinstance(value, Mapping) or parts[0] not in value:
        return value
    first, *rest = parts
    if rest:
        return {**value, first: _without(value[first], rest, key, default, source)}
    if not _stands_at(value[first], default):
        raise refusal(ConfigError, "key-retired", path=source, key=key, value=_shown(default))
    return {name: item for name, item in value.items() if name != first}


def _stands_at(value: Any, default: Any) -> bool:
    """Whether it is the default; a table is, where each of its keys is."""
    if isinstance(value, Mapping) and isinstance(default, Mapping):
        return all(
            name in default and _stands_at(item, default[name]) for name, item in value.items()
        )
    return isinstance(value, bool) == isinstance(default, bool) and bool(value == default)


def changes(now: Mapping[str, Any], then: Mapping[str, Any]) -> list[str]:
    """Return what differs between two stored configurations, a key each: the value expected (as it
    was then) and found (as it is now).

    Labels and their descriptions are not shown.
    """
    return list(_changes(now, then, ""))


def _changes(now: Mapping[str, Any], then: Mapping[str, Any], above: str) -> Iterator[str]:
    for name in sorted(now.keys() | then.keys()):
        key = f"{above}{name}"
        if now.get(name) == then.get(name) and (name in now) == (name in then):
            continue
        here, there = now.get(name), then.get(name)
        tables = [value for value in (here, there) if isinstance(value, Mapping) and value]
        if key == "task.labels":
            yield f"the key {key} of federation.toml"
        elif tables and all(value is None or isinstance(value, Mapping) for value in (here, there)):
            yield from _changes(here or {}, there or {}, f"{key}.")
        else:
            found, expected = (
                _shown(of[name]) if name in of else "its default" for of in (now, then)
            )
            yield f"the key {key} of federation.toml (expected {expected}, found {found})"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return (
        str(value).lower()
        if isinstance(value, bool)
        else "nothing"
        if value is None
        else repr(value)
    )
