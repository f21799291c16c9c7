"""Methods by name, `[algorithm] preset`: resolved once, while the file is read, so that nothing
further on knows of them.

`presets.toml` has the keys of each.
"""

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

from tequio.config.fields import Unfit
from tequio.core.reason import Reason

PRESETS: Mapping[str, Mapping[str, Any]] = tomllib.loads(
    files("tequio.config").joinpath("presets.toml").read_text(encoding="utf-8")
)
Path = tuple[str, ...]


def leaves(tree: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield (where it stands, value) of each key of nested tables; an empty table is a value."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, (*above, name))
        else:
            yield (*above, name), value


def resolved(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a federation.toml with the keys of its preset in place of the preset.

    Raises ValueError where there is no such preset, and where a key beside it makes another method.
    """
    algorithm = raw.get("algorithm")
    if not isinstance(algorithm, Mapping) or not isinstance(name := algorithm.get("preset"), str):
        return raw
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.0)[0]
        raise Unfit(Reason("preset-unknown", {"nearest": near, "names": list(PRESETS)}))
    pieces, starts = PRESETS[name]["pieces"], PRESETS[name].get("starts", ())
    out: Mapping[str, Any] = {
        **raw,
        "algorithm": {key: value for key, value in algorithm.items() if key != "preset"},
    }
    for where, value in leaves(pieces):
        if _at(out, where) not in (None, value):
            facts = {
                "key": ".".join(where),
                "preset": name,
                "value": None if value == {} else repr(value),
            }
            raise Unfit(Reason("preset-has-other", facts))
    out = _filled(out, pieces)
    for group in starts:
        own = {where: found for where, _ in leaves(group) if (found := _at(out, where)) is not None}
        if off := [where for where, found in own.items() if not found]:
            raise Unfit(Reason("preset-switched-off", {"key": ".".join(off[0]), "preset": name}))
        out = out if own else _filled(out, group)
    return out


def _at(tree: Any, where: Path) -> Any:
    """Return the value that stands there, None where there is none."""
    for part in where:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _filled(own: Any, given: Any) -> Any:
    """Return nested tables with the keys given that they lack; what is no table stays, and is
    refused later.
    """
    if not isinstance(own, Mapping) or not isinstance(given, Mapping):
        return own
    return {**given, **{key: _filled(value, given.get(key)) for key, value in own.items()}}
