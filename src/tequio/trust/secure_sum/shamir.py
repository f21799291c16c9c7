"""Secrets of 32 bytes in shares, any `threshold` of which give it back and fewer of which tell
nothing (Shamir 1979)."""

from collections.abc import Callable, Mapping, Sequence

PRIME = 2**256 + 297
SECRET = 32  # bytes of a secret
SHARE = 33  # bytes of a share
Entropy = Callable[[int], bytes]


def split(
    secret: bytes, places: Sequence[int], threshold: int, entropy: Entropy
) -> dict[int, bytes]:
    """Return a share for each place, a whole number from 1."""
    coefficients = [int.from_bytes(secret, "big")]
    coefficients += [int.from_bytes(entropy(48), "big") % PRIME for _ in range(threshold - 1)]
    shares = {}
    for place in places:
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * place + coefficient) % PRIME
        shares[place] = value.to_bytes(SHARE, "big")
    return shares


def lagrange(places: Sequence[int]) -> dict[int, int]:
    """Return what multiplies the share of each place, so that their sum is the secret."""
    factors = {}
    for place in places:
        above = below = 1
        for other in places:
            if other != place:
                above = above * other % PRIME
                below = below * (other - place) % PRIME
        factors[place] = above * pow(below, -1, PRIME) % PRIME
    return factors


def combine(shares: Mapping[int, bytes], factors: Mapping[int, int]) -> bytes | None:
    """Return the secret of the shares at the places of `factors`; None if they are not shares of
    one secret of 32 bytes."""
    value = (
        sum(int.from_bytes(shares[place], "big") * factor for place, factor in factors.items())
        % PRIME
    )
    return value.to_bytes(SECRET, "big") if value < 1 << (8 * SECRET) else None
