"""Masks: the AES-256-CTR stream of a seed, read as little-endian integers of 32 bits, and the seeds
that two members share.

References: RFC 7748 (X25519), RFC 5869 (HKDF).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tequio.core.errors import ProtectionError
from tequio.core.texts.words import refusal
from tequio.trust.secure_sum.field import WIDE, Vector

SALT = b"tequio-secagg-1"
CHUNK = 1 << 16  # values masked at a time, so that stream and sum stay in cache
BLOCK = 16  # bytes of AES


@dataclass(frozen=True)
class Mask:
    """One stream that is added to (sign 1) or taken from (sign −1) the values from `start` up to
    `stop`."""

    seed: bytes = field(repr=False)
    sign: int
    start: int
    stop: int


def derive_key(secret: bytes, info: bytes) -> bytes:
    """Return 32 bytes by HKDF-SHA256."""
    return HKDF(hashes.SHA256(), 32, SALT, info).derive(secret)


def shared_key(own: X25519PrivateKey, public: bytes, info: bytes) -> bytes:
    """Return the key that the owners of two X25519 keys have in common. Raises ProtectionError if
    `public` gives none."""
    try:
        return derive_key(own.exchange(X25519PublicKey.from_public_bytes(public)), info)
    except ValueError:
        raise refusal(ProtectionError, "secure-sum-key") from None


def apply_masks(vector: Vector, masks: Sequence[Mask]) -> None:
    """Add masks to a vector in place, chunk by chunk."""
    streams = [
        Cipher(algorithms.AES(mask.seed), modes.CTR(bytes(BLOCK))).encryptor() for mask in masks
    ]
    zeros, buffer = (
        memoryview(bytes(CHUNK * WIDE.itemsize)),
        bytearray(CHUNK * WIDE.itemsize + BLOCK),
    )
    drawn = np.frombuffer(buffer, WIDE, CHUNK)
    for begin in range(0, len(vector), CHUNK):
        for mask, stream in zip(masks, streams, strict=True):
            low, high = max(begin, mask.start), min(begin + CHUNK, mask.stop)
            if low >= high:
                continue
            stream.update_into(zeros[: (high - low) * WIDE.itemsize], buffer)
            part = vector[low:high]
            (np.add if mask.sign > 0 else np.subtract)(part, drawn[: high - low], out=part)
