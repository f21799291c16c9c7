"""Known answers: of masks, keys and shares, and of the field's grid."""

from __future__ import annotations

import numpy as np
import pytest
from sum_parties import Scripted

from tequio.core.errors import ProtectionError
from tequio.trust.secure_sum.agreement import Policy
from tequio.trust.secure_sum.field import LARGEST_SUM, WIDE, Field
from tequio.trust.secure_sum.masks import CHUNK, Mask, apply_masks, derive_key
from tequio.trust.secure_sum.shamir import PRIME, combine, lagrange, split

KEY = bytes(range(32))


def test_the_stream_of_aes_256_in_counter_mode() -> None:
    vector = np.zeros(4, WIDE)
    apply_masks(vector, [Mask(KEY, 1, 0, 4)])
    assert vector.tolist() == [3053490418, 3500099882, 1788539817, 2155294429]
    apply_masks(vector, [Mask(KEY, -1, 0, 4)])
    assert vector.tolist() == [0, 0, 0, 0]


def test_a_key_is_derived_by_hkdf() -> None:
    assert (
        derive_key(KEY, b"self").hex()
        == "d8b9385cda0473fe39f469aa0811e97a6fd5e9ef700e0a0bd13fbd6ed62ac16f"
    )


def test_shares_of_a_polynomial_with_coefficients_1_and_2() -> None:
    coefficients = iter((1, 2))
    shares = split(KEY, range(1, 6), 3, lambda size: next(coefficients).to_bytes(size, "big"))
    lowest = [share[-3:].hex() for share in shares.values()]
    assert lowest == ["1d1e22", "1d1e29", "1d1e34", "1d1e43", "1d1e56"]
    assert all(share[:30] == b"\0" + KEY[:29] for share in shares.values())
    for places in ((2, 3, 4), (1, 3, 5)):
        assert combine(shares, lagrange(places)) == KEY
    assert combine(shares, lagrange((1, 2))) != KEY


def test_the_modulus_of_shares_is_prime() -> None:
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in range(2, 60):  # Miller and Rabin
        powers = [pow(base, odd << twice, PRIME) for twice in range(twos)]
        assert powers[0] == 1 or PRIME - 1 in powers, base


def test_the_largest_secret_and_shares_that_are_none() -> None:
    secret = b"\xff" * 32
    shares = split(secret, (1, 2, 7), 2, Scripted("largest"))
    assert combine(shares, lagrange((2, 7))) == secret
    assert combine({1: (2**256).to_bytes(33, "big")}, lagrange((1,))) is None


def test_a_mask_is_the_same_however_it_is_cut() -> None:
    size = 2 * CHUNK + 17
    whole = np.zeros(size, WIDE)
    apply_masks(whole, [Mask(KEY, 1, 0, size)])
    late = np.zeros(size + 5, WIDE)
    apply_masks(late, [Mask(KEY, 1, 5, size + 5)])
    assert not late[:5].any()
    assert (late[5:] == whole).all()
    assert whole[:4].tolist() == [3053490418, 3500099882, 1788539817, 2155294429]


@pytest.mark.parametrize(
    ("members", "colluders", "threshold"),
    [(6, 1, 4), (5, 0, 3), (5, 1, 4), (20, 1, 11), (100, 10, 56), (3, 1, 3)],
)
def test_how_many_shares_give_a_secret_back(members: int, colluders: int, threshold: int) -> None:
    assert Policy(dict.fromkeys(range(1, members + 1), b""), colluders).threshold == threshold


@pytest.mark.parametrize(
    ("members", "colluders", "fewest"),
    [(2, 0, 3), (0, 0, 3), (3, 2, 3), (4, 1, 5), (9, 1, 2), (9, -1, 3)],
)
def test_too_small_a_crowd_is_refused(members: int, colluders: int, fewest: int) -> None:
    with pytest.raises(ProtectionError) as error:
        Policy(dict.fromkeys(range(1, members + 1), b""), colluders, fewest)
    assert error.value.reason is not None
    assert error.value.reason.code == "secure-sum-few-members"


@pytest.mark.parametrize("bound", [1e-6, 0.7, 1.0, 300.0])
@pytest.mark.parametrize("members", [3, 20, 100])
def test_the_grid_is_fine_and_leaves_a_guard(bound: float, members: int) -> None:
    field = Field(bound, members)
    assert np.frexp(field.step)[0] == 0.5, "a power of two"
    assert bound * members / LARGEST_SUM <= field.step < 2 * bound * members / LARGEST_SUM
    assert members * field.largest <= LARGEST_SUM


def test_a_value_is_clipped_and_rounded() -> None:
    field = Field(1.0, 4)
    out = np.empty(5, WIDE)
    field.quantise(np.array([0.0, 5.0, -5.0, 2.6 * field.step, -1.0]), out)
    assert out.view("<i4").tolist() == [0, field.largest, -field.largest, 3, -field.largest]
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(ProtectionError):
            field.quantise(np.array([0.0, bad]), out[:2])
