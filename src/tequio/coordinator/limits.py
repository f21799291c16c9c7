"""What bounds the rounds of a coordinator of one base: the federation's budget, and the hours of
clean power ([shift]).
"""

from dataclasses import dataclass, replace
from typing import Any

from tequio.coordinator.budget import BudgetTracker
from tequio.coordinator.byte_bounds import round_most
from tequio.coordinator.carbon_schedule import Shift, Turn
from tequio.coordinator.federate import cost
from tequio.coordinator.run_spec import RunSpec
from tequio.core.types import Energy, State


@dataclass
class StarLimits:
    """tracker: what was spent before is in it already. shift: the simulated clock as the last round
    left it.
    """

    tracker: BudgetTracker | None = None
    shift: Shift | None = None
    turn: Turn | None = None  # of the round that is being made

    def open(self, run_spec: RunSpec) -> RunSpec:
        """With [shift], the base is evaluated at the hour in which the clock begins."""
        return run_spec if self.shift is None else replace(run_spec, after=self.shift.hour)

    def permit(self, state: State, run_spec: RunSpec) -> RunSpec | dict[str, Any]:
        """The plan with its hours and with what each may take; or the record of what is spent."""
        if self.shift is not None:
            self.turn = self.shift.turn(run_spec, state.round + 1)
            if self.turn is None:
                return self.shift.spent()
            run_spec = self.turn.run_spec
        if self.tracker is None:
            return run_spec
        roster, remaining = run_spec.roster(state.round + 1), run_spec.rounds - state.round
        allowed = self.tracker.allow(roster, remaining, round_most(state, run_spec))
        if allowed is None:
            return self.tracker.stopped()
        return replace(run_spec, budgets=allowed)

    def count(self, body: dict[str, Any], energy: Energy) -> dict[str, Any]:
        """The record with its cost; a round moves the clock on, a wait for one does not."""
        turn, self.turn = self.turn, None
        if turn is not None and "accepted" in body:
            self.shift = turn.shift
            body = body | turn.record | cost(turn.of_coordinator(energy, body))
        else:
            body = body | cost(energy)
        if self.tracker is not None:
            self.tracker.add(body)
        return body
