"""What a round may take of a participant's own budget: what is left, less what is kept back for
looks.

By hand.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import refused
from tequio.core.errors import BudgetError
from tequio.core.reason import Reason
from tequio.core.types import TrainRequest
from tequio.core.update import zero
from tequio.participant.accounts import AccountBook
from tequio.participant.task_budget import check_look, for_training

TASK = TrainRequest(
    1,
    1,
    "a",
    "product",
    rank=2,
    steps=3,
    learning_rate=1e-3,
    seed=1,
    held=zero("s"),
    budget={"kwh": 4.0},
)


def allowed(books: AccountBook, closing: float = 4.0) -> dict[str, float]:
    return for_training(TASK, "a", books, 450, closing, pass_steps=6.0)


def test_looks_are_retained_back_for_and_the_smaller_limit_counts() -> None:
    books = AccountBook(limits={"kwh": 10.0, "hours": 2.0})
    assert allowed(books) == {"kwh": 4.0, "hours": 2.0}  # nothing is known yet
    books.spending.add("evaluate", {"kwh": 1.5, "hours": 0.1})
    assert allowed(books) == {"kwh": 1.0, "hours": pytest.approx(1.4)}  # 10 − 1.5 − 5·1.5
    books.spending.add("train", {"kwh": 0.6, "hours": 0.1}, 3)
    assert allowed(books) == {"kwh": pytest.approx(0.4), "hours": pytest.approx(1.3)}
    books.spending.add("train", {"kwh": 0.5}, 3)
    with pytest.raises(BudgetError) as caught:
        allowed(books)
    assert caught.value.reason == Reason("own-budget-spent", {"keys": ["kwh"]})
    check_look("a", books, 4.0)  # promised by the training
    books.spending.add("evaluate", {"kwh": 1.5})
    with refused(BudgetError, "own-budget-spent"):
        check_look("a", books, 4.0)


def test_a_federations_money_bounds_only_money_that_counts_in_it() -> None:
    task = replace(TASK, budget={"money": 2.0, "kwh": 4.0})
    for counted, bound in ((True, {"money": 2.0, "kwh": 4.0}), (False, {"money": 9.0, "kwh": 4.0})):
        books = AccountBook(limits={"money": 9.0}, counted=counted)
        assert for_training(task, "a", books, 450, 4.0, pass_steps=6.0) == bound


def test_who_never_evaluated_guesses_it_from_steps() -> None:
    books = AccountBook(limits={"kwh": 10.0})
    books.spending.add("train", {"kwh": 1.5}, 3)  # a step .5, a pass of six batches 6 · .5 / 3 = 1
    assert allowed(books) == {"kwh": 3.5}  # 10 − 1.5 − 5


def test_the_largest_upload_must_fit_and_nothing_else_takes_bytes() -> None:
    books = AccountBook(limits={"megabytes": 0.002})
    books.spending.add("evaluate", {"kwh": 1.0})
    assert allowed(books) == {"kwh": 4.0}
    books.spending.add("train", {"megabytes": 0.0016}, 3)
    with pytest.raises(BudgetError) as caught:
        allowed(books)
    assert caught.value.reason == Reason("own-budget-spent", {"keys": ["megabytes"]})
