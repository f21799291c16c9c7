"""What a certificate says: for whom, by whom, until when; and whether a key belongs to it.

Nothing is decided here.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from tequio.core.errors import NetworkError
from tequio.core.texts.words import refusal


@dataclass(frozen=True)
class Certificate:
    """hosts: names and addresses that it is for. ends: UTC. digest:

    SHA-256 of the whole, hex. public: PEM of its key.
    """

    hosts: tuple[str, ...]
    begins: datetime
    ends: datetime
    digest: str
    public: bytes

    def names(self, host: str) -> bool:
        """Whether it is for this host; a `*` stands for the first part of a name."""
        rest = host.lower().partition(".")[2]
        return any(
            own.lower() == host.lower() or (rest and own.lower() == f"*.{rest}")
            for own in self.hosts
        )


def read_certificate(path: Path) -> Certificate:
    """The first in a PEM file. Raises NetworkError if there is none."""
    try:
        return _read(x509.load_pem_x509_certificate(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise refusal(
            NetworkError, "certificate-unreadable", path=str(path), error=type(error).__name__
        ) from None


def parse_certificate(der: bytes) -> Certificate:
    """As a server shows it. Raises NetworkError if it cannot be read."""
    try:
        return _read(x509.load_der_x509_certificate(der))
    except ValueError:
        raise refusal(NetworkError, "shown-certificate-unreadable") from None


def belongs(key: Path, certificate: Certificate) -> bool:
    """Whether this file holds the certificate's private key."""
    try:
        public = load_pem_private_key(key.read_bytes(), None).public_key()
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) == certificate.public
    )


def _read(found: x509.Certificate) -> Certificate:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = [
            *names.get_values_for_type(x509.DNSName),
            *map(str, names.get_values_for_type(x509.IPAddress)),
        ]
    except x509.ExtensionNotFound:
        hosts = []
    public = found.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    digest = found.fingerprint(hashes.SHA256()).hex()
    return Certificate(
        tuple(hosts), found.not_valid_before_utc, found.not_valid_after_utc, digest, public
    )
