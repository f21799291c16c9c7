"""What a budget leaves of the trainings and candidates of a personal model; costs are counted by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

from tequio.participant.personal_budget import Budget, Thrift, closing_passes

LOOK, STEP = 2.0, 1.0


@dataclass
class Machine:
    """A look takes LOOK, a step STEP."""

    spent: dict[str, float] = field(default_factory=lambda: {"kwh": 0.0})

    def thrift(self, limit: float, fits: list[Budget], looks: int = 0, test: int = 0) -> Thrift:
        return Thrift({"kwh": limit}, lambda: self.spent, 4, 24, test, fits, looks)  # a step is guessed as .5 of a look

    def fit(self, thrift: Thrift, budget: Budget, name: str) -> int:
        """As `personal.fit` does it; returns the steps that were made."""
        made = 0
        with thrift.looking():
            self.spent["kwh"] += LOOK
        plan = thrift.planned(budget, name)
        for _ in plan.rates:
            done = 0
            while done < plan.steps and thrift.may(name, done, plan):
                for _ in thrift.steps([0.1] * (plan.steps - done)):
                    self.spent["kwh"] += STEP
                    done += 1
                self.spent["kwh"] += LOOK
            made += done
        return made


def test_without_limits_nothing_is_counted() -> None:
    thrift, budget = Thrift(), Budget(2, 10, (0.1, 0.2), 1)
    with thrift.looking():
        pass
    assert thrift.planned(budget, "local") is budget
    rates = [0.1, 0.2]
    assert thrift.steps(rates) is rates
    assert thrift.may("local", 0, budget)
    assert thrift.may_look()
    assert thrift.note() == ""


def test_what_fits_is_made_whole() -> None:
    machine, budget = Machine(), Budget(2, 10, (0.1, 0.2), 1)
    thrift = machine.thrift(100.0, [budget])
    assert [machine.fit(thrift, budget, name) for name in ("local", "private")] == [20, 20]
    assert thrift.note() == ""


def test_both_trainings_are_shortened_in_one_proportion_and_the_test_is_kept_back_for() -> None:
    machine, budget = Machine(), Budget(2, 40, (0.1,), 1)
    thrift = machine.thrift(60.0, [budget], looks=2, test=24)  # 4 looks at test data: 8, two candidates: 4
    local, private = (machine.fit(thrift, budget, name) for name in ("local", "private"))
    assert 15 <= local <= private + 2
    assert private < 40
    for _ in range(2):
        assert thrift.may_look()
        machine.spent["kwh"] += LOOK
    machine.spent["kwh"] += 4 * LOOK
    assert machine.spent["kwh"] <= 60.0
    assert thrift.note() == (
        f"local {local} of 40 steps at 1 of 1 learning rates; private {private} of 40 steps at 1 of 1 learning rates: "
        "no more fit the budget of energy"
    )


def test_few_steps_go_to_one_learning_rate_and_none_is_none() -> None:
    machine, budget = Machine(), Budget(2, 30, (0.1, 0.2, 0.3), 5)
    some = machine.thrift(20.0, []).planned
    assert some(budget, "local") == budget  # nothing is known of costs yet
    thrift = machine.thrift(16.0, [])
    with thrift.looking():
        machine.spent["kwh"] += LOOK
    plan = thrift.planned(budget, "local")
    assert (plan.rates, 0 < plan.steps < 15) == ((0.2,), True)
    machine.spent["kwh"] = 16.0
    spent = thrift.planned(budget, "private")
    assert (spent.rates, spent.steps) == ((), 0)
    assert not thrift.may_look()
    assert "private 0 of 30 steps at 0 of 3 learning rates: no more fit the budget of energy" in thrift.note()


def test_a_training_that_is_not_worth_it_leaves_its_part_to_the_next() -> None:
    machine, long, short = Machine(), Budget(2, 100, (0.1,), 2), Budget(2, 10, (0.1,), 2)
    thrift = machine.thrift(27.0, [short], test=24)  # 28 would be needed, were local to be looked at on test data
    assert [machine.fit(thrift, budget, name) for budget, name in ((long, "local"), (short, "private"))] == [0, 10]
    assert thrift.note().startswith("local 0 of 100 steps at 0 of 1 learning rates: ")
    assert machine.spent["kwh"] + 3 * LOOK <= 27.0  # base, shared and the chosen one on test data


def test_a_training_ends_before_a_step_that_does_not_fit() -> None:
    """Steps turn out three times as dear as guessed."""
    machine, budget = Machine(), Budget(2, 12, (0.1,), 1)
    thrift = machine.thrift(20.0, [])
    with thrift.looking():
        machine.spent["kwh"] += LOOK
    assert thrift.planned(budget, "local") == budget
    made = 0
    for _ in thrift.steps([0.1] * 12):
        machine.spent["kwh"] += 3 * STEP
        made += 1
    assert made == 5  # 2 + 5·3, and a sixth with its look would be 22
    assert not thrift.may("local", made, budget)
    assert "local ended after 5 of 12 steps" in thrift.note()
    assert not thrift.fair("local", made, budget)  # fewer than half: nothing to compare with
    assert thrift.fair("local", 6, budget)
    assert thrift.fair("private", 0, budget)  # no budget cut it


def test_the_last_look_by_hand() -> None:
    assert closing_passes(20, 40) == 6.0
