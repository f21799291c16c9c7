"""Masked rounds where somebody drops out, cheats or asks too much; what crosses is a short list of
fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import build_setup
from tequio.app.assembly.masked import build_masking
from tequio.app.assembly.setup import RunSetup
from tequio.app.stages import embedded_runtime
from tequio.coordinator.masked import SumRounds
from tequio.coordinator.round import ShortRound, open_state, run_round, training_tasks
from tequio.core.errors import BudgetError, ProtectionError, TrainingError
from tequio.core.reason import Reason
from tequio.core.types import EvaluateRequest, Failure, Reply, Request, SumRequest, TrainRequest
from tequio.core.update import Dense, Update, plain
from tequio.participant.masked import MaskedNode, rounded
from tequio.participant.node import Node
from tequio.runtimes.embedded import Embedded

ALGORITHM = {"reduce": "ffa", "weights": "uniform"}
MAY_LEAVE = {"round", "index", "name", "payload", "steps", "energy", "money"}


@pytest.fixture
def make_pair(make_federation: Callable[..., Path]) -> Callable[[], tuple[RunSetup, RunSetup]]:
    """make() gives the same federation of five, open and masked."""

    def make() -> tuple[RunSetup, RunSetup]:
        sections: dict[str, Any] = {
            "participants": 5,
            "centre": False,
            "algorithm": ALGORITHM,
            "rows": 40,
        }
        clear = build_setup(make_federation(**sections, folder="open"))
        return clear, build_setup(
            make_federation(**sections, folder="masked", privacy={"mode": "masked"})
        )

    return make


def masked_rounds(setup: RunSetup) -> tuple[SumRounds, Embedded]:
    """Return the runtime of masked rounds, and the one in it."""
    runtime = embedded_runtime((setup,), "main")
    assert isinstance(runtime, SumRounds)
    assert isinstance(runtime.inner, Embedded)
    return runtime, runtime.inner


@dataclass(frozen=True)
class Wire:
    """A runtime in which each message may be altered on its way; None: it is lost."""

    inner: Embedded
    down: Callable[[Any], Any] = lambda task: task
    up: Callable[[Any, Any], Any] = lambda task, reply: reply

    def exchange(self, tasks: Iterable[Request | SumRequest]) -> Iterator[Reply | Failure]:
        for task in tasks:
            for reply in self.inner.exchange([self.down(task)]):
                if (found := self.up(task, reply)) is not None:
                    yield found


def failing(index: int, step: str) -> Callable[[Any, Any], Any]:
    """Return what loses a member's answer to one step of training sums."""

    def up(task: Any, reply: Any) -> Any:
        lost = isinstance(task, SumRequest) and (task.purpose, task.index, task.step) == (
            "train",
            index,
            step,
        )
        return Failure.of(task, TrainingError("away"), Reason("no-reply")) if lost else reply

    return up


def garbled(index: int, step: str) -> Callable[[Any, Any], Any]:
    """Return what makes of a member's answer to one step of training sums something else."""

    def up(task: Any, reply: Any) -> Any:
        found = isinstance(task, SumRequest) and (task.purpose, task.index, task.step) == (
            "train",
            index,
            step,
        )
        return replace(reply, payload=(reply.payload or b"")[:-1]) if found else reply

    return up


@pytest.mark.parametrize("step", ["announce", "share", "mask", "unmask"])
@pytest.mark.parametrize("how", [failing, garbled])
def test_the_round_goes_on_without_one_that_drops_out(make_pair: Any, step: str, how: Any) -> None:
    clear, hidden = make_pair()
    rounds, inner = masked_rounds(hidden)
    rounds = replace(rounds, inner=Wire(inner, up=how(2, step)))
    state, _ = open_state(hidden.run_spec, rounds)
    found, body = run_round(state, hidden.run_spec, rounds, rounds.gather)
    inside = len(body["train"])
    assert inside == (5 if step == "unmask" else 4), "who sent its values is in the sum"

    @dataclass(frozen=True)
    class Without:
        def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
            for task in tasks:
                away = step != "unmask" and isinstance(task, TrainRequest) and task.index == 2
                if not away:
                    yield from Embedded(clear.nodes).exchange([task])

    opening, _ = open_state(clear.run_spec, Without())
    expected, _ = run_round(opening, clear.run_spec, Without())
    for key, entry in expected.shared.entries.items():
        mine, theirs = plain(found.shared.entries[key]), plain(entry)
        assert float((mine - theirs).abs().max()) < 1e-6, key


def test_ranks_of_too_few_rest_in_that_round(make_pair: Any) -> None:
    """Ranks 2 and 3 are those of members 1, 3 and 5; without member 1 nothing of them is opened,
    and the others train on."""
    _, hidden = make_pair()
    assert [member.rank for member in hidden.run_spec.members] == [4, 2, 4, 2, 4]
    rounds, inner = masked_rounds(hidden)
    state, _ = open_state(hidden.run_spec, rounds)
    fewer = replace(rounds, inner=Wire(inner, up=failing(1, "mask")))
    found, body = run_round(state, hidden.run_spec, fewer, fewer.gather)
    assert body["sums"]["train"]["rank"] == 2
    columns = [plain(entry) for name, entry in found.shared.entries.items() if name.endswith(":b")]
    assert all(bool(b[:, :2].any()) and not bool(b[:, 2:].any()) for b in columns)
    found, body = run_round(found, hidden.run_spec, rounds, rounds.gather)
    assert body["sums"]["train"]["rank"] == 4
    assert any(
        bool(plain(entry)[:, 2:].any())
        for name, entry in found.shared.entries.items()
        if name.endswith(":b")
    )


def test_too_few_make_no_round_and_the_record_says_why(make_pair: Any) -> None:
    _, hidden = make_pair()
    rounds, inner = masked_rounds(hidden)

    def up(task: Any, reply: Any) -> Any:
        return (
            failing(1, "mask")(task, failing(2, "mask")(task, reply))
            if task.index in (1, 2)
            else reply
        )

    rounds = replace(rounds, inner=Wire(inner, up=up))
    state, _ = open_state(hidden.run_spec, rounds)
    with pytest.raises(ShortRound) as short:
        run_round(state, hidden.run_spec, rounds, rounds.gather)
    codes = [row["reason"]["code"] for row in short.value.body["admissions"]]
    assert codes == ["no-reply", "no-reply", *["secure-sum-few-left"] * 3]


@pytest.mark.parametrize("what", ["model", "rate", "method"])
def test_asking_one_participant_another_thing_learns_nothing(make_pair: Any, what: str) -> None:
    _, hidden = make_pair()
    rounds, inner = masked_rounds(hidden)

    def down(task: Any) -> Any:
        if not (
            isinstance(task, SumRequest)
            and task.index == 1
            and isinstance(task.request, TrainRequest)
        ):
            return task
        request = task.request
        assert request.start is not None
        moved = {
            k: Dense(plain(e) + 0.01) if k.endswith(":b") else e
            for k, e in request.start.entries.items()
        }
        changed = {
            "model": replace(request, start=Update(moved, request.start.spec)),
            "rate": replace(request, learning_rate=request.learning_rate * 2),
            "method": replace(request, terms={"fedprox": 0.1}),
        }
        return replace(task, request=changed[what])

    rounds = replace(rounds, inner=Wire(inner, down=down))
    state, _ = open_state(hidden.run_spec, rounds)
    if what == "rate":  # the participant sees it by itself, and drops out
        _, body = run_round(state, hidden.run_spec, rounds, rounds.gather)
        assert [row["status"] for row in body["admissions"]].count("failed") == 1
        return
    with pytest.raises(ShortRound) as short:
        run_round(state, hidden.run_spec, rounds, rounds.gather)
    assert {row["reason"]["code"] for row in short.value.body["admissions"]} == {
        "secure-sum-garbage"
    }


def test_no_participant_answers_in_the_clear(make_pair: Any) -> None:
    clear, hidden = make_pair()
    rounds, inner = masked_rounds(hidden)
    state, _ = open_state(hidden.run_spec, rounds)
    look = EvaluateRequest(1, 1, "site0", Update({}, hidden.run_spec.spec))
    (answered,) = Embedded(clear.nodes).exchange([look])
    assert isinstance(answered, Reply), "an open participant tells its loss"
    assert answered.metrics["loss"] > 0
    (answer,) = inner.exchange([look])
    assert isinstance(answer, Failure)
    assert "open-request" in answer.message
    with pytest.raises(ProtectionError):
        list(rounds.exchange([look]))
    assert state.losses == {}


def test_looks_at_crafted_models_end_after_one_per_round(make_pair: Any) -> None:
    clear, hidden = make_pair()
    rounds, _ = masked_rounds(hidden)
    panel = hidden.run_spec.panel(1)
    heads = hidden.run_spec.head_shapes
    crafted = [
        Update(
            {name: Dense(torch.full(shape, k / 10)) for name, shape in heads.items()},
            hidden.run_spec.spec,
        )
        for k in range(20)
    ]
    asked = [[EvaluateRequest(1, m.index, m.name, model) for m in panel] for model in crafted]
    answers = [reply for each in asked for reply in Embedded(clear.nodes).exchange(each)]
    assert len(answers) == 100, "open participants answer every one"
    seen = [rounds.look(each, panel) for each in asked]
    assert [bool(one.summed) for one in seen] == [True] + [False] * 19
    again = rounds.look(asked[0], panel)
    assert again.summed == seen[0].summed, "the same question gives the same bytes"
    later = [rounds.look([replace(one, round=k) for one in asked[k]], panel) for k in range(2, 20)]
    assert [bool(one.summed) for one in later] == [True] + [False] * 17, (
        "the federation has two rounds"
    )
    assert {reason.code for one in seen[1:] for reason in one.failed.values()} == {
        "secure-sum-over"
    }


def replies_of(setup: RunSetup) -> list[tuple[Any, Reply]]:
    """Return what crosses in one masked round, with what it answers."""
    crossed: list[tuple[Any, Reply]] = []

    def up(task: Any, reply: Any) -> Any:
        crossed.append((task, reply))
        return reply

    rounds, inner = masked_rounds(setup)
    rounds = replace(rounds, inner=Wire(inner, up=up))
    state, _ = open_state(setup.run_spec, rounds)
    run_round(state, setup.run_spec, rounds, rounds.gather)
    return crossed


def leaving(reply: Reply) -> set[str]:
    """Return the fields of a reply in which something stands."""
    empty = Reply(reply.round, reply.index, reply.name)
    return {f.name for f in fields(Reply) if getattr(reply, f.name) != getattr(empty, f.name)}


def test_one_text_more_changes_no_byte_beside_the_vector(make_pair: Any) -> None:
    clear, hidden = make_pair()
    (task,) = (t for t in _training(clear) if t.index == 1)
    (open_reply,) = Embedded(clear.nodes).exchange([task])
    assert isinstance(open_reply, Reply)
    assert not leaving(open_reply) <= MAY_LEAVE, "an open reply tells more"
    node = hidden.nodes[1]
    fewer = replace(
        node,
        data=replace(node.data, train=node.data.train[1:], validation=node.data.validation[1:]),
    )
    neighbour = replace(hidden, nodes={**hidden.nodes, 1: fewer})
    whole = replies_of(hidden)
    assert {len(node.data.train), len(fewer.data.train)} == {
        len(node.data.train),
        len(node.data.train) - 1,
    }
    other = replies_of(
        replace(neighbour, masking=build_masking(neighbour.config, neighbour.run_spec))
    )
    for (task_, reply), (_, second) in zip(whole, other, strict=True):
        assert isinstance(reply, Reply)
        assert isinstance(second, Reply)
        assert leaving(reply) <= MAY_LEAVE | {"energy"}
        same = (
            "round",
            "index",
            "name",
            "steps",
            "tokens",
            "examples",
            "metrics",
            "slices",
            "note",
            "body",
            "money",
        )
        assert all(getattr(reply, name) == getattr(second, name) for name in same)
        assert len(reply.payload or b"") == len(second.payload or b""), task_.step
        for found in (reply, second):
            if found.energy is not None:
                assert found.energy.joules == rounded(found.energy.joules)
                assert found.energy.seconds == rounded(found.energy.seconds)


def _training(setup: RunSetup) -> list[TrainRequest]:
    state, _ = open_state(setup.run_spec, Embedded(setup.nodes))
    tasks = training_tasks(state, setup.run_spec, setup.run_spec.roster(1))
    return [task for task in tasks if isinstance(task, TrainRequest)]


def test_a_failure_has_no_figure_and_a_spent_budget_withholds(
    make_pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, hidden = make_pair()
    rounds, inner = masked_rounds(hidden)
    state, _ = open_state(hidden.run_spec, rounds)
    diverged = TrainingError(
        "It rose to 17.25.", reason=Reason("loss-rose", {"first": 0.5, "last": 17.25})
    )
    spent = BudgetError("Spent.", reason=Reason("own-budget-spent", {"keys": ["hours"]}))
    train = Node.train

    def raising(self: Node, task: TrainRequest) -> Reply:
        if task.index == 1:
            raise diverged if failing_by == "diverged" else spent
        return train(self, task)

    monkeypatch.setattr(Node, "train", raising)
    failing_by = "diverged"
    state, body = run_round(state, hidden.run_spec, rounds, rounds.gather)
    row = next(row for row in body["admissions"] if row["name"] == "site0")
    assert (row["status"], row["reason"]["code"]) == ("failed", "masked-nothing")
    assert "17.25" not in str(body)
    failing_by = "budget"
    _, body = run_round(state, hidden.run_spec, rounds, rounds.gather)
    row = next(row for row in body["admissions"] if row["name"] == "site0")
    assert (row["status"], row["reason"]["code"]) == ("withheld", "own-budget-spent")
    assert isinstance(inner.participants[1], MaskedNode)
