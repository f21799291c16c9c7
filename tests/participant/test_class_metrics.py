from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequio.participant.choice import one_error
from tequio.participant.class_metrics import (
    FEW,
    balanced_accuracy,
    class_metrics,
    confusion,
    macro_f1,
    published_cells,
    right_range,
)
from tequio.participant.personal import gain
from tequio.participant.text_tasks import Losses

TABLES = st.integers(2, 5).flatmap(
    lambda k: st.lists(st.lists(st.integers(0, 30), min_size=k, max_size=k), min_size=k, max_size=k)
)


def test_a_model_that_always_says_the_frequent_class_does_not_win() -> None:
    """35 to 1: accuracy 35/36, balanced accuracy 1/2, macro-F1 (70/71)/2; a model that is right on
    both wins.
    """
    truth, always = [0] * 35 + [1], [0] * 36
    found = class_metrics(2, truth, {"local": always, "personal": truth}, [0] * 70 + [1] * 2)
    assert found["baseline"] == {"label": 0, "accuracy": 0.97, "balanced_accuracy": 0.5}
    assert found["balanced_accuracy"] == {"local": 0.5, "personal": 1.0}
    assert found["macro_f1"] == {"local": 0.49, "personal": 1.0}
    assert found["support"] == [None, None]  # of 36 texts, 35 would give the 1 away
    assert found["right"]["local"] == [None, None]


def test_balanced_accuracy_and_macro_f1_by_hand() -> None:
    """Recalls 8/10 and 3/6; F1 16/21 and 6/11. Class 2 never occurs and is never answered."""
    table = np.array([[8, 2, 0], [3, 3, 0], [0, 0, 0]])
    assert balanced_accuracy(table) == pytest.approx((0.8 + 0.5) / 2)
    assert macro_f1(table) == pytest.approx((16 / 21 + 6 / 11) / 2)


def test_confusion_counts_true_by_row() -> None:
    assert confusion(3, [0, 0, 1, 2], np.array([0.0, 2.0, 1.0, 1.0])).tolist() == [
        [1, 0, 1],
        [0, 1, 0],
        [0, 1, 0],
    ]


@given(TABLES)
def test_no_small_cell_leaves_nor_follows_from_what_leaves(rows: list[list[int]]) -> None:
    table = np.array(rows)
    published = published_cells(table)
    for i, row in enumerate(rows):
        shown = {j: count for t, j, count in published if t == i}
        assert all(row[j] == count >= FEW for j, count in shown.items())
        if shown:
            assert sum(row) - sum(shown.values()) >= FEW  # no small number is left over
        found = right_range(table[i], i)
        if found is None:
            assert sum(row) < FEW
            continue
        low, high = found
        assert low <= row[i] <= high
        if low == high:
            assert FEW <= row[i] <= sum(row) - FEW


def losses(values: list[float], right: list[float]) -> Losses:
    return Losses(np.array(values), np.ones(len(values)), np.array(right))


def test_a_gain_is_recorded_with_its_pairs_and_its_log_ratio() -> None:
    found = gain(losses([0.5, 0.4, 0.3], [1, 1, 0]), losses([1.0, 0.9, 0.5], [1, 0, 1]), 0)
    assert found["pairs"] == {"both": 1, "better": 1, "worse": 1, "neither": 0}
    assert found["log_ratio"]["mean"] == pytest.approx(np.log(2.4 / 1.2))
    assert found["loss"]["mean"] == pytest.approx(0.4)
    causal = gain(losses([0.5, 0.4], [np.nan] * 2), losses([1.0, 0.9], [np.nan] * 2), 0)
    assert causal["pairs"] is None
    assert set(gain(losses([1.0], [1.0]), losses([1.0], [1.0]), 0).values()) == {None}


def test_the_rule_that_chose_is_said() -> None:
    shared, local = losses([1.0, 0.2, 1.0, 0.6], [1] * 4), losses([0.1, 1.0, 0.9, 0.7], [1] * 4)
    evaluated = {"shared": shared, "local": local}
    chosen = one_error(evaluated)
    found = chosen.facts
    assert chosen.name == "shared"
    assert (found["rule"], found["best"]) == ("within_one_error", "local")
    assert found["lead"] == pytest.approx(0.025)
    assert found["error"] > found["lead"]
    assert one_error({"base": local, "shared": losses([0.1] * 4, [1] * 4)}).facts == {
        "rule": "lowest_loss",
        "best": "shared",
    }
    assert asdict(local)["answered"] is None
