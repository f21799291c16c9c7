"""The parts of which codecs are made: levels, rotations, bits, Rice codes, scales and byte planes
are read back as they were.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tequio.algorithms.compress._bits import (
    as_bytes,
    as_tensor,
    byte_count,
    pack_bits,
    rice_decode,
    rice_encode,
    unpack_bits,
)
from tequio.algorithms.compress._hadamard import rotate, unrotate
from tequio.algorithms.compress._halves import from_planes, shared_exponent, to_half, to_planes
from tequio.algorithms.compress.eden import LEVELS


@pytest.mark.parametrize("bits", sorted(LEVELS))
def test_levels_of_eden_are_the_fixed_point_of_lloyd(bits: int) -> None:
    """Each level is the mean of N(0, 1) between the midpoints to its neighbours:

    (φ(l) − φ(u)) / (Φ(u) − Φ(l)).
    """
    levels = [*(-x for x in reversed(LEVELS[bits])), *LEVELS[bits]]
    cuts = [-math.inf, *((x + y) / 2 for x, y in pairwise(levels)), math.inf]
    for level, low, high in zip(levels, cuts[:-1], cuts[1:], strict=True):
        mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
        mean = (
            (math.exp(-low * low / 2) - math.exp(-high * high / 2)) / math.sqrt(2 * math.pi) / mass
        )
        assert level == pytest.approx(mean, abs=4e-4)


@given(length=st.integers(1, 700), vectors=st.integers(1, 3), seed=st.integers(0, 2**53 - 1))
@settings(max_examples=40, deadline=None)
def test_rotation_is_orthogonal(length: int, vectors: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed % 1000)
    x, y = torch.randn(2, vectors, length, generator=g)
    turned = rotate(x, seed, 0)
    assert torch.allclose(unrotate(turned, seed, 0), x, atol=1e-5)
    assert torch.allclose(turned.norm(dim=1), x.norm(dim=1), rtol=1e-5)
    assert torch.allclose((turned * rotate(y, seed, 0)).sum(1), (x * y).sum(1), atol=1e-3)


def test_rotation_covers_long_vectors_in_windows() -> None:
    """10,000 = 2 windows of 4,096 from the start, then 2 from the end: a spike in the rest of 1,808
    is spread too.
    """
    x = torch.zeros(1, 10_000)
    x[0, 9_999] = 1.0
    turned = rotate(x, 1, 0)
    assert float(turned.abs().max()) == pytest.approx(4096**-0.5, rel=1e-5)
    assert torch.allclose(unrotate(turned, 1, 0), x, atol=1e-6)


@given(gaps=st.lists(st.integers(0, 5000), max_size=200))
@settings(max_examples=60, deadline=None)
def test_rice_codes_are_read_back(gaps: list[int]) -> None:
    positions = np.cumsum(np.array([g + 1 for g in gaps], np.int64)) - 1
    unary, low, width = rice_encode(positions)
    assert low.size == byte_count(len(gaps), width)
    back = rice_decode(unary, low, width, len(gaps))
    assert back is not None
    assert back.tolist() == positions.tolist()
    assert rice_decode(unary, low, width, len(gaps) + 1) is None


@given(values=st.lists(st.integers(0, 2**16 - 1), max_size=50), bits=st.integers(0, 16))
@settings(max_examples=60, deadline=None)
def test_bits_are_read_back(values: list[int], bits: int) -> None:
    numbers = np.array([v % 2**bits for v in values], np.int64)
    packed = pack_bits(numbers, bits)
    assert packed.size == byte_count(len(values), bits)
    assert unpack_bits(packed, len(values), bits).tolist() == numbers.tolist()
    assert torch.equal(as_tensor(as_bytes(as_tensor(packed))), as_tensor(packed))


@given(value=st.floats(0, 2.0**100, width=32), exponent=st.integers(-40, 100))
@settings(max_examples=100, deadline=None)
def test_a_scale_is_rounded_to_the_asked_side(value: float, exponent: int) -> None:
    """A scale under the largest number would cut it off, a bias."""
    exponent = max(exponent, shared_exponent(value))
    exact = torch.tensor([value], dtype=torch.float64)
    down = to_half(exact, exponent, "down").double() * 2.0**exponent
    up = to_half(exact, exponent, "up").double() * 2.0**exponent
    assert float(down) <= value <= float(up)
    assert float(up - down) <= max(value / 1024, 2.0 ** (exponent - 24))  # one step of float16


def test_planes_are_read_back() -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
    assert torch.equal(from_planes(to_planes(every)).view(torch.int16), every.view(torch.int16))
