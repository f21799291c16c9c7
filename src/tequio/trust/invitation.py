"""An invitation: one file that a coordinator gives to one participant, by a way that both trust.

It says where the coordinator is, which certificate it must show, what all agreed to
(federation.toml and its digest, and the digests of files that it names and participants open), and
holds a token that enrols one key once. The coordinator keeps only the token's hash.
"""

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tequio.core.bounds import one_line
from tequio.core.canonical import canonical_json, digest
from tequio.core.errors import ConfigError, NetworkError
from tequio.core.files import read_regular
from tequio.core.texts.words import refusal

FORMAT = "tequio-invitation-1"
LARGEST = 1 << 24  # bytes of an invitation


@dataclass(frozen=True)
class Invitation:
    """name: the participant's on the roster. address: host:port. authority:

    PEM. federation: the text of federation.toml, its digest.

    files: key of federation.toml -> SHA-256 of the file that it names at the coordinator, for those
        that participants open.
    """

    name: str
    address: str
    authority: str
    federation: str
    digest: str
    token: str
    format: str = FORMAT
    files: Mapping[str, str] = field(default_factory=dict)


def new_token() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What the coordinator keeps of a token."""
    return digest(token.encode())


def invitation_bytes(invitation: Invitation) -> bytes:
    """Canonical JSON; without `files` where there are none, as versions without that key wrote
    it.
    """
    row = asdict(invitation)
    return canonical_json({key: row[key] for key in row if key != "files" or row[key]}) + b"\n"


def read_invitation(path: Path) -> Invitation:
    """Raises ConfigError if it cannot be read, NetworkError if federation.toml in it is not the one
    whose digest it states.
    """
    try:
        raw = json.loads(read_regular(path, LARGEST).decode())
        _check_format(path, raw)
        invitation = Invitation(**raw)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        said = getattr(error, "strerror", None) or type(error).__name__
        raise refusal(ConfigError, "invitation-unreadable", path=str(path), error=said) from None
    for key, value in raw.items():
        if not (_is_texts(value) if key == "files" else isinstance(value, str)):
            raise refusal(ConfigError, "invitation-not-text", path=str(path), key=key)
    if digest(invitation.federation.encode()) != invitation.digest:
        raise refusal(NetworkError, "invitation-changed", path=str(path))
    return invitation


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _check_format(path: Path, raw: Any) -> None:
    """Raise ConfigError for the invitation of another version, whatever keys that has."""
    found = raw.get("format", FORMAT) if isinstance(raw, dict) else FORMAT
    if isinstance(found, str) and found != FORMAT:
        facts = {"path": str(path), "found": one_line(found[:64]), "format": FORMAT}
        raise refusal(ConfigError, "invitation-of-other-version", **facts)
