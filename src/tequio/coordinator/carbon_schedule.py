"""Rounds at their simulated hours: the plan of the next one, its record, and the coordinator's own
carbon.

The decision is in clock.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tequio.coordinator.carbon_clock import Clock, Terms, Work, Worker, advance
from tequio.coordinator.run_spec import RunSpec
from tequio.core.reason import Reason
from tequio.core.types import Energy, Span
from tequio.measure.site import Site


@dataclass(frozen=True)
class Shift:
    """workers: by name, the centre among them where it trains. site: the coordinator's. clock:
    after the rounds made so far.
    """

    terms: Terms
    workers: Mapping[str, Worker]
    site: Site
    clock: Clock

    @property
    def hour(self) -> tuple[Span, ...]:
        """The slot that begins now: what is not shifted (evaluation, coordination, personal models)
        counts at its intensity.
        """
        return (Span(self.clock.now.isoformat(), self.terms.slot),)

    def spent(self) -> dict[str, Any]:
        """For the record, where no more round may begin."""
        return {
            "reason": Reason("shift-carbon-spent").as_record(),
            "spent": {"kg_co2e": self.clock.spent / 1000.0},
        }

    def turn(self, run_spec: RunSpec, round_: int) -> Turn | None:
        """Round `round_`; None where the budget allows none."""
        roster = replace(run_spec, resting=frozenset()).roster(round_)
        names = [member.name for member in roster if member.index > 0]
        workers = {member.name: self.workers[member.name] for member in roster}
        found = advance(self.clock, round_ - run_spec.centre_first, workers, names, self.terms)
        if found is None:
            return None
        clock, work = found
        after = replace(self, clock=clock)
        hours = {member.index: work[member.name].hours for member in roster if member.name in work}
        rested = [member for member in roster if member.name not in work]
        resting = frozenset(member.index for member in rested)
        record = {
            "began": self.clock.now.isoformat(),
            "ended": clock.now.isoformat(),
            "work": [_row(name, one) for name, one in work.items()],
            "rested": [member.name for member in rested],
            "clock": clock.facts(),
        }
        return Turn(
            replace(run_spec, hours=hours, after=after.hour, resting=resting),
            after,
            {"shift": record},
        )


@dataclass(frozen=True)
class Turn:
    """One round: its plan, the shift after it, and what its record tells."""

    run_spec: RunSpec
    shift: Shift
    record: dict[str, Any]

    def of_coordinator(self, energy: Energy, body: Mapping[str, Any]) -> Energy:
        """The round's energy at the intensity of what is the coordinator's in it: the centre's work
        at its hours, the rest after.
        """
        rows = [*body.get("train", []), *body.get("evaluation", [])]
        centre = next((m.name for m in (self.run_spec.centre,) if m is not None), None)
        own = sum(_joules(row) for row in rows if row["name"] == centre)
        rest = energy.joules - sum(_joules(row) for row in rows if row["name"] != centre)
        mean = after = self.shift.site.over(self.shift.hour)
        there = next(
            (w["intensity"] for w in self.record["shift"]["work"] if w["name"] == centre), None
        )
        if after is not None and there is not None and rest > 0.0:
            share = min(1.0, own / rest)
            mean = share * there + (1.0 - share) * after
        return replace(energy, intensity=mean, began=self.record["shift"]["began"])


def _joules(row: Mapping[str, Any]) -> float:
    """Of a row, at the watts of the machine that simulates."""
    energy = row.get("energy") or {}
    hosted = energy.get("hosted")
    return float((energy.get("joules") or 0.0) if hosted is None else hosted)


def _row(name: str, work: Work) -> dict[str, Any]:
    hours = [[span.begin, span.seconds] for span in work.hours]
    return {"name": name, "hours": hours, "intensity": work.intensity, "at_once": work.at_once}
