"""Windows and quorums: arrivals count as simulated ones, a short round makes no step, and whoever
comes later joins in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

pytest.importorskip("flwr")

from network_processes import kinds, until

from builders import build_setup, free_port
from tequio.app.assembly.setup import RunSetup
from tequio.app.network.coordinator.serve import Times, coordinate
from tequio.app.network.hub.folder import init_coordinator_folder
from tequio.app.network.monitoring.health import Health
from tequio.app.network.participant.join import join_federation, prepare
from tequio.app.network.participant.serve import serve_participant
from tequio.config import load_federation
from tequio.coordinator.buffered import run_window
from tequio.coordinator.buffered_network import Windows
from tequio.coordinator.checkpoint import pack_state, unpack_state
from tequio.coordinator.federate import federate, star
from tequio.coordinator.round import ShortRound, open_state, run_round
from tequio.coordinator.run_spec import RunSpec
from tequio.core.errors import ConfigError, RunError
from tequio.core.events import ignore_events
from tequio.core.types import Failure, Reply, Request, TrainRequest
from tequio.ledger.record import Ledger, verify
from tequio.measure.energy import open_meter
from tequio.report.html.report import render, summary
from tequio.runtimes.embedded import Embedded

FLOWERS = "ignore:GitWildMatchPattern:DeprecationWarning"  # Flower's own use of a library
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings(FLOWERS)]


@dataclass
class Slow:
    """A runtime whose participants answer after so many windows, in the order in which real ones
    would.
    """

    inner: Embedded
    takes: dict[int, int]
    now: int = 0
    held: dict[int, tuple[int, Reply | Failure]] = field(default_factory=dict)

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        yield from self.inner.exchange(tasks)

    def working(self) -> set[int]:
        return set(self.held)

    def window(self, tasks: Iterable[Request], seconds: float) -> Iterator[Reply | Failure]:
        self.now += 1
        for reply in self.inner.exchange(tasks):
            self.held[reply.index] = (self.now + self.takes.get(reply.index, 1) - 1, reply)
        for index, (due, reply) in sorted(self.held.items(), reverse=True):
            if due <= self.now:
                del self.held[index]
                yield reply


def buffered(make_federation: Any, **changes: Any) -> tuple[RunSetup, RunSpec]:
    """Two without a centre, tasks of 8 and 24 s, windows of 10 s."""
    path = make_federation(participants=2, centre=False, algorithm={"weights": "uniform"})
    w = build_setup(path)
    members = tuple(
        replace(m, seconds=s) for m, s in zip(w.run_spec.members, (8.0, 24.0), strict=True)
    )
    return w, replace(w.run_spec, members=members, window_seconds=10.0, **changes)


@pytest.mark.parametrize("buffer", [1, 2])
def test_real_arrivals_are_added_up_as_simulated_ones(make_federation: Any, buffer: int) -> None:
    """The second needs 24 s, three windows: it is two steps stale and counts 3^-½ of one vote in
    two, 0.28868, wherever it was held.
    """
    w, run_spec = buffered(make_federation, buffer=buffer)
    slow = Slow(Embedded(w.nodes), {2: 3})
    advance = Windows(slow)
    state = simulated = open_state(run_spec, slow)[0]
    for round_ in range(1, 5):
        state, body = advance(unpack_state(pack_state(state), "test"), run_spec, slow)
        simulated, expected = run_window(simulated, run_spec, slow)
        assert body["digest"] == expected["digest"], round_
        assert [(r["name"], r["weight"], r["sent"], r["staleness"]) for r in body["train"]] == [
            (r["name"], r["weight"], r["sent"], r["staleness"]) for r in expected["train"]
        ]
        assert body["step"] == expected["step"]
        if round_ == 3 and buffer == 1:
            assert body["train"][1]["weight"] == pytest.approx(0.28867513, abs=1e-8)
    assert {f["name"] for f in body["in_flight"]} == {f["name"] for f in expected["in_flight"]}


def test_a_window_in_which_nobody_is_left_is_short(make_federation: Any) -> None:
    w, run_spec = buffered(make_federation)

    @dataclass
    class Empty(Slow):
        def window(self, tasks: Iterable[Request], seconds: float) -> Iterator[Reply | Failure]:
            for task in tasks:
                yield Failure(
                    task.round, task.index, task.name, "NetworkError", "it is not connected"
                )

    slow = Empty(Embedded(w.nodes), {})
    with pytest.raises(ShortRound, match="site0: it was not connected"):
        Windows(slow)(open_state(run_spec, slow)[0], run_spec, slow)


@dataclass
class Flaky:
    """A runtime in which these participants cannot train at the first tries."""

    inner: Embedded
    fails: dict[int, int]

    def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
        for task in tasks:
            if isinstance(task, TrainRequest) and self.fails.get(task.index, 0) > 0:
                self.fails[task.index] -= 1
                yield Failure(
                    task.round,
                    task.index,
                    task.name,
                    "NetworkError",
                    "the connection to it was lost",
                )
            else:
                yield from self.inner.exchange([task])


@dataclass
class Waits:
    """A host that notes what it is told; somebody may come in a round."""

    heard: list[dict[str, Any]] = field(default_factory=list)
    comes: dict[int, Any] = field(default_factory=dict)

    def admit_newcomers(self, run_spec: RunSpec, round_: int, base: str) -> RunSpec:
        return self.comes.get(round_, lambda p: p)(run_spec)  # type: ignore[no-any-return]

    def on_short_round(self, short: ShortRound) -> None:
        self.heard.append(short.body)

    def traffic(self) -> dict[str, Any]:
        return {"wire": {}}


def test_a_round_under_the_quorum_makes_no_step_is_recorded_and_tried_again(
    make_federation: Any, tmp_path: Path
) -> None:
    """And the run ends with the tensors of one in which nobody failed."""
    w = build_setup(make_federation(participants=3, train={"rounds": 2, "quorum": 3}))
    assert w.run_spec.quorum == 3
    state = open_state(w.run_spec, Embedded(w.nodes))[0]
    for _ in (1, 2):
        state, _ = run_round(state, w.run_spec, Embedded(w.nodes))
    host, flaky = Waits(), Flaky(Embedded(w.nodes), {2: 2})
    with Ledger.create(tmp_path / "ledger.sqlite", {"name": "short"}) as ledger:
        *_, (last, _) = federate(star(w.run_spec, flaky), ledger, open_meter(), host)
        waits = [entry.body for entry in ledger.entries("wait")]
        rounds = [entry.body["round"] for entry in ledger.entries("round")]
        entries = list(ledger.entries())
    assert [(body["round"], body["usable"], body["quorum"]) for body in waits] == [
        (1, 2, 3),
        (1, 2, 3),
    ]
    lost = next(row["reason"] for row in waits[0]["admissions"] if row["name"] == "site1")
    assert lost["code"] == "connection-lost"
    assert waits[0]["energy"]["joules"] >= 0.0
    assert [body["round"] for body in host.heard] == [1, 1]
    assert rounds == [1, 2]
    assert pack_state(last) == pack_state(state)
    (refused,) = summary(entries)["refused"]
    assert (refused["name"], refused["rounds"]) == ("site1", [1, 1])


def test_on_one_machine_a_round_under_the_quorum_ends_the_run(make_federation: Any) -> None:
    w = build_setup(make_federation(participants=3, train={"quorum": 3}))
    flaky = Flaky(Embedded(w.nodes), {1: 1})
    with pytest.raises(RunError, match="2 of the 3 updates that a step needs"):
        run_round(open_state(w.run_spec, flaky)[0], w.run_spec, flaky)


def test_who_comes_and_goes_does_not_change_what_is_best(
    make_federation: Any, tmp_path: Path
) -> None:
    """One with a far higher loss comes in round 2: the mean rises, but not for those who evaluated
    before, so round 2 is progress.
    """
    w = build_setup(make_federation(participants=3, train={"rounds": 2}))
    few = replace(w.run_spec, members=w.run_spec.members[:2])

    def worse(run_spec: RunSpec) -> RunSpec:
        return replace(run_spec, members=w.run_spec.members)

    @dataclass(frozen=True)
    class Harder:
        inner: Embedded

        def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
            for reply in self.inner.exchange(tasks):
                if isinstance(reply, Reply) and reply.index > 0 and "loss" in reply.metrics:
                    loss = 50.0 if reply.index == 3 else 1.0 / (1 + reply.round)
                    reply = replace(reply, metrics={**reply.metrics, "loss": loss})
                yield reply

    host = Waits(comes={2: worse})
    with Ledger.create(tmp_path / "ledger.sqlite", {"name": "guest"}) as ledger:
        states = [
            state
            for state, _ in federate(
                star(few, Harder(Embedded(w.nodes))), ledger, open_meter(), host
            )
        ]
    assert states[1].best_round == 1
    assert states[2].losses["site2"] == 50.0
    assert states[2].best_round == 2
    assert states[2].best_losses["site2"] == 50.0


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"quorum": 3}, "no round is ever made"),
        ({"quorum": 2, "cohort": 1}, "no round is ever made"),
        ({"quorum": 0}, "quorum"),
    ],
)
def test_a_quorum_without_a_meaning_is_refused(
    make_federation: Any, train: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_federation(make_federation(train=train))


def joined(toml: Path, hub: Path, name: str, out: Path) -> Path:
    own = toml.parent / "participants" / f"{name}.toml"
    return join_federation(prepare(hub / "invitations" / f"{name}.json", own), out)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_two_begin_and_the_third_comes_later(make_federation: Any, tmp_path: Path) -> None:
    """Quorum 2 of 3; the third joins after a round, is recorded with its part, and ends with a
    personal model as the others.
    """
    toml = make_federation(participants=3, train={"quorum": 2, "rounds": 6, "patience": 9})
    hub, said = tmp_path / "hub", list[str]()
    init_coordinator_folder(hub, toml, f"127.0.0.1:{free_port()}")
    ledger = hub / "run" / "ledger.sqlite"
    outcome: list[Any] = []
    times = Times(300.0, 120.0)
    seen = Health("coordinator", lambda words, *_, **__: said.append(words))
    work = [
        Thread(
            target=lambda: outcome.append(
                coordinate(hub, "127.0.0.1", None, times, seen, lambda *_: None)
            )
        )
    ]
    work[0].start()
    until(lambda: any("Listening" in line for line in said))
    for name in ("site0", "site1", "site2"):
        if name == "site2":
            until(lambda: ledger.exists() and "round" in kinds(ledger))
        folder = joined(toml, hub, name, tmp_path / name)
        work.append(
            Thread(target=serve_participant, args=(folder, Health("participant", ignore_events)))
        )
        work[-1].start()
    for thread in work:
        thread.join(400)
        assert not thread.is_alive()
    assert outcome
    assert verify(ledger).ok
    with Ledger.open(ledger, read_only=True) as opened:
        entries = list(opened.entries())
    header = entries[0].body
    (late,) = [entry.body for entry in entries if entry.kind == "joined"]
    assert [row["name"] for row in header["participants"]] == ["site0", "site1"]
    assert late["participant"]["name"] == "site2"
    assert late["round"] >= 2
    trained = {
        r["round"]: [row["name"] for row in r["train"]]
        for r in (e.body for e in entries if e.kind == "round")
    }
    assert "site2" not in trained[late["round"] - 1]
    assert "site2" in trained[late["round"]]
    assert {e.body["name"] for e in entries if e.kind == "personal"} == {"site0", "site1", "site2"}
    setup = [e.body["wire"] for e in entries if e.kind == "round"]
    assert all(row["down"] > 0 and row["up"] > 0 for body in setup for row in body.values())
    assert [p["name"] for p in summary(entries)["participants"]] == ["site0", "site1", "site2"]
    assert "site2" in render(entries, "es")
