"""Which candidate a participant keeps, by the rule of today and by that of earlier records."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequio.participant.choice import general_share, one_error, private_share, shrunk
from tequio.participant.text_tasks import Losses


def losses(*values: float) -> Losses:
    total = np.array(values)
    return Losses(total, np.ones(len(total)), np.full(len(total), np.nan))


def test_a_lead_within_one_standard_error_leaves_the_shared_model() -> None:
    # leads of local: +1, −1, +1, −1, +1; mean 0.2, standard error √(1.2/5) = 0.49
    evaluated = {
        "shared": losses(1, 1, 1, 1, 1),
        "local": losses(0, 2, 0, 2, 0),
        "base": losses(3, 3, 3, 3, 3),
    }
    assert one_error(evaluated).name == "shared"


def test_a_lead_beyond_one_standard_error_counts() -> None:
    # leads of local: +1, +1, +1, −1, +1; mean 0.6, standard error √(0.8/5) = 0.4
    evaluated = {
        "shared": losses(1, 1, 1, 1, 1),
        "local": losses(0, 0, 0, 2, 0),
        "base": losses(3, 3, 3, 3, 3),
    }
    assert one_error(evaluated).name == "local"


def test_the_best_of_several_is_the_one_compared() -> None:
    evaluated = {
        "shared": losses(2, 2.1, 2),
        "local": losses(1, 1, 1.1),
        "shared + 1 private": losses(0.5, 0.5, 0.5),
    }
    assert one_error(evaluated).name == "shared + 1 private"


def test_one_validation_example_cannot_move_a_participant_from_the_shared_model() -> None:
    assert one_error({"shared": losses(2.0), "local": losses(1.0)}).name == "shared"


def test_without_a_usable_shared_model_the_best_is_retained() -> None:
    assert one_error({"base": losses(2.0, 2.0), "local": losses(1.0, 1.5)}).name == "local"


FAMILY = frozenset({"shared", "shared + 0.5 private", "shared + 1 private", "shared + 0.7 private"})


def test_without_a_difference_the_share_is_the_prior_and_the_mean() -> None:
    share, favoured = private_share({0.0: losses(*[1.0] * 10), 1.0: losses(*[1.0] * 10)}, 7)
    assert favoured == 0.0  # of equal losses the first, the shared model
    assert share == pytest.approx((10 * 0.0 + 100 * 0.75) / 110)


def test_the_share_follows_many_texts_and_hardly_follows_few() -> None:
    few, many = ({0.0: losses(*[1.0] * n), 1.0: losses(*[0.5] * n)} for n in (10, 10_000))
    share, favoured = private_share(few, 7)
    assert (share, favoured) == pytest.approx(((10 * 1.0 + 100 * 0.75) / 110, 1.0))
    assert private_share(many, 7)[0] == pytest.approx(0.9975, abs=1e-3)


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(0, 5)), min_size=1, max_size=30),
    st.integers(),
)
def test_the_share_lies_between_the_favoured_one_and_the_prior(
    rows: list[tuple[float, float, float]], seed: int
) -> None:
    columns = list(zip(*rows, strict=True))
    share, favoured = private_share(
        {a: losses(*c) for a, c in zip((0.0, 0.5, 1.0), columns, strict=True)}, seed
    )
    assert 0.0 <= favoured <= 1.0
    assert min(favoured, 0.75) <= share <= max(favoured, 0.75)
    again = private_share(
        {a: losses(*c) for a, c in zip((0.0, 0.5, 1.0), columns, strict=True)}, seed
    )
    assert again == (share, favoured)


def test_a_model_trained_alone_must_lead_by_two_standard_errors() -> None:
    # leads of local: +1, +1, +1, −1, +1; mean 0.6, standard error 0.4: beyond one, within two
    evaluated = {"shared + 0.7 private": losses(1, 1, 1, 1, 1), "shared": losses(2, 2, 2, 2, 2)}
    near, far = losses(0, 0, 0, 2, 0), losses(0, 0, 0, 0.5, 0)
    found = shrunk({**evaluated, "local": near}, "shared + 0.7 private", FAMILY)
    assert (found.name, found.facts["rule"], found.facts["best"]) == (
        "shared + 0.7 private",
        "shrunk",
        "local",
    )
    assert (found.facts["lead"], found.facts["error"]) == (pytest.approx(0.6), pytest.approx(0.4))
    found = shrunk({**evaluated, "local": far}, "shared + 0.7 private", FAMILY)
    assert (found.name, found.facts["rule"]) == ("local", "clear_lead")


def test_a_nearby_share_is_no_rival_of_the_chosen_one() -> None:
    evaluated = {
        "shared + 0.7 private": losses(1, 1, 1),
        "shared + 1 private": losses(0.9, 0.9, 0.9),
    }
    found = shrunk(evaluated, "shared + 0.7 private", FAMILY)
    assert (found.name, found.facts) == ("shared + 0.7 private", {"rule": "shrunk", "texts": 3})


def test_the_general_model_is_the_nearest_to_the_shared_one_within_a_percent() -> None:
    own, half, shared = losses(1.0, 1.0), losses(1.009, 1.009), losses(1.5, 1.5)
    assert general_share({0.0: shared, 0.5: half, 1.0: own}) == 0.5
    assert general_share({0.0: shared, 0.5: losses(1.2, 1.2), 1.0: own}) == 1.0
    assert general_share({0.0: own, 0.5: half, 1.0: own}) == 0.0
