"""The list of members of masked rounds: as the coordinator publishes it, and as each participant
pins it.

The coordinator publishes each member's public key, rank and steps with the first step of every sum.
A participant pins the key of a member in members.json of its own folder when it first sees it
(trust on first use), and refuses a list with another key for it, or without it. It cannot know
whether a key that it sees first is the member's own: people compare the fingerprint of their lists
by another channel.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tequio.app.run_files import json_table
from tequio.config import Federation
from tequio.core.bounds import read_json
from tequio.core.canonical import canonical_json, digest, digest_json
from tequio.core.errors import ConfigError, ProtectionError
from tequio.core.texts.words import refusal, refuse_first
from tequio.ledger.folder import RunFolder
from tequio.trust.keys import is_public_key

MEMBERS = "members.json"
GROUP, SHOWN = 4, 40  # characters of a group, and of a fingerprint: 160 bits


@dataclass(frozen=True)
class Listed:
    """One member: its name on the roster, its public key (PEM), and what it trains."""

    name: str
    key: str
    rank: int
    steps: int


@dataclass(frozen=True)
class MemberList:
    """Everybody who takes part in the sums of a run, by index on the roster. run: the id of the
    run.
    """

    run: str
    members: Mapping[int, Listed]

    def keys(self) -> dict[str, str]:
        """Return the key of each member, by name."""
        return {member.name: member.key for member in self.members.values()}


def pack_members(found: MemberList) -> bytes:
    """Return the list as canonical JSON."""
    rows = {str(index): asdict(member) for index, member in sorted(found.members.items())}
    return canonical_json({"run": found.run, "members": rows})


def read_members(data: bytes, config: Federation) -> MemberList:
    """Read what a coordinator published.

    Raises ProtectionError unless everybody in it is on the agreed roster.
    """
    try:
        raw = read_json(data.decode())
        members = {int(index): Listed(**row) for index, row in raw["members"].items()}
        found = MemberList(raw["run"], members)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise refusal(ProtectionError, "members-unreadable") from None
    names = {i: entry.name for i, entry in enumerate(config.participants, 1)}
    if not isinstance(found.run, str) or not all(
        _fits(i, one, names, config) for i, one in members.items()
    ):
        raise refusal(ProtectionError, "members-unreadable")
    return found


def _fits(index: int, member: Listed, names: Mapping[int, str], config: Federation) -> bool:
    whole = all(type(value) is int for value in (member.rank, member.steps))
    if not whole or not isinstance(member.key, str) or names.get(index) != member.name:
        return False
    known = member.rank in config.adapter.ranks and 1 <= member.steps <= config.train.max_steps
    return known and is_public_key(member.key.encode())


def fingerprint(federation: str, keys: Mapping[str, str]) -> str:
    """Return what people compare: of the digest of federation.toml, and of each member's name
    and key.
    """
    plain = digest_json(
        {
            "federation": federation,
            "keys": {name: digest(key.encode()) for name, key in keys.items()},
        }
    )
    return grouped(plain)


def grouped(plain: str) -> str:
    """Return the first part of a digest in groups of characters."""
    return " ".join(plain[at : at + GROUP] for at in range(0, SHOWN, GROUP))


@dataclass(frozen=True)
class Pinned:
    """members.json: each member's key as this participant first saw or accepted it; and other keys
    that were shown since.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    offered: Mapping[str, str] = field(default_factory=dict)


def pinned_members(folder: Path) -> Pinned:
    """Return what this folder pinned. Raises ConfigError where members.json is damaged."""
    path = folder / MEMBERS
    if not path.exists():
        return Pinned()
    raw = json_table(path)
    tables = [raw.get(key, {}) for key in ("keys", "offered")]
    whole = all(
        isinstance(table, dict) and all(isinstance(x, str) for x in table.values())
        for table in tables
    )
    if raw.keys() - {"keys", "offered"} or not whole:
        raise refusal(ConfigError, "damaged", path=path)
    return Pinned(*tables)


def _write(folder: Path, found: Pinned) -> None:
    RunFolder(folder).write_atomic(MEMBERS, json.dumps(asdict(found), indent=1).encode())


def pin_members(folder: Path, shown: Mapping[str, str], own: Mapping[str, str]) -> list[str]:
    """Compare the keys of a list with those that are pinned, and pin those of new members.

    Args:
        folder: the participant's.
        shown: each member's key, by name, as the coordinator lists them.
        own: this participant's name and its key, which it knows best.

    Returns:
        Names of the members that were pinned now.

    Raises:
        ProtectionError: a key is another, or a member is missing; it says whose.
    """
    found = pinned_members(folder)
    known = {**found.keys, **own}
    gone = sorted(known.keys() - shown.keys())
    other = {name: key for name, key in shown.items() if known.get(name, key) != key}
    if not gone and (other.keys() - own.keys()):
        _write(folder, Pinned(found.keys, {**found.offered, **other}))
    refused = {"members-gone": bool(gone), "members-changed": bool(other)}
    refuse_first(ProtectionError, refused, names=gone or sorted(other), folder=str(folder))
    fresh = sorted(shown.keys() - found.keys.keys())
    if dict(found.keys) != dict(shown):
        _write(folder, Pinned(dict(shown), {}))
    return fresh


def accept_member(folder: Path, name: str) -> str:
    """Pin the key that the coordinator shows for a member by now.

    Returns its fingerprint; raises ConfigError where none was shown.
    """
    found = pinned_members(folder)
    if name not in found.offered:
        raise refusal(
            ConfigError,
            "no-key-offered",
            name=name,
            names=sorted(found.offered),
            folder=str(folder),
        )
    offered = {other: key for other, key in found.offered.items() if other != name}
    _write(folder, Pinned({**found.keys, name: found.offered[name]}, offered))
    return grouped(digest(found.offered[name].encode()))


def describe_members(folder: Path, federation: str) -> dict[str, Any] | None:
    """Return what a person compares: the fingerprint of the list, and of each key;

    None before the first masked round.
    """
    found = pinned_members(folder)
    if not found.keys:
        return None
    return {
        "fingerprint": fingerprint(federation, found.keys),
        "keys": {name: grouped(digest(key.encode())) for name, key in sorted(found.keys.items())},
        "offered": {
            name: grouped(digest(key.encode())) for name, key in sorted(found.offered.items())
        },
    }
