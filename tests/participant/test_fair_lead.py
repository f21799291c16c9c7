"""The lead over a model trained alone, whose checkpoint was chosen on the very texts that
measure it.
"""

from __future__ import annotations

import numpy as np
import pytest

from tequio.participant.choice import fair_lead, lead, lowest
from tequio.participant.text_tasks import Losses


def losses(values: np.ndarray) -> Losses:
    return Losses(values, np.ones(len(values)), np.full(len(values), np.nan))


def test_against_one_checkpoint_it_is_the_plain_lead() -> None:
    rng = np.random.default_rng(0)
    own, alone = losses(rng.uniform(1, 2, 40)), losses(rng.uniform(1, 2, 40))
    found = fair_lead([alone], own, 3)
    assert found is not None
    assert (found["lead"], found["error"]) == pytest.approx(lead(alone, own))
    assert found["alone"] == pytest.approx(alone.scores().loss)


def test_the_best_of_many_equal_checkpoints_is_no_better_than_one_of_them() -> None:
    """Twelve checkpoints and the model differ by noise of .5 alone: the best of them leads by luck,
    which is not counted.
    """
    rng = np.random.default_rng(1)
    plain, fair = [], []
    for _ in range(200):
        own = losses(1 + rng.normal(0, 0.5, 50))
        checkpoints = {str(k): losses(1 + rng.normal(0, 0.5, 50)) for k in range(12)}
        plain.append(lead(checkpoints[lowest(checkpoints)], own)[0])
        found = fair_lead(list(checkpoints.values()), own, 5)
        assert found is not None
        fair.append(found["lead"])
    assert np.mean(plain) < -0.08  # the best of twelve lies 1.6 errors of .071 below
    assert abs(np.mean(fair)) < 0.02


def test_one_text_gives_no_lead() -> None:
    assert fair_lead([losses(np.array([2.0]))], losses(np.array([1.0])), 0) is None
