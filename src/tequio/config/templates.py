"""The commented configuration files that `tequio init` and `tequio demo` write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tequio.config import Federation, ParticipantFile, validated
from tequio.core.errors import ConfigError, ResourceError

COMMENTS = {
    "federation.toml": "# What all participants agree to. It is public inside the federation: no private path belongs here.\n",
    "participant.toml": "# One participant's own file. It is private: it stays on its machine and is never sent.\n",
    "base": "# The open model that everybody starts from: a Hugging Face id, a folder with safetensors, or a .gguf file.\n",
    "bases": "# Further bases, smaller ones for smaller machines. On the roster, base = NAME says who holds which.\n",
    "task": "# classification (text to label) or causal (language model). Label descriptions give the head its start.\n",
    "adapter": "# LoRA: on which linear layers, and the ladder of ranks. Each participant gets the largest its hardware allows.\n",
    "train": "# Rounds, local epochs a round, batch, learning rate. round_seconds is the deadline that sizes weak machines.\n",
    "algorithm": (
        "# reduce: stack, fedit, ffa, rolora, trimmed_mean, centred_clipping, geometric_median. start: fresh, fedex, "
        "flexlora. server: sgd, nesterov, adam, yogi, reptile. weights: norm_equalised, examples, uniform, fednova, q_ffl, term.\n"
    ),
    "local": "# terms: fedprox, kl, replay, transfer, each = strength. method: plain, fomaml.\n",
    "centre": "# The central resource trains on public data too. federated_share: what participants count; first: its own rounds.\n",
    "gate": "# Public texts on which the general model may not get worse by more than margin; otherwise the round is rolled back.\n",
    "screen": "# What is looked at in an update beyond its form: a bound on its norm, alarms on cosine and on loss.\n",
    "topology": "# Who exchanges with whom: star (round the coordinator), ring, complete, or a graph with edges.\n",
    "personal": "# Each participant's own model: rates to try, private adapter, and the mixes among which it chooses.\n",
    "distil": "# Models teach each other on the centre's public texts: those of all bases, or the participants' own.\n",
    "participants": "# The roster. In a simulation every participant's own file is on this machine.\n",
    "data": "# Private, never leaves. path is split by content; or give train, validation and test. "
    "Files, folders or patterns: JSON, CSV, TSV, Parquet, .xlsx. Their form and columns are detected; delimiter, encoding, "
    "header, text, label, prompt, response, input and messages override that.\n",
    "equity": "# What each gave and got. credit: contributions to the fall of the validation loss; a round keeps all updates for it.\n",
    "budget": "# What may be spent: kwh, kg_co2e, money, hours at work, megabytes. Steps that do not fit are not made.\n",
    "shift": "# Rounds in simulated time: each works in the greenest hours before a deadline, by its [energy] file. docs/accounts.md\n",
    "energy": "# Where the electricity comes from, for carbon: a country (annual average) or a file of intensities. docs/accounts.md\n",
    "money": "# What the machine costs, in its owner's currency. A participant's is private unless tell = true.\n",
    "schedule": "# Across a network: when this participant takes part, in its local time. Outside of it, it is away.\n",
    "team": "# Several processes by torchrun: shard_base = true keeps the base in shards among them. docs/network.md\n",
    "hardware": "# Declared; what is missing is not a limit. probe = true measures tokens_per_second on this machine.\n",
}


def to_toml(value: Mapping[str, Any], top: str) -> str:
    """A mapping of scalars, lists and tables as TOML with our comments, without what is None.

    Nested tables one level deep, inline (each on one line, as TOML 1.0 asks) below.
    """
    out = [COMMENTS.get(top, "")]
    for key, item in value.items():
        if item is not None and not isinstance(item, dict) and not _is_tables(item):
            out.append(f"{_key(key)} = {_inline(item)}\n")
    for key, item in value.items():
        rows = item if _is_tables(item) else [item] if isinstance(item, dict) else []
        for number, table in enumerate(rows):
            comment = COMMENTS.get(key, "") if number == 0 else ""
            brackets = f"[[{_key(key)}]]" if _is_tables(item) else f"[{_key(key)}]"
            out.append(f"\n{comment}{brackets}\n")
            out += [f"{_key(k)} = {_inline(v)}\n" for k, v in table.items() if v is not None]
    return "".join(out)


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
        return "{ " + ", ".join(f"{_key(k)} = {_inline(v)}" for k, v in value.items() if v is not None) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_inline(v) for v in value) + "]"
    return _quoted(str(value)) if isinstance(value, str | Path) else json.dumps(value)


def write_federation(
    folder: Path,
    federation: Mapping[str, Any],
    participants: Sequence[Mapping[str, Any]],
    bases: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write federation.toml and participants/NAME.toml into `folder`, checked before they are written.

    bases: participant -> the further base it holds, for the roster.
    Raises ConfigError if a file would be overwritten or if the values are not legal, ResourceError if nothing can be
    written there.
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
    files = {main: to_toml(whole, "federation.toml")}
    for participant in participants:
        files[own / f"{participant['name']}.toml"] = to_toml(participant, "participant.toml")
    try:
        _write_new({path: text.encode() for path, text in files.items()})
    except OSError as error:
        raise ResourceError(f"{folder} cannot be written ({error.strerror}).", "", "Name another folder.") from None
    except UnicodeEncodeError:
        why = "A path has bytes that are not UTF-8, which TOML cannot hold."
        raise ConfigError(f"{main} cannot be written.", why, "Rename the file or folder.") from None
    return main


def _write_new(files: Mapping[Path, bytes]) -> None:
    present = [path for path in files if path.exists() or path.is_symlink()]
    if present:
        raise ConfigError(f"{present[0]} exists already.", "Nothing was overwritten.", "Name another folder.")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as stream:
            stream.write(content)
