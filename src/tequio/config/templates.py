"""The commented configuration files that `tequio init` and `tequio demo` write."""

import json
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tequio.config import Federation, ParticipantFile, validated
from tequio.config.reference import about, comments
from tequio.core.errors import ConfigError, ResourceError
from tequio.core.texts.words import refusal


def to_toml(value: Mapping[str, Any], file: str = "") -> str:
    """Return a mapping of scalars, lists and tables as TOML, without what is None.

    Nested tables one level deep, inline (each on one line, as TOML 1.0 asks) below.
    file: "federation" or "participant", whose descriptions of tables and keys become comments.
    """
    words = comments(file) if file else {}
    tables = {
        key: item for key, item in value.items() if isinstance(item, dict) or _is_tables(item)
    }
    out = [f"{_comment(about(file))}\n" if file else "", *_lines(value, words, "", tables.keys())]
    for name, item in tables.items():
        for number, table in enumerate([item] if isinstance(item, dict) else item):
            shown = {} if number else words
            brackets = f"[{_key(name)}]" if isinstance(item, dict) else f"[[{_key(name)}]]"
            out.append(f"\n{_comment(shown.get(name, ''))}{brackets}\n")
            out += _lines(table, shown, f"{name}.")
    return "".join(out)


def _lines(
    table: Mapping[str, Any], words: Mapping[str, str], above: str, without: Collection[str] = ()
) -> Iterator[str]:
    for key, value in table.items():
        if value is not None and key not in without:
            yield f"{_comment(words.get(above + key, ''))}{_key(key)} = {_inline(value)}\n"


def _comment(words: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(words, 98, break_on_hyphens=False))


def _is_tables(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and all(isinstance(x, dict) for x in item)


def _key(key: str) -> str:
    plain = key.replace("_", "").replace("-", "").isalnum() and key.isascii()
    return key if plain else _quoted(key)


def _quoted(text: str) -> str:
    """A basic string: JSON's, but for DEL, which TOML wants escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return (
            "{ "
            + ", ".join(f"{_key(k)} = {_inline(v)}" for k, v in value.items() if v is not None)
            + " }"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_inline(v) for v in value) + "]"
    return _quoted(str(value)) if isinstance(value, str | Path) else json.dumps(value)


def write_federation(
    folder: Path,
    federation: Mapping[str, Any],
    participants: Sequence[Mapping[str, Any]],
    bases: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write federation.toml and participants/NAME.toml into `folder`, checked before they are
    written.

    bases: participant -> the further base it holds, for the roster.
    Raises ConfigError if a file would be overwritten or if the values are not legal, ResourceError
    if nothing can be written there.
    """
    main, own = folder / "federation.toml", folder / "participants"
    for number, participant in enumerate(participants):
        validated(participant, ParticipantFile, own / f"{participant.get('name', number)}.toml")
    whole = {
        **federation,
        "participants": [
            {"name": p["name"], "file": f"participants/{p['name']}.toml"}
            | ({"base": bases[p["name"]]} if p["name"] in bases else {})
            for p in participants
        ],
    }
    validated(whole, Federation, main)
    files = {main: to_toml(whole, "federation")}
    for participant in participants:
        files[own / f"{participant['name']}.toml"] = to_toml(participant, "participant")
    try:
        _write_new({path: text.encode() for path, text in files.items()})
    except OSError as error:
        raise refusal(
            ResourceError, "folder-unwritable", path=folder, error=error.strerror
        ) from None
    except UnicodeEncodeError:
        raise refusal(ConfigError, "path-not-utf-8", path=main) from None
    return main


def _write_new(files: Mapping[Path, bytes]) -> None:
    present = [path for path in files if path.exists() or path.is_symlink()]
    if present:
        raise refusal(ConfigError, "path-exists", path=present[0])
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            stream.write(content)
