"""Who is late, away, cut off or killed: nothing is lost silently, and a task that its reader did not live to answer is sent again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

pytest.importorskip("flwr")

from live_server import Killed, Live, Relay, at_work, echo, resident
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
from tequio.coordinator.federate import federate
from tequio.coordinator.round import ShortRound, open_state, run_round
from tequio.coordinator.run_spec import RunSpec
from tequio.core.errors import ConfigError, RunError
from tequio.core.events import ignore_events
from tequio.core.messages import pack_message
from tequio.core.types import DescribeRequest, Failure, Reply, Request, TrainRequest
from tequio.ledger.folder import open_to_others
from tequio.ledger.record import Ledger, verify
from tequio.measure.energy import open_meter
from tequio.report.html.report import render, summary
from tequio.runtimes.embedded import Embedded

FLOWERS = "ignore:GitWildMatchPattern:DeprecationWarning"  # Flower's own use of a library
pytestmark = [pytest.mark.timeout(600), pytest.mark.filterwarnings(FLOWERS)]


def asked(round_: int = 1, index: int = 1, name: str = "north") -> DescribeRequest:
    return DescribeRequest(round_, index, name)


def test_a_late_reply_is_reported_with_its_delay_and_its_sender_is_free_again(hub: Live) -> None:
    node, go, done = hub.enrol(), Event(), list[int]()

    def slow(data: bytes) -> bytes:
        go.wait(120)
        done.append(1)
        return echo(data)

    net = hub.net(node, deadline=1.0)
    with at_work(one := resident(hub, node, slow)):
        until(lambda: 1 in net.connections())
        (late,) = net.exchange([asked(1)])
        assert isinstance(late, Failure)
        assert "no reply within 1 s" in late.message
        (busy,) = net.exchange([asked(2)])
        assert isinstance(busy, Failure)
        assert "still at work on round 1" in busy.message  # and it was not waited for
        assert "late" not in net.carried()
        go.set()

        def free() -> bool:
            net.settle()
            return not net.pending

        until(free)
        (row,) = net.carried()["late"]
        assert (row["name"], row["sent"], row["reason"]) == ("north", 1, "the round was over")
        assert row["late_seconds"] > 0.0
        net.deadline = 60.0
        (reply,) = net.exchange([asked(3)])
        assert isinstance(reply, Reply)
    assert len(done) == 2  # round 2 was not asked of it
    assert one.ended == []


def test_the_record_says_what_went_over_the_wire(hub: Live) -> None:
    node = hub.enrol()
    net = hub.net(node)
    with at_work(resident(hub, node, echo)):
        until(lambda: 1 in net.connections())
        (reply,) = net.exchange([asked(1)])
    assert isinstance(reply, Reply)
    ways = net.carried()["wire"]["north"]
    for way, message in (("down", asked(1)), ("up", reply)):
        size = len(pack_message(message))
        assert size < ways[way] < size + 20_000  # with handshakes, questions for work, heartbeats and headers
    assert net.carried()["wire"]["north"]["up"] < 5_000  # its goodbye


def test_the_database_through_which_all_passes_is_closed_to_others(hub: Live) -> None:
    """The folder was there before, and open."""
    assert (hub.folder / "superlink/superlink.sqlite").exists()
    assert not open_to_others(hub.folder / "superlink")


def test_who_is_not_connected_is_not_waited_for(hub: Live) -> None:
    net = hub.net(hub.enrol(), deadline=600.0)
    (away,) = net.exchange([asked(1)])
    assert isinstance(away, Failure)
    assert away.message == "it is not connected"


def test_killed_with_a_task_in_hand_and_started_again_it_answers_in_the_same_round(hub: Live) -> None:
    """A message is delivered once; who comes back without having answered is sent the task again."""
    node, taken = hub.enrol(), Event()

    def dies(data: bytes) -> bytes:
        taken.set()
        raise Killed

    net = hub.net(node, deadline=120.0)
    first = resident(hub, node, dies)
    until(lambda: 1 in net.connections())

    with ThreadPoolExecutor(1) as pool:
        got = pool.submit(lambda: list(net.exchange([asked(1)])))
        assert taken.wait(120)
        until(lambda: "killed" in first.log_lines)
        with at_work(resident(hub, node, echo)):
            (reply,) = got.result(timeout=200)
    assert isinstance(reply, Reply), reply


def test_an_answer_that_the_network_would_not_take_is_sent_when_it_is_back(hub: Live) -> None:
    node, relay, done = hub.enrol(), Relay(hub.port), list[int]()

    def cut(data: bytes) -> bytes:
        done.append(1)
        if len(done) == 1:
            relay.cut()
        return echo(data)

    net = hub.net(node, deadline=120.0)
    one = resident(hub, node, cut, f"127.0.0.1:{relay.port}")
    with at_work(one):
        until(lambda: 1 in net.connections())
        with ThreadPoolExecutor(1) as pool:
            got = pool.submit(lambda: list(net.exchange([asked(1)])))
            until(lambda: any("no connection" in line for line in one.log_lines))
            relay.mend()
            (reply,) = got.result(timeout=200)
        relay.close()
    assert isinstance(reply, Reply), reply
    assert any("sent" in line for line in one.log_lines)


def test_a_window_hands_over_what_has_come_and_the_next_one_the_rest(hub: Live) -> None:
    fast, slow, go = hub.enrol(), hub.enrol(), Event()

    def waits(data: bytes) -> bytes:
        go.wait(120)
        return echo(data)

    net = hub.net(fast, slow, deadline=120.0)
    with at_work(resident(hub, fast, echo), resident(hub, slow, waits)):
        until(lambda: net.connections().keys() == {1, 2})
        first = list(net.window([asked(1, 1, "fast"), asked(1, 2, "slow")], 5.0))
        assert [(r.name, r.round) for r in first] == [("fast", 1)]
        assert net.working() == {2}
        go.set()
        second = list(net.window([asked(2, 1, "fast")], 100.0))
        assert sorted((r.name, r.round) for r in second) == [("fast", 2), ("slow", 1)]
        assert all(isinstance(r, Reply) for r in (*first, *second))
        assert net.working() == set()
        net.deadline = 0.0
        go.clear()
        (given_up,) = net.window([asked(3, 2, "slow")], 1.0)
        assert isinstance(given_up, Failure)
        go.set()
        until(lambda: "late" in net.carried())


@dataclass
class Slow:
    """A runtime whose participants answer after so many windows, in the order in which real ones would."""

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
    members = tuple(replace(m, seconds=s) for m, s in zip(w.run_spec.members, (8.0, 24.0), strict=True))
    return w, replace(w.run_spec, members=members, window_seconds=10.0, **changes)


@pytest.mark.parametrize("buffer", [1, 2])
def test_real_arrivals_are_added_up_as_simulated_ones(make_federation: Any, buffer: int) -> None:
    """The second needs 24 s, three windows: it is two steps stale and counts 3^-½ of one vote in two, 0.28868, wherever it was held."""
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
                yield Failure(task.round, task.index, task.name, "NetworkError", "it is not connected")

    slow = Empty(Embedded(w.nodes), {})
    with pytest.raises(ShortRound, match="site0: NetworkError: it is not connected"):
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
                yield Failure(task.round, task.index, task.name, "NetworkError", "the connection to it was lost")
            else:
                yield from self.inner.exchange([task])


@dataclass
class Waits:
    """A host that notes what it is told; somebody may come in a round."""

    heard: list[dict[str, Any]] = field(default_factory=list)
    comes: dict[int, Any] = field(default_factory=dict)

    def admit_newcomers(self, run_spec: RunSpec, round_: int) -> RunSpec:
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
        *_, (last, _) = federate(w.run_spec, flaky, ledger, open_meter(), host)
        waits = [entry.body for entry in ledger.entries("wait")]
        rounds = [entry.body["round"] for entry in ledger.entries("round")]
        entries = list(ledger.entries())
    assert [(body["round"], body["usable"], body["quorum"]) for body in waits] == [(1, 2, 3), (1, 2, 3)]
    assert "site1: NetworkError: the connection to it was lost." in waits[0]["reason"]
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


def test_who_comes_and_goes_does_not_change_what_is_best(make_federation: Any, tmp_path: Path) -> None:
    """One with a far higher loss comes in round 2: the mean rises, but not for those who evaluated before, so round 2 is progress."""
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

    with Ledger.create(tmp_path / "ledger.sqlite", {"name": "guest"}) as ledger:
        states = [
            state
            for state, _ in federate(few, Harder(Embedded(w.nodes)), ledger, open_meter(), Waits(comes={2: worse}))
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
def test_a_quorum_without_a_meaning_is_refused(make_federation: Any, train: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_federation(make_federation(train=train))


def joined(toml: Path, hub: Path, name: str, out: Path) -> Path:
    own = toml.parent / "participants" / f"{name}.toml"
    return join_federation(prepare(hub / "invitations" / f"{name}.json", own), out)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_two_begin_and_the_third_comes_later(make_federation: Any, tmp_path: Path) -> None:
    """Quorum 2 of 3; the third joins after a round, is recorded with its part, and ends with a personal model as the others."""
    toml = make_federation(participants=3, train={"quorum": 2, "rounds": 6, "patience": 9})
    hub, said = tmp_path / "hub", list[str]()
    init_coordinator_folder(hub, toml, f"127.0.0.1:{free_port()}")
    ledger = hub / "run" / "ledger.sqlite"
    outcome: list[Any] = []
    times = Times(300.0, 120.0)
    seen = Health("coordinator", lambda words, *_, **__: said.append(words))
    work = [Thread(target=lambda: outcome.append(coordinate(hub, "127.0.0.1", None, times, seen, lambda *_: None)))]
    work[0].start()
    until(lambda: any("Listening" in line for line in said))
    for name in ("site0", "site1", "site2"):
        if name == "site2":
            until(lambda: ledger.exists() and "round" in kinds(ledger))
        folder = joined(toml, hub, name, tmp_path / name)
        work.append(Thread(target=serve_participant, args=(folder, Health("participant", ignore_events))))
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
    trained = {r["round"]: [row["name"] for row in r["train"]] for r in (e.body for e in entries if e.kind == "round")}
    assert "site2" not in trained[late["round"] - 1]
    assert "site2" in trained[late["round"]]
    assert {e.body["name"] for e in entries if e.kind == "personal"} == {"site0", "site1", "site2"}
    setup = [e.body["wire"] for e in entries if e.kind == "round"]
    assert all(row["down"] > 0 and row["up"] > 0 for body in setup for row in body.values())
    assert [p["name"] for p in summary(entries)["participants"]] == ["site0", "site1", "site2"]
    assert "site2" in render(entries, "es")
