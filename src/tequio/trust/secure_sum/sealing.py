"""What two members of a sum have in common: the key that seals shares between them, and the seeds
of masks.

Each binds the sum (its context and directory) and the pair; a mask binds the request that was
answered as well.
"""

import struct
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tequio.core.errors import ProtectionError
from tequio.core.texts.words import refusal
from tequio.trust.secure_sum.masks import derive_key, shared_key
from tequio.trust.secure_sum.shamir import SHARE, Entropy

NONCE = 12


@dataclass(frozen=True)
class Shares:
    """Shares of a member's secrets that one member holds: of its own masks (one per block), and of
    its key of pairs."""

    own: tuple[bytes, ...] = field(repr=False)
    pair: bytes = field(repr=False)


def pair_seed(own: X25519PrivateKey, public: bytes, bound: bytes, index: int, other: int) -> bytes:
    """Return the seed of the mask that one of two members adds and the other takes away."""
    return shared_key(own, public, b"mask" + bound + struct.pack(">HH", *sorted((index, other))))


def own_seed(secret: bytes, bound: bytes, index: int, block: int) -> bytes:
    """Return the seed of a member's own mask of one block."""
    return derive_key(secret, b"self" + bound + struct.pack(">HH", index, block))


def channel_key(
    own: X25519PrivateKey, public: bytes, bound: bytes, index: int, other: int
) -> bytes:
    """Return the key that seals what two members send each other."""
    return shared_key(own, public, b"channel" + bound + struct.pack(">HH", *sorted((index, other))))


def seal(
    key: bytes, shares: Shares, bound: bytes, sender: int, receiver: int, entropy: Entropy
) -> bytes:
    """Return shares that only the receiver can read, and that only the sender can have sealed."""
    nonce = entropy(NONCE)
    plain = b"".join((*shares.own, shares.pair))
    return nonce + AESGCM(key).encrypt(nonce, plain, bound + struct.pack(">HH", sender, receiver))


def unseal(
    key: bytes, sealed: bytes, bound: bytes, sender: int, receiver: int, blocks: int
) -> Shares:
    """Read sealed shares. Raises ProtectionError unless that sender sealed them for this receiver
    in this sum."""
    try:
        plain = AESGCM(key).decrypt(
            sealed[:NONCE], sealed[NONCE:], bound + struct.pack(">HH", sender, receiver)
        )
    except (InvalidTag, ValueError):
        raise refusal(ProtectionError, "secure-sum-sealed", index=sender) from None
    if len(plain) != SHARE * (blocks + 1):
        raise refusal(ProtectionError, "secure-sum-sealed", index=sender)
    pieces = [plain[at : at + SHARE] for at in range(0, len(plain), SHARE)]
    return Shares(tuple(pieces[:-1]), pieces[-1])
