"""What a budget leaves of the trainings and candidates of a personal model; costs are counted
by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tequio.core.reason import Reason
from tequio.participant.personal_budget import FitBudget, PersonalModelBudget, closing_passes

LOOK, STEP = 2.0, 1.0


@dataclass
class Machine:
    """A look takes LOOK, a step STEP."""

    spent: dict[str, float] = field(default_factory=lambda: {"kwh": 0.0})

    def budgeted(
        self, limit: float, fits: list[FitBudget], looks: int = 0, test: int = 0
    ) -> PersonalModelBudget:
        return PersonalModelBudget(
            {"kwh": limit}, lambda: self.spent, 4, 24, test, fits, looks
        )  # a step is guessed as .5 of a look

    def fit(self, budgeted: PersonalModelBudget, budget: FitBudget, name: str) -> int:
        """As `personal.fit` does it; returns the steps that were made."""
        made = 0
        with budgeted.looking():
            self.spent["kwh"] += LOOK
        run_spec = budgeted.planned(budget, name)
        for _ in run_spec.rates:
            done = 0
            while done < run_spec.steps and budgeted.may(name, done, run_spec):
                for _ in budgeted.steps([0.1] * (run_spec.steps - done)):
                    self.spent["kwh"] += STEP
                    done += 1
                self.spent["kwh"] += LOOK
            made += done
        return made


def test_without_limits_nothing_is_counted() -> None:
    budgeted, budget = PersonalModelBudget(), FitBudget(2, 10, (0.1, 0.2), 1)
    with budgeted.looking():
        pass
    assert budgeted.planned(budget, "local") is budget
    rates = [0.1, 0.2]
    assert budgeted.steps(rates) is rates
    assert budgeted.may("local", 0, budget)
    assert budgeted.may_look()
    assert budgeted.note() is None


def test_what_fits_is_made_whole() -> None:
    machine, budget = Machine(), FitBudget(2, 10, (0.1, 0.2), 1)
    budgeted = machine.budgeted(100.0, [budget])
    assert [machine.fit(budgeted, budget, name) for name in ("local", "private")] == [20, 20]
    assert budgeted.note() is None


def test_both_trainings_are_shortened_in_one_proportion_and_the_test_is_retained_back_for() -> None:
    machine, budget = Machine(), FitBudget(2, 40, (0.1,), 1)
    budgeted = machine.budgeted(
        60.0, [budget], looks=2, test=24
    )  # 4 looks at test data: 8, two candidates: 4
    local, private = (machine.fit(budgeted, budget, name) for name in ("local", "private"))
    assert 15 <= local <= private + 2
    assert private < 40
    for _ in range(2):
        assert budgeted.may_look()
        machine.spent["kwh"] += LOOK
    machine.spent["kwh"] += 4 * LOOK
    assert machine.spent["kwh"] <= 60.0
    one = {"full": 40, "rates": 1, "full_rates": 1}
    cut = [Reason("fit-shortened", {"fit": "local", "steps": local} | one)]
    cut.append(Reason("fit-shortened", {"fit": "private", "steps": private} | one))
    assert budgeted.cut == cut
    assert budgeted.note() == Reason(
        "personal-cut", {"cut": [part.as_record() for part in cut], "keys": ["kwh"]}
    )


def test_few_steps_go_to_one_learning_rate_and_none_is_none() -> None:
    machine, budget = Machine(), FitBudget(2, 30, (0.1, 0.2, 0.3), 5)
    some = machine.budgeted(20.0, []).planned
    assert some(budget, "local") == budget  # nothing is known of costs yet
    budgeted = machine.budgeted(16.0, [])
    with budgeted.looking():
        machine.spent["kwh"] += LOOK
    run_spec = budgeted.planned(budget, "local")
    assert (run_spec.rates, 0 < run_spec.steps < 15) == ((0.2,), True)
    machine.spent["kwh"] = 16.0
    spent = budgeted.planned(budget, "private")
    assert (spent.rates, spent.steps) == ((), 0)
    assert not budgeted.may_look()
    none = {"fit": "private", "steps": 0, "full": 30, "rates": 0, "full_rates": 3}
    assert budgeted.cut[-1] == Reason("fit-shortened", none)
    assert budgeted.short == {"kwh"}


def test_a_training_that_is_not_worth_it_leaves_its_part_to_the_next() -> None:
    machine, long, short = Machine(), FitBudget(2, 100, (0.1,), 2), FitBudget(2, 10, (0.1,), 2)
    budgeted = machine.budgeted(
        28.0, [short], test=24
    )  # 29 would be needed, were local to be looked at on test data
    assert [
        machine.fit(budgeted, budget, name)
        for budget, name in ((long, "local"), (short, "private"))
    ] == [0, 10]
    none = {"fit": "local", "steps": 0, "full": 100, "rates": 0, "full_rates": 1}
    assert budgeted.cut[0] == Reason("fit-shortened", none)
    assert (
        machine.spent["kwh"] + 4 * LOOK <= 28.0
    )  # base, shared, the chosen and the general one on test data


def test_a_training_ends_before_a_step_that_does_not_fit() -> None:
    """Steps turn out three times as dear as guessed."""
    machine, budget = Machine(), FitBudget(2, 12, (0.1,), 1)
    budgeted = machine.budgeted(20.0, [])
    with budgeted.looking():
        machine.spent["kwh"] += LOOK
    assert budgeted.planned(budget, "local") == budget
    made = 0
    for _ in budgeted.steps([0.1] * 12):
        machine.spent["kwh"] += 3 * STEP
        made += 1
    assert made == 5  # 2 + 5·3, and a sixth with its look would be 22
    assert not budgeted.may("local", made, budget)
    assert budgeted.cut[-1] == Reason("fit-ended", {"fit": "local", "steps": 5, "full": 12})
    assert not budgeted.fair("local", made, budget)  # fewer than half: nothing to compare with
    assert budgeted.fair("local", 6, budget)
    assert budgeted.fair("private", 0, budget)  # no budget cut it


def test_the_last_look_by_hand() -> None:
    assert closing_passes(20, 40) == 6.0
