"""The laws of buffered rounds: with everybody in time a window is a round; staleness and weights as
worked by hand; nothing is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from builders import build_setup, records, refused
from tequio.app.assembly.setup import RunSetup
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.coordinator.buffered import COST, discount, run_window
from tequio.coordinator.checkpoint import pack_state, unpack_state
from tequio.coordinator.federate import federate, star
from tequio.coordinator.round import open_state, run_round, training_tasks
from tequio.coordinator.run_spec import RunSpec
from tequio.core.canonical import digest_update
from tequio.core.errors import ConfigError, RunError
from tequio.core.protocols import Runtime
from tequio.core.reason import Reason
from tequio.core.types import Failure, Reply, Request, State, TrainRequest
from tequio.core.update import Update
from tequio.ledger.record import Ledger
from tequio.measure.energy import open_meter
from tequio.report.html.report import render, summary
from tequio.runtimes.embedded import Embedded

WINDOW = 10.0
MEASURED = ("train", "evaluation")  # what the time that it took is part of


def slowed(run_spec: RunSpec, seconds: dict[int, float], **changes: Any) -> RunSpec:
    """The plan in windows of 10 s, with these seconds a task by index."""
    members = tuple(replace(m, seconds=seconds.get(m.index)) for m in run_spec.members)
    return replace(run_spec, members=members, window_seconds=WINDOW, **changes)


def two(make_federation: Any, **sections: Any) -> RunSetup:
    """Two participants, one vote each, no centre: what is added can be worked by hand."""
    path = make_federation(
        participants=2, centre=False, algorithm={"weights": "uniform"}, **sections
    )
    return build_setup(path)


def windows(
    run_spec: RunSpec, runtime: Runtime, count: int
) -> tuple[list[State], list[dict[str, Any]]]:
    states, bodies = [open_state(run_spec, runtime)[0]], []
    for _ in range(count):
        state, body = run_window(states[-1], run_spec, runtime)
        states.append(state)
        bodies.append(body)
    return states, bodies


def change(w: RunSetup, run_spec: RunSpec, state: State, index: int) -> Update:
    """What participant `index` finds, trained on its own from `state`."""
    member = next(m for m in run_spec.members if m.index == index)
    (task,) = training_tasks(state, run_spec, [member])
    assert isinstance(task, TrainRequest)
    update = w.nodes[index].train(task).update
    assert update is not None
    return update


def flying(body: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Name, sent, due, staleness."""
    return [(f["name"], f["sent"], f["due"], f["staleness"]) for f in body["in_flight"]]


def rows(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in body["train"]}


@pytest.mark.parametrize("seconds", [{}, {1: 3.0, 2: 10.0, 3: 0.1}])
def test_with_everybody_in_time_a_window_is_a_round_to_the_bit(
    make_federation: Any, seconds: dict[int, float]
) -> None:
    w = build_setup(make_federation(participants=3, algorithm={"server": "nesterov"}))
    runtime = Embedded(w.nodes)
    run_spec = slowed(w.run_spec, seconds, buffer=3)
    state, again = open_state(w.run_spec, runtime)[0], open_state(run_spec, runtime)[0]
    for _ in (1, 2):
        state, body = run_round(state, w.run_spec, runtime)
        again, body_again = run_window(again, run_spec, runtime)
        assert pack_state(state) == pack_state(again)
        assert {key: body_again[key] for key in body if key not in MEASURED} == {
            k: v for k, v in body.items() if k not in MEASURED
        }
        for row, other in zip(body["train"], body_again["train"], strict=True):
            assert {k: other[k] for k in row if k not in COST} == {
                k: v for k, v in row.items() if k not in COST
            }
            assert other["staleness"] == 0


def test_one_three_times_slower_is_two_steps_stale_and_counts_a_third_to_the_half(
    make_federation: Any,
) -> None:
    """Windows of 10 s, tasks of 8 and 24 s.

    The slow one is sent for in window 1 and arrives at 24 s, in window 3, after two steps:
    its weight is (1 + 2)^-½ = 0.57735 of one vote in two."""
    w = two(make_federation)
    run_spec, runtime = slowed(w.run_spec, {1: 8.0, 2: 24.0}), Embedded(w.nodes)
    states, bodies = windows(run_spec, runtime, 4)
    assert [list(rows(body)) for body in bodies] == [
        ["site0"],
        ["site0"],
        ["site0", "site1"],
        ["site0"],
    ]
    assert flying(bodies[0]) == [("site1", 1, 3, 1)]
    assert flying(bodies[1]) == [("site1", 1, 3, 2)]
    assert bodies[2]["in_flight"] == []
    assert flying(bodies[3]) == [("site1", 4, 6, 1)]
    assert (
        "joules" in bodies[0]["in_flight"][0]
    )  # what training cost is recorded where it was spent, once
    assert "joules" not in bodies[1]["in_flight"][0]
    fast, slow = rows(bodies[2])["site0"], rows(bodies[2])["site1"]
    assert (fast["staleness"], fast["sent"], fast["arrival"], fast["weight"]) == (0, 3, 28.0, 0.5)
    assert (slow["staleness"], slow["sent"], slow["arrival"]) == (2, 1, 24.0)
    assert slow["weight"] == pytest.approx(0.28867513, abs=1e-8)
    assert slow["steps"] == w.run_spec.members[1].steps  # all its steps, not a third
    # the steps of rounds 1, 2 and 3 must be sent to it
    assert slow["bytes_down"] == sum(body["bytes_broadcast"] for body in bodies[:3])
    expected = states[2].shared.plus(change(w, run_spec, states[2], 1).scaled(0.5))
    expected = expected.plus(change(w, run_spec, states[0], 2).scaled(0.5 * 3**-0.5))
    assert states[3].shared.plus(states[3].pending).minus(expected).norm() <= 1e-5 * expected.norm()


def test_the_discount_is_one_over_the_root() -> None:
    assert [discount(s) for s in (0, 3, 8)] == [1.0, 0.5, pytest.approx(1 / 3)]


def test_too_few_replies_make_no_step_and_wait(make_federation: Any) -> None:
    """buffer = 2, tasks of 8 and 24 s: windows 1 and 2 change nothing, window 3 is the round of
    both, on one model: no staleness.
    """
    w = two(make_federation)
    run_spec, runtime = slowed(w.run_spec, {1: 8.0, 2: 24.0}, buffer=2), Embedded(w.nodes)
    states, bodies = windows(run_spec, runtime, 3)
    assert [body["step"] for body in bodies] == [False, False, True]
    assert bodies[1]["reason"] == {"code": "window-waits", "facts": {"replies": 1, "buffer": 2}}
    assert [flight["name"] for flight in bodies[1]["in_flight"]] == ["site0", "site1"]
    assert digest_update(states[2].shared) == digest_update(states[0].shared)
    assert (states[2].stale_rounds, states[2].step_scale) == (0, 1.0)
    assert {row["staleness"] for row in bodies[2]["train"]} == {0}
    together, _ = run_round(states[0], w.run_spec, runtime)
    assert digest_update(states[3].shared) == digest_update(together.shared)


def test_the_centre_is_in_every_step(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=2))
    _, bodies = windows(slowed(w.run_spec, {1: 25.0, 2: 15.0}), Embedded(w.nodes), 3)
    assert [list(rows(body)) for body in bodies] == [[], ["centre", "site1"], ["centre", "site0"]]


@dataclass(frozen=True)
class Backwards:
    """A runtime that delivers replies the other way round."""

    inner: Embedded

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        yield from reversed(list(self.inner.exchange(tasks)))


def test_the_order_of_arrival_does_not_matter(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=4))
    run_spec = slowed(w.run_spec, {1: 15.0, 2: 5.0, 3: 15.0})
    forth, _ = windows(run_spec, Embedded(w.nodes), 3)
    back, _ = windows(run_spec, Backwards(Embedded(w.nodes)), 3)
    assert pack_state(forth[-1]) == pack_state(back[-1])


@dataclass(frozen=True)
class Broken:
    """A runtime in which one participant fails to train in one round."""

    inner: Embedded
    index: int
    round: int

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        for task in tasks:
            if isinstance(task, TrainRequest) and (task.index, task.round) == (
                self.index,
                self.round,
            ):
                yield Failure(task.round, task.index, task.name, "TrainingError", "NaN loss")
            else:
                yield from self.inner.exchange([task])


def test_one_that_fails_is_a_row_and_is_sent_for_again(make_federation: Any) -> None:
    w = two(make_federation)
    run_spec = slowed(w.run_spec, {1: 8.0, 2: 24.0})
    _, bodies = windows(run_spec, Broken(Embedded(w.nodes), 2, 1), 4)
    failed = {"code": "failed", "facts": {"error": "TrainingError", "message": "NaN loss"}}
    assert {"name": "site1", "status": "failed", "reason": failed} in bodies[0]["admissions"]
    assert flying(bodies[1]) == [("site1", 2, 4, 1)]
    assert rows(bodies[3])["site1"]["staleness"] == 2


def test_while_a_slow_one_is_at_work_the_run_goes_on_without_the_fast_one(
    make_federation: Any,
) -> None:
    w = two(make_federation)
    _, bodies = windows(slowed(w.run_spec, {2: 24.0}), Broken(Embedded(w.nodes), 1, 1), 1)
    assert not bodies[0]["step"]


def test_nobody_left_ends_the_run_with_the_reason(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=1))
    run_spec, runtime = slowed(w.run_spec, {}), Broken(Embedded(w.nodes), 1, 1)
    with refused(RunError, "no-update-usable"):
        run_window(open_state(run_spec, runtime)[0], run_spec, runtime)


def test_a_state_with_updates_in_flight_survives_its_bytes(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=3))
    run_spec, runtime = slowed(w.run_spec, {1: 25.0, 2: 15.0}), Embedded(w.nodes)
    state = open_state(run_spec, runtime)[0]
    again, seen = state, 0
    for _ in range(4):
        state, _ = run_window(state, run_spec, runtime)
        again, _ = run_window(unpack_state(pack_state(again), "test"), run_spec, runtime)
        assert pack_state(state) == pack_state(again)
        seen += len(state.flights)
    assert seen >= 4


class Killed(Exception):
    """The end of a process, as a test sees it."""


@dataclass
class Dying:
    """A runtime that dies at a task."""

    inner: Embedded
    left: int

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        for task in tasks:
            self.left -= 1
            if self.left < 0:
                raise Killed
            yield from self.inner.exchange([task])


def test_a_run_killed_at_every_task_ends_as_an_unbroken_one(
    make_federation: Any, tmp_path: Path
) -> None:
    w = two(make_federation, train={"rounds": 4, "patience": 9})
    run_spec, runtime = slowed(w.run_spec, {1: 8.0, 2: 24.0}), Embedded(w.nodes)
    states, _ = windows(run_spec, runtime, 4)
    with Ledger.create(tmp_path / "ledger.sqlite", {"name": "killed"}) as ledger:
        kills, state = 0, states[0]
        for left in range(2, 40):
            try:
                for found, _body in federate(
                    star(run_spec, Dying(runtime, left)), ledger, open_meter()
                ):
                    state = found
                break
            except Killed:
                kills += 1
        assert kills >= 2
        rounds = [entry.body["round"] for entry in ledger.entries("round")]
    assert pack_state(state) == pack_state(states[-1])
    assert rounds == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ({"reduce": "fedit"}, Reason("buffered-factors", {"reduce": "fedit"})),
        ({"reduce": "centred_clipping"}, Reason("buffered-robust", {"reduce": "centred_clipping"})),
        ({"start": "fedex"}, Reason("buffered-start", {"start": "fedex"})),
    ],
)
def test_chains_without_a_meaning_are_refused_with_the_nearest(
    make_federation: Any, algorithm: Any, expected: Reason
) -> None:
    path = make_federation(train={"pace": "buffered", "round_seconds": 10.0}, algorithm=algorithm)
    with pytest.raises(ConfigError) as found:
        build_setup(path)
    assert found.value.reason == expected
    assert 'reduce = "stack" and start = "fresh"' in str(found.value)


def test_an_alarm_on_cosines_is_refused(make_federation: Any) -> None:
    train = {"pace": "buffered", "round_seconds": 10.0}
    path = make_federation(
        participants=3, train=train, screen={"cosine": 0.0, "cosine_action": "record"}
    )
    with pytest.raises(ConfigError) as found:
        build_setup(path)
    assert found.value.reason == Reason("buffered-cosine", {"cosine": 0.0})


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"pace": "buffered"}, "needs round_seconds"),
        ({"buffer": 1}, "leave it out"),
        ({"pace": "buffered", "round_seconds": 10.0, "buffer": 3}, "no step is ever made"),
    ],
)
def test_settings_without_a_meaning_are_refused(
    make_federation: Any, train: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_federation(make_federation(train=train))


def test_from_the_files_a_slow_participant_keeps_its_rank_and_steps(
    make_federation: Any, tmp_path: Path
) -> None:
    """The allotment without a deadline, and the whole run with its report."""
    train = {"pace": "buffered", "round_seconds": 10.0, "rounds": 3, "patience": 9}
    path = make_federation(participants=2, train=train)
    free = build_setup(path).run_spec.members
    slow = path.parent / "participants" / "site1.toml"
    text = slow.read_text()
    slow.write_text(text.replace("[hardware]\n", "[hardware]\ntokens_per_second = 10.0\n"))
    assert slow.read_text() != text
    w = build_setup(path)
    assert w.run_spec.window_seconds == 10.0
    assert [(m.rank, m.steps) for m in w.run_spec.members] == [(m.rank, m.steps) for m in free]
    seconds = w.run_spec.members[1].seconds
    assert seconds is not None
    assert seconds > 10.0
    reason = w.header["participants"][1]["reason"]
    assert reason["code"] == "allotted-windows"
    assert reason["facts"]["allotted"]["code"] == "allotted-free"
    assert (reason["facts"]["window"], reason["facts"]["every"]) == (
        10.0,
        math.ceil(seconds / 10.0),
    )
    outcome = start(load_federation(path), tmp_path / "run", counterfactuals=False)
    entries, _ = records(outcome.folder)
    assert any(e.body["in_flight"] for e in entries if e.kind == "round")
    assert "site1" in render(entries, "en")
    flying = [f for e in entries if e.kind == "round" for f in e.body["in_flight"]]
    own = next(
        e.body["energy"] for e in entries if e.kind == "personal" and e.body["name"] == "site1"
    )
    spent = sum(f["joules"] for f in flying if "joules" in f) + own["joules"]
    evaluated = [
        row for e in entries if e.kind in ("start", "round") for row in e.body["evaluation"]
    ]
    spent += sum(row["joules"] for row in evaluated if row["name"] == "site1")
    (person,) = [p for p in summary(entries)["participants"] if p["name"] == "site1"]
    assert person["joules"] == pytest.approx(spent)  # though no reply of it counted
