"""The signed directory of a sum: for each member two fresh keys, signed with the key that it
enrolled with."""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from tequio.core.canonical import canonical_json
from tequio.core.errors import ProtectionError
from tequio.core.texts.words import refusal
from tequio.trust.keys import PrivateKey, is_signed, sign
from tequio.trust.secure_sum.agreement import Context

KEY = 32  # bytes of a public key
HALF = 48  # bytes of one of the two numbers of a signature: of a fixed length, so that messages are
LARGEST_BOX = 1 << 20


@dataclass(frozen=True)
class Keys:
    """The public keys of a member for one sum: for sealing shares, and for masks."""

    channel: bytes
    mask: bytes


def pack_boxes(boxes: Mapping[int, bytes]) -> bytes:
    """Return bytes by member as one message, in the order of their indices."""
    return b"".join(
        struct.pack(">HI", index, len(box)) + box for index, box in sorted(boxes.items())
    )


def unpack_boxes(data: bytes) -> dict[int, bytes]:
    """Read what `pack_boxes` wrote. Raises ProtectionError for anything else."""
    boxes: dict[int, bytes] = {}
    at, last = 0, -1
    while at < len(data):
        if len(data) - at < 6:
            raise refusal(ProtectionError, "secure-sum-message")
        index, size = struct.unpack_from(">HI", data, at)
        at += 6 + size
        if index <= last or size > LARGEST_BOX or at > len(data):
            raise refusal(ProtectionError, "secure-sum-message")
        boxes[index] = bytes(data[at - size : at])
        last = index
    return boxes


def pack_indices(indices: Iterable[int]) -> bytes:
    """Return indices of members as bytes, rising."""
    return b"".join(index.to_bytes(2, "big") for index in sorted(indices))


def unpack_indices(data: bytes) -> frozenset[int]:
    """Read what `pack_indices` wrote. Raises ProtectionError for anything else."""
    found = [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]
    if pack_indices(found) != data or len(set(found)) != len(found):
        raise refusal(ProtectionError, "secure-sum-message")
    return frozenset(found)


def announce(context: Context, index: int, key: PrivateKey, keys: Keys) -> bytes:
    """Return the keys of a member, signed."""
    numbers = decode_dss_signature(bytes.fromhex(sign(key, _signed(context.digest, index, keys))))
    return keys.channel + keys.mask + b"".join(number.to_bytes(HALF, "big") for number in numbers)


def read_keys(context: Context, index: int, announced: bytes) -> Keys:
    """Return the keys that a member announced. Raises ProtectionError unless the enrolled member of
    that index signed them."""
    keys = Keys(announced[:KEY], announced[KEY : 2 * KEY])
    public = context.policy.members.get(index)
    if public is None:
        raise refusal(ProtectionError, "secure-sum-stranger", index=index)
    halves = announced[2 * KEY : 2 * KEY + HALF], announced[2 * KEY + HALF :]
    signature = encode_dss_signature(*(int.from_bytes(half, "big") for half in halves))
    whole = len(announced) == 2 * (KEY + HALF)
    if not whole or not _is_signed(public, _signed(context.digest, index, keys), signature.hex()):
        raise refusal(ProtectionError, "secure-sum-forged", index=index)
    return keys


def read_directory(context: Context, data: bytes) -> dict[int, Keys]:
    """Return the keys of every member of a directory.

    Raises ProtectionError if one of them is not signed, two share a key, or they are too few for a
    sum to be opened.
    """
    found = {index: read_keys(context, index, box) for index, box in unpack_boxes(data).items()}
    every = [key for keys in found.values() for key in (keys.channel, keys.mask)]
    if len(set(every)) != len(every):
        raise refusal(ProtectionError, "secure-sum-message")
    if len(found) < context.policy.least:
        raise refusal(
            ProtectionError, "secure-sum-few-left", members=len(found), fewest=context.policy.least
        )
    return found


@lru_cache(maxsize=1024)
def _is_signed(public: bytes, data: bytes, signature: str) -> bool:
    """Check a signature; among members in one process each is checked once."""
    return is_signed(public, data, signature)


def _signed(context: bytes, index: int, keys: Keys) -> bytes:
    return canonical_json(
        {
            "what": "tequio-secure-sum-keys-1",
            "context": context.hex(),
            "member": index,
            "channel": keys.channel.hex(),
            "mask": keys.mask.hex(),
        }
    )
