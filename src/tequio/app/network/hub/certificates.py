"""The certificates of a coordinator: how long each lasts, whether its key is there, who can renew
it, and a new one in the old one's place.

Participants know the authority from their invitations, not the certificate: another one by the same
authority needs no word to them.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tequio.app.network.hub.folder import (
    AUTHORITY,
    AUTHORITY_KEY,
    CERTIFICATE,
    DAYS,
    KEY,
    SECRET,
    SECRET_BYTES,
    CoordinatorFolder,
    changing,
    open_coordinator_folder,
)
from tequio.core.errors import ConfigError, NetworkError, TequioError
from tequio.core.events import EventHandler
from tequio.core.reason import Reason
from tequio.core.texts.words import ENGLISH, refusal
from tequio.ledger.folder import RunFolder
from tequio.trust.certificates import Certificate, belongs, read_certificate
from tequio.trust.keys import new_server, replace_secret

SOON = 30.0  # days: one that ends before is a warning
DAY = 86400.0  # seconds between two reminders


@dataclass(frozen=True)
class NamedCertificate:
    """A certificate of a coordinator's folder: what it is, its file, and how it is renewed."""

    words: str
    path: Path
    fix: Reason


def list_certificates(folder: Path, hub_files: CoordinatorFolder) -> list[NamedCertificate]:
    """Those that participants see, and SuperLink's where it has others."""
    ours, anew = Reason("renew-here", {"folder": str(folder)}), Reason("renew-with-invitations")
    inside = [
        NamedCertificate("SuperLink's certificate", folder / CERTIFICATE, ours),
        NamedCertificate("SuperLink's authority", folder / AUTHORITY, anew),
    ]
    if hub_files.certificate == CERTIFICATE:
        return [
            NamedCertificate("the certificate", folder / CERTIFICATE, ours),
            NamedCertificate("its authority", folder / AUTHORITY, anew),
        ]
    theirs = Reason("renew-elsewhere")
    shown = [("the certificate", hub_files.certificate), ("its authority", hub_files.authority)]
    return [*(NamedCertificate(words, folder / name, theirs) for words, name in shown), *inside]


def days_left(certificate: Certificate) -> float:
    """Days until it ends; negative where it has ended."""
    return (certificate.ends - datetime.now(UTC)).total_seconds() / DAY


def ending(folder: Path, hub_files: CoordinatorFolder) -> list[dict[str, Any]]:
    """A reason, in its recorded form, for each that ends soon, has ended, or cannot be read."""
    found = []
    for shown in list_certificates(folder, hub_files):
        try:
            certificate = read_certificate(shown.path)
        except TequioError as error:
            found.append(error.as_reason().as_record())
            continue
        if (days := days_left(certificate)) < SOON:
            code = "certificate-ending" if days > 0 else "certificate-ended"
            facts = {
                "path": str(shown.path),
                "date": f"{certificate.ends:%Y-%m-%d}",
                "next": shown.fix.as_record(),
            }
            found.append(Reason(code, facts).as_record())
    return found


def check_lasting(folder: Path, hub_files: CoordinatorFolder) -> None:
    """Raises NetworkError where one has ended, so that nobody could connect."""
    for shown in list_certificates(folder, hub_files):
        found = read_certificate(shown.path)
        if days_left(found) <= 0:
            date = f"{found.ends:%Y-%m-%d}"
            raise refusal(
                NetworkError,
                "certificate-ended",
                path=shown.path,
                date=date,
                next=shown.fix.as_record(),
            )


def unusable(folder: Path, hub_files: CoordinatorFolder) -> Iterator[tuple[Path, ConfigError]]:
    """(file, error) of each secret and key that cannot do its work."""
    secret = folder / SECRET
    if not secret.exists() or secret.stat().st_size < SECRET_BYTES:
        yield secret, refusal(ConfigError, "secret-cut", path=secret)
    pairs = {
        folder / KEY: folder / CERTIFICATE,
        folder / hub_files.key: folder / hub_files.certificate,
    }
    if (folder / AUTHORITY_KEY).exists():
        pairs[folder / AUTHORITY_KEY] = folder / AUTHORITY
    for key, path in pairs.items():
        try:
            fits = belongs(key, read_certificate(path))
        except TequioError:  # of the certificate, which is told where certificates are
            fits = key.exists()
        if not fits and key == folder / KEY:
            yield (
                key,
                refusal(ConfigError, "own-key-unfit", path=key, certificate=path, folder=folder),
            )
        elif not fits:
            yield key, refusal(ConfigError, "key-unfit", path=key, certificate=path)


def check_keys(folder: Path, hub_files: CoordinatorFolder) -> None:
    """Raises ConfigError naming a secret or key without which the coordinator cannot start; the
    authority's is for renewing alone.
    """
    for path, error in unusable(folder, hub_files):
        if path != folder / AUTHORITY_KEY:
            raise error


def reminder(folder: Path, hub_files: CoordinatorFolder, tell: EventHandler) -> Callable[[], None]:
    """Call it often: it tells what ends soon, once a day."""
    reminded = -DAY

    def look() -> None:
        nonlocal reminded
        if time.monotonic() - reminded >= DAY:
            reminded = time.monotonic()
            for reason in ending(folder, hub_files):
                tell(ENGLISH.reason(reason), "certificate-ends", "warning")

    return look


def renew(folder: Path) -> dict[str, Any]:
    """A new certificate and key for the same hosts, by the authority that participants know.

    Returns until when it and the authority last, and whether it is the one that participants see
    (not so with a real authority's files). Cut off between its two files, it is to be done again.
    Raises ConfigError where the authority's key is not there, or it ends no later.
    """
    with changing(folder):
        hub_files, authority = open_coordinator_folder(folder), read_certificate(folder / AUTHORITY)
        try:
            authority_key = (folder / AUTHORITY_KEY).read_bytes()
        except OSError as error:
            facts = {"path": str(folder / AUTHORITY_KEY), "error": error.strerror}
            raise refusal(ConfigError, "authority-key-missing", **facts) from None
        if not belongs(folder / AUTHORITY_KEY, authority):
            facts = {"key": str(folder / AUTHORITY_KEY), "authority": str(folder / AUTHORITY)}
            raise refusal(ConfigError, "authority-mismatch", **facts)
        before = read_certificate(folder / CERTIFICATE)
        certificate, key = new_server(
            (folder / AUTHORITY).read_bytes(), authority_key, list(before.hosts), DAYS
        )
        if authority.ends <= max(before.ends, datetime.now(UTC)):
            raise refusal(
                ConfigError, "authority-ends", folder=str(folder), date=f"{authority.ends:%Y-%m-%d}"
            )
        replace_secret(folder / KEY, key)
        RunFolder(folder).write_atomic(CERTIFICATE, certificate)
    ends = read_certificate(folder / CERTIFICATE).ends
    return {
        "until": ends.isoformat(timespec="seconds"),
        "authority_until": authority.ends.isoformat(timespec="seconds"),
        "shown": hub_files.certificate == CERTIFICATE,
    }
