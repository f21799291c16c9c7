"""Keys (NIST P-384, as Flower's node authentication wants) and certificates (X.509, P-256) of a
federation's own authority.

Keys are PKCS#8 PEM without a password, in files that only their owner can read.
"""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from cryptography.x509.oid import NameOID

from tequio.core.errors import ConfigError, NetworkError
from tequio.core.texts.words import refusal

PrivateKey = ec.EllipticCurvePrivateKey
SKEW = timedelta(minutes=10)  # certificates begin in the past: clocks differ


def new_key() -> PrivateKey:
    """A participant's key."""
    return ec.generate_private_key(ec.SECP384R1())


def write_secret(path: Path, data: bytes) -> None:
    """A new file that only its owner can read. Raises ConfigError if there is one already."""
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise refusal(ConfigError, "key-exists", path=str(path)) from None
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)


def replace_secret(path: Path, data: bytes) -> None:
    """Such a file, in place of an older one; whole or not at all."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fresh.unlink(missing_ok=True)
    write_secret(fresh, data)
    os.replace(fresh, path)


def sign(key: PrivateKey, data: bytes) -> str:
    """A signature (ECDSA, SHA-256), hexadecimal."""
    return key.sign(data, ec.ECDSA(hashes.SHA256())).hex()


def is_signed(public: bytes, data: bytes, signature: str) -> bool:
    """Whether the owner of this public key (PEM) signed `data`."""
    try:
        key = load_pem_public_key(public)
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(bytes.fromhex(signature), data, ec.ECDSA(hashes.SHA256()))
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
        return False
    return True


def key_bytes(key: PrivateKey) -> bytes:
    """PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_bytes(key: PrivateKey) -> bytes:
    """PEM of the public half."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def load_key(path: Path) -> PrivateKey:
    """Raises NetworkError if there is no such key."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise refusal(
            NetworkError, "key-unreadable", path=str(path), error=type(error).__name__
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise refusal(NetworkError, "key-unreadable", path=str(path), error=type(key).__name__)
    return key


def is_public_key(data: bytes) -> bool:
    """Whether `data` is the PEM of a P-384 public key, written as we write it."""
    try:
        key = load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    same = isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1)
    return same and key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) == data


def new_authority(name: str, days: int) -> tuple[bytes, bytes]:
    """(certificate, key) of an authority of its own for a federation, PEM."""
    key, subject = ec.generate_private_key(ec.SECP256R1()), _named(f"Tequio federation {name}")
    builder = _certificate(subject, subject, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), key_bytes(key)


def new_server(
    authority: bytes, authority_key: bytes, hosts: list[str], days: int
) -> tuple[bytes, bytes]:
    """(certificate, key) of the coordinator for these host names and addresses, signed by the
    authority, PEM.

    It ends with the authority, if that ends first.
    """
    issuer = x509.load_pem_x509_certificate(authority)
    signer = load_pem_private_key(authority_key, None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise refusal(ConfigError, "authority-key-of-other-kind")
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _certificate(
        _named(hosts[0]), issuer.subject, key.public_key(), days, issuer.not_valid_after_utc
    )
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    builder = builder.add_extension(
        x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False
    )
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM), key_bytes(key)


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    days: int,
    until: datetime | None = None,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    ends = min(now + timedelta(days=days), until or datetime.max.replace(tzinfo=UTC))
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - SKEW).not_valid_after(ends)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
