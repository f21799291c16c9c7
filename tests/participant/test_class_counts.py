"""Test texts of a class: no count of one to four can be found by subtraction from the total."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tequio.participant.class_metrics import FEW, published_support


def test_one_rare_class_takes_the_next_smallest_with_it() -> None:
    assert published_support(np.array([6, 4, 7])) == [None, None, 7]
    assert published_support(np.array([6, 5, 7])) == [6, 5, 7]
    assert published_support(np.array([6, 0, 7])) == [
        6,
        None,
        7,
    ]  # a class without test texts is no secret
    assert published_support(np.array([2, 1])) == [None, None]


@given(st.lists(st.integers(0, 20), min_size=2, max_size=8))
def test_hidden_counts_sum_to_five_or_more(support: list[int]) -> None:
    shown = published_support(np.array(support))
    hidden = sum(n for n, published in zip(support, shown, strict=True) if published is None)
    assert all(n is None or n >= FEW for n in shown)
    assert hidden == 0 or hidden >= FEW or all(n is None for n in shown)
