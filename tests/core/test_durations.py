"""Lengths of time as messages write them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequio.core.durations import duration

SIZES = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "0 s"),
        (0.05, "0.05 s"),
        (0.5, "0.5 s"),
        (1.0, "1 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (20.0, "20 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200.0, "3 min 20 s"),
        (300.0, "5 min"),
        (3599.6, "1 h"),
        (3600.0, "1 h"),
        (5400.0, "1 h 30 min"),
        (86_399.0, "23 h 59 min"),
        (86_400.0, "1 d"),
        (183_600.0, "2 d 3 h"),
    ],
)
def test_a_duration_is_written_in_its_two_largest_units(seconds: float, written: str) -> None:
    assert duration(seconds) == written


@given(st.floats(0.0, 1e7))
def test_what_is_written_is_never_far_from_what_is_meant(seconds: float) -> None:
    words = duration(seconds).split()
    read = [
        (float(number), SIZES[unit]) for number, unit in zip(words[::2], words[1::2], strict=True)
    ]
    total = math.fsum(number * size for number, size in read)
    smallest = {60.0: 1.0, 3600.0: 60.0, 86400.0: 3600.0}.get(read[0][1], 1.0)
    assert total == pytest.approx(seconds, abs=smallest)
