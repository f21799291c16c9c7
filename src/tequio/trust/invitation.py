"""An invitation: one file that a coordinator gives to one participant, by a way that both trust.

It says where the coordinator is, which certificate it must show, what all agreed to (federation.toml and its digest), and holds a token
that enrols one key once. The coordinator keeps only the token's hash.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tequio.core.canonical import canonical_json, digest
from tequio.core.errors import ConfigError, NetworkError

FORMAT = "tequio-invitation-1"


@dataclass(frozen=True)
class Invitation:
    """name: the participant's on the roster. address: host:port. authority: PEM. federation: the text of federation.toml, its digest."""

    name: str
    address: str
    authority: str
    federation: str
    digest: str
    token: str
    format: str = FORMAT


def new_token() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What the coordinator keeps of a token."""
    return digest(token.encode())


def invitation_bytes(invitation: Invitation) -> bytes:
    """Canonical JSON."""
    return canonical_json(asdict(invitation)) + b"\n"


def read_invitation(path: Path) -> Invitation:
    """Raises ConfigError if it cannot be read, NetworkError if federation.toml in it is not the one whose digest it states."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        _check_format(path, raw)
        invitation = Invitation(**raw)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}).", "", "Give the file that you were sent."
        ) from None
    except (ValueError, TypeError, RecursionError):
        raise ConfigError(f"{path} is not an invitation.", "", "Give the file that you were sent, unchanged.") from None
    for key, value in raw.items():
        if not isinstance(value, str):
            why = f"{key} in it is not text: it was changed or damaged."
            raise ConfigError(f"{path} is not an invitation.", why, "Give the file that you were sent, unchanged.")
    if digest(invitation.federation.encode()) != invitation.digest:
        why = "The federation.toml in it does not have the digest that it states."
        raise NetworkError(f"{path} was changed or damaged.", why, "Ask the coordinator for a new one.")
    return invitation


def _check_format(path: Path, raw: Any) -> None:
    """Raise ConfigError for the invitation of another version, whatever keys that has."""
    found = raw.get("format", FORMAT) if isinstance(raw, dict) else FORMAT
    if isinstance(found, str) and found != FORMAT:
        why = f"It has format {found[:64]!r}, and this Tequio reads {FORMAT!r}."
        fix = "Install the version of Tequio that the coordinator has."
        raise ConfigError(f"{path} is not an invitation of this version.", why, fix)
