"""Buffered asynchronous rounds: windows of fixed length, so that a slow participant is late instead
of cut short.

FedBuff (Nguyen et al., arXiv 2106.06639): who is idle at the start of a window trains on the shared
model of that moment. A reply counts in the window in which it arrives; one that was sent s steps of
the shared model ago counts (1 + s)^-½ of its weight, and its change is added to the newer model. A
window with fewer replies than `buffer` makes no step, and its replies wait for the next.

    Δ = scale · Σ (1 + sᵢ)^-½ cᵢ Δᵢ / Σ wᵢ

Where time is simulated, who is without a known speed, and the centre, are in time. With everybody
in time, a window is a round, bit-for-bit identical.
"""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from tequio.coordinator.admission import Admitted, Refused
from tequio.coordinator.aggregation import aggregate, weighed
from tequio.coordinator.centre_gradient import central_gradient
from tequio.coordinator.round import (
    ShortRound,
    admissions,
    conclude,
    in_order,
    shared_model,
    task_bytes,
    training_tasks,
)
from tequio.coordinator.run_spec import Member, RunSpec
from tequio.coordinator.screening import screened
from tequio.core.canonical import digest_update
from tequio.core.protocols import Facts, Runtime
from tequio.core.reason import Reason
from tequio.core.types import Failure, InFlightUpdate, Reply, Request, State

COST = ("seconds", "joules", "energy", "money")


class Arrivals(Protocol):
    """When replies come: as participants' speeds say (`Simulated`), or when they do
    (`buffered_network.Windows`).
    """

    def working(self) -> Set[int]:
        """Who has a task and has not answered, by index."""

    def ask(self, idle: Sequence[Member], round_: int, bytes_down: int) -> None:
        """Note who is about to be sent a task in this round, and what goes down with it."""

    def gather(
        self, tasks: Iterable[Request], idle: Sequence[Member], run_spec: RunSpec, runtime: Runtime
    ) -> tuple[Sequence[Member], Iterable[Reply | Failure]]:
        """Hand out the tasks: who answers in this window, and what, as replies of this round."""

    def flight(self, admitted: Admitted, round_: int, run_spec: RunSpec) -> InFlightUpdate:
        """An update that came, its row weighed, and the round from which it counts."""

    def passed(self, run_spec: RunSpec, accepted: bool) -> list[dict[str, Any]]:
        """Who is still at work after the window, for the record; whether the shared model moved."""


@dataclass(frozen=True)
class Simulated:
    """Time is simulated: a reply is trained when it is sent for, and held until its participant's
    speed says.
    """

    def working(self) -> Set[int]:
        """Nobody: everybody has answered, and what is on its way is in the state."""
        return frozenset()

    def ask(self, idle: Sequence[Member], round_: int, bytes_down: int) -> None:
        """Nothing to note: they answer at once."""

    def gather(
        self, tasks: Iterable[Request], idle: Sequence[Member], run_spec: RunSpec, runtime: Runtime
    ) -> tuple[Sequence[Member], Iterable[Reply | Failure]]:
        """Everybody's, at once."""
        return idle, runtime.exchange(tasks)

    def flight(self, admitted: Admitted, round_: int, run_spec: RunSpec) -> InFlightUpdate:
        """An update trained now. arrival: seconds since the first window began (None: speed not
        known, in time).
        """
        window, member = run_spec.window_seconds or math.inf, admitted.member
        seconds = None if member.index == 0 else member.seconds
        windows = 1 if seconds is None else max(1, math.ceil(seconds / window - 1e-9))
        arrival = None if seconds is None else (round_ - 1) * window + seconds
        row, facts = {**admitted.row, "sent": round_, "arrival": arrival}, asdict(admitted.facts)
        return InFlightUpdate(
            member.index, round_, round_ + windows - 1, 0, admitted.update, facts, row
        )

    def passed(self, run_spec: RunSpec, accepted: bool) -> list[dict[str, Any]]:
        """Nobody."""
        return []


SIMULATED = Simulated()


def run_window(
    state: State, run_spec: RunSpec, runtime: Runtime, arrivals: Arrivals = SIMULATED
) -> tuple[State, dict[str, Any]]:
    """Window state.round + 1.

    Raises ShortRound if no participant has, or is at work on, an update that can be used.
    """
    round_ = state.round + 1
    # dispatch to who is idle
    busy = {flight.index for flight in state.flights} | arrivals.working()
    idle = [member for member in run_spec.roster(round_) if member.index not in busy]
    gradient = (
        central_gradient(round_, shared_model(state.shared, run_spec), run_spec, runtime)
        if idle
        else None
    )
    down = task_bytes(state, run_spec, gradient)
    tasks = training_tasks(state, run_spec, idle, gradient)
    arrivals.ask(idle, round_, down)
    members, replies = arrivals.gather(tasks, idle, run_spec, runtime)
    # admit and screen
    flights, refused, alarms = list(state.flights), list[Refused](), list[dict[str, Any]]()
    for outcome in screened(
        in_order(iter(replies), state, run_spec, members), state, run_spec, runtime
    ):
        alarms += [asdict(alarm) for alarm in outcome.alarms]
        if isinstance(outcome, Refused):
            refused.append(outcome)
            continue
        outcome = replace(outcome, row=weighed(outcome, run_spec) | {"bytes_down": down})
        flights.append(arrivals.flight(outcome, round_, run_spec))
    if not any(index > 0 for index in (*arrivals.working(), *(flight.index for flight in flights))):
        raise ShortRound(round_, 0, run_spec.buffer, refused)
    after, body = close(state, run_spec, runtime, flights, refused, alarms)
    body["in_flight"] += arrivals.passed(run_spec, body["accepted"])
    return after, body


def close(
    state: State,
    run_spec: RunSpec,
    runtime: Runtime,
    flights: Sequence[InFlightUpdate],
    refused: Sequence[Refused],
    alarms: Sequence[dict[str, Any]],
) -> tuple[State, dict[str, Any]]:
    """The end of window state.round + 1: a step of what is due, or none where that is too
    little.
    """
    round_ = state.round + 1
    # what has arrived, in the order of the roster
    arrived = sorted(
        (flight for flight in flights if flight.due <= round_), key=lambda flight: flight.index
    )
    replies = sum(flight.index > 0 for flight in arrived)
    if replies < run_spec.buffer:
        after = replace(state, round=round_, flights=_timeless(flights))
        return after, _without_step(after, replies, refused, run_spec) | {
            "alarms": list(alarms),
            "in_flight": _in_flight(flights),
        }
    # a round of these
    fold = aggregate([*refused, *(_land(flight) for flight in arrived)], run_spec)
    after, body = conclude(replace(state, flights=()), fold, run_spec, runtime)
    late = [_passed(flight, run_spec, body) for flight in flights if flight.due > round_]
    return replace(after, flights=_timeless(late)), body | {
        "step": True,
        "alarms": list(alarms),
        "in_flight": _in_flight(late),
    }


def discount(staleness: int) -> float:
    """(1 + s)^-½."""
    return float((1 + staleness) ** -0.5)


def _land(flight: InFlightUpdate) -> Admitted:
    row = {**flight.row, "staleness": flight.staleness}
    member = Member(str(row["name"]), flight.index, int(row["rank"]), int(row["steps"]))
    return Admitted(
        member, flight.update, Facts(**flight.facts), row, discount=discount(flight.staleness)
    )


def _passed(flight: InFlightUpdate, run_spec: RunSpec, body: Mapping[str, Any]) -> InFlightUpdate:
    """A round has passed it by: its participant was sent the candidate too, and the shared model
    has moved if that was accepted.
    """
    row = dict(flight.row)
    if run_spec.cohort is None:
        row["bytes_down"] += body["bytes_broadcast"]
    return replace(flight, staleness=flight.staleness + int(body["accepted"]), row=row)


def _in_flight(flights: Sequence[InFlightUpdate]) -> list[dict[str, Any]]:
    """For the record; with the cost of what was trained in this window."""
    out = []
    for flight in sorted(flights, key=lambda flight: flight.index):
        cost = {key: flight.row[key] for key in COST if flight.row.get(key) is not None}
        where = {
            "name": flight.row["name"],
            "sent": flight.sent,
            "due": flight.due,
            "staleness": flight.staleness,
        }
        out.append(where | cost)
    return out


def _timeless(flights: Sequence[InFlightUpdate]) -> tuple[InFlightUpdate, ...]:
    """Without measured time and energy: a state is the same to the bit however fast the machine
    was.
    """
    return tuple(replace(flight, row={**flight.row, **dict.fromkeys(COST)}) for flight in flights)


def _without_step(
    after: State, replies: int, refused: Sequence[Refused], run_spec: RunSpec
) -> dict[str, Any]:
    """The record of a window that made no step: nothing was trained on, evaluated or changed but
    what is in flight.
    """
    return {
        "round": after.round,
        "accepted": False,
        "step": False,
        "reason": Reason(
            "window-waits", {"replies": replies, "buffer": run_spec.buffer}
        ).as_record(),
        "admissions": admissions([], refused),
        "train": [],
        "validation": {},
        "mean_validation_loss": None,
        "not_evaluated": {},
        "evaluation": [],
        "gate": {},
        "step_scale": after.step_scale,
        "bytes_broadcast": 0,
        "digest": digest_update(after.shared),
    }
