"""What an attacker does with shares that it collected, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray
from sum_parties import REQUEST, Parties

from tequio.trust.secure_sum.agreement import Context
from tequio.trust.secure_sum.directory import read_directory
from tequio.trust.secure_sum.field import WIDE, decode
from tequio.trust.secure_sum.masks import Mask, apply_masks
from tequio.trust.secure_sum.participant import Member
from tequio.trust.secure_sum.sealing import own_seed, pair_seed
from tequio.trust.secure_sum.shamir import combine, lagrange

Values = NDArray[np.float64]


def shared_parties(context: Context, members: Mapping[int, Member] | None = None) -> Parties:
    """Return parties that have exchanged their shares."""
    parties = Parties.of(context) if members is None else Parties(context, dict(members))
    parties.share()
    return parties


def secret_of(shares: Mapping[int, bytes], threshold: int) -> bytes | None:
    """Return a secret of which enough shares were collected."""
    used = sorted(shares)[:threshold]
    return combine(shares, lagrange(used)) if len(used) == threshold else None


def victims_values(
    parties: Parties, own: bytes | None, keys: Mapping[int, bytes | None], among: Collection[int]
) -> Values | None:
    """Return what member 1 sent, from the secret of its own mask and secret keys of pairs by
    member; None where one is missing.

    among: whom member 1 took part with.
    """
    context, victim = parties.context, 1
    bound = context.digest + hashlib.sha256(parties.directory).digest() + REQUEST
    directory = read_directory(context, parties.directory)
    total = np.frombuffer(parties.vectors[victim], WIDE).copy()
    if own is None:
        return None
    masks = [Mask(own_seed(own, bound, victim, 0), -1, 0, len(total))]
    for other in set(among) - {victim}:
        holder, partner = (victim, other) if keys.get(victim) is not None else (other, victim)
        key = keys.get(holder)
        if key is None:
            return None
        known = X25519PrivateKey.from_private_bytes(key)
        masks.append(
            Mask(pair_seed(known, directory[partner].mask, bound, victim, other), -1, 0, len(total))
        )
    apply_masks(total, masks)  # the victim has the smallest index, so it added all of its masks
    return decode(context.layout, total, [1])[0]
