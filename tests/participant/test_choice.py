"""Which candidate a participant keeps: the best on validation, but the shared one unless it is beaten beyond one standard error."""

from __future__ import annotations

import numpy as np

from tequio.participant.personal import choose
from tequio.participant.text_tasks import Losses


def losses(*values: float) -> Losses:
    total = np.array(values)
    return Losses(total, np.ones(len(total)), np.full(len(total), np.nan))


def test_a_lead_within_one_standard_error_leaves_the_shared_model() -> None:
    # leads of local: +1, −1, +1, −1, +1; mean 0.2, standard error √(1.2/5) = 0.49
    evaluated = {"shared": losses(1, 1, 1, 1, 1), "local": losses(0, 2, 0, 2, 0), "base": losses(3, 3, 3, 3, 3)}
    assert choose(evaluated) == "shared"


def test_a_lead_beyond_one_standard_error_counts() -> None:
    # leads of local: +1, +1, +1, −1, +1; mean 0.6, standard error √(0.8/5) = 0.4
    evaluated = {"shared": losses(1, 1, 1, 1, 1), "local": losses(0, 0, 0, 2, 0), "base": losses(3, 3, 3, 3, 3)}
    assert choose(evaluated) == "local"


def test_the_best_of_several_is_the_one_compared() -> None:
    evaluated = {"shared": losses(2, 2.1, 2), "local": losses(1, 1, 1.1), "shared + 1 private": losses(0.5, 0.5, 0.5)}
    assert choose(evaluated) == "shared + 1 private"


def test_one_validation_example_cannot_move_a_participant_from_the_shared_model() -> None:
    assert choose({"shared": losses(2.0), "local": losses(1.0)}) == "shared"


def test_without_a_usable_shared_model_the_best_is_retained() -> None:
    assert choose({"base": losses(2.0, 2.0), "local": losses(1.0, 1.5)}) == "local"
