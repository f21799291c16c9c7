"""Screening: figures worked by hand, and whole rounds with participants that send their update with
the sign turned, or noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import Shuffled, bodies, build_setup, refused, sentences, write_jsonl
from tequio.app.assembly.setup import RunSetup
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.coordinator.admission import Admitted
from tequio.coordinator.round import open_state, run_round
from tequio.coordinator.run_spec import Member, RunSpec, Screening
from tequio.coordinator.screening import bound, cosine, lowest, screened
from tequio.core.canonical import digest_update
from tequio.core.errors import ConfigError, RunError
from tequio.core.protocols import Facts, Participant, Runtime
from tequio.core.types import (
    EvaluateRequest,
    Failure,
    GradientRequest,
    Reply,
    Request,
    State,
    TrainRequest,
)
from tequio.core.update import Dense, Factored, Update
from tequio.runtimes.embedded import Embedded


def vector(*values: float) -> Update:
    return Update({"head.bias": Dense(torch.tensor(values))}, "s")


def admitted(update: Update) -> Admitted:
    facts = Facts(examples=10, steps=2, norm=update.norm())
    return Admitted(Member("ana", 1, 2, 2), update, facts, {"norm": facts.norm})


def test_a_long_update_is_cut_to_the_bound_and_a_short_one_stays() -> None:
    """(3, 4) has norm 5: 2.5 times a median of 2.

    At f = 1 it becomes (1.2, 1.6), of norm 2; at f = 3 nothing happens.
    """
    cut = bound(admitted(vector(3.0, 4.0)), 1.0, 2.0)
    torch.testing.assert_close(value(cut.update), torch.tensor([1.2, 1.6]))
    assert cut.facts.norm == pytest.approx(2.0)
    assert cut.row["norm"] == 5.0
    assert [(a.alarm, a.figure, a.limit, a.action) for a in cut.alarms] == [
        ("norm", 2.5, 1.0, "clip")
    ]
    for factor, reference in (
        (3.0, 2.0),
        (2.5, 2.0),
        (1.0, 0.0),
    ):  # the last is the first round: no reference yet
        same = bound(admitted(vector(3.0, 4.0)), factor, reference)
        assert (same.facts.norm, same.alarms) == (5.0, ())


def value(update: Update) -> torch.Tensor:
    entry = update.entries["head.bias"]
    assert isinstance(entry, Dense)
    return entry.value


def test_cosine_of_products_without_the_product() -> None:
    """[1,0]ᵀ[1,0] and [1,1]ᵀ[1,0]: inner product 1, norms 1 and √2."""
    one, two = torch.tensor([[1.0], [0.0]]), torch.tensor([[1.0], [1.0]])
    row = torch.tensor([[1.0, 0.0]])
    x, y = Update({"m": Factored(one, row)}, "s"), Update({"m": Factored(two, row)}, "s")
    assert cosine(x, y) == pytest.approx(0.5**0.5)
    assert cosine(x, x.scaled(-3.0)) == pytest.approx(-1.0)
    assert cosine(x, x.scaled(0.0)) == 0.0


def test_shared_factors_of_unequal_rank_are_compared_as_if_padded_with_zeros() -> None:
    """A of one rank (1, 0) against A of two ranks (1, 0), (0, 1): ⟨⟩ = 1, norms 1 and √2."""
    short = Update({"m:a": Dense(torch.tensor([[1.0, 0.0]]))}, "s")
    tall = Update({"m:a": Dense(torch.eye(2))}, "s")
    assert cosine(short, tall) == cosine(tall, short) == pytest.approx(0.5**0.5)


def pairs(*vectors: tuple[float, float]) -> list[list[float]]:
    return [[cosine(vector(*x), vector(*y)) for y in vectors] for x in vectors]


def least(pairs_: list[list[float]]) -> tuple[float, float]:
    return lowest(pairs_, range(3))


def test_the_lowest_cosine_with_the_mean_of_the_others() -> None:
    """Unit vectors (1, 0), (.6, .8), (0, 1): .6/√3.6 = .316, 1.4/√2 = .990, .8/√3.2 = .447.

    Lengths do not count.
    """
    assert least(pairs((1, 0), (0.6, 0.8), (0, 1))) == pytest.approx((0, 0.6 / 3.6**0.5))
    assert least(pairs((9, 0), (0.6, 0.8), (0, 5))) == pytest.approx((0, 0.6 / 3.6**0.5))
    # one turned round: −1 for itself; for the others the mean of the rest is zero, which is 0
    assert least(pairs((1, 0), (1, 0), (-1, 0))) == pytest.approx((2, -1.0))


@dataclass(frozen=True)
class Flipping:
    """A participant that trains honestly and sends the opposite."""

    inner: Participant

    @property
    def name(self) -> str:
        return self.inner.name

    def evaluate(self, task: EvaluateRequest) -> Reply:
        return self.inner.evaluate(task)

    def gradient(self, task: GradientRequest) -> Reply:
        return self.inner.gradient(task)

    def train(self, task: TrainRequest) -> Reply:
        reply = self.inner.train(task)
        assert reply.update is not None
        return replace(reply, update=reply.update.scaled(-1.0))


@dataclass(frozen=True)
class Noise(Flipping):
    """A participant that sends normal noise, `times` as long as what it learnt."""

    times: float = 1.0

    def train(self, task: TrainRequest) -> Reply:
        reply = self.inner.train(task)
        assert reply.update is not None
        g = torch.Generator().manual_seed(task.seed)
        noise: dict[str, Any] = {}
        for name, entry in reply.update.entries.items():
            if isinstance(entry, Factored):
                noise[name] = Factored(
                    torch.randn(entry.b.shape, generator=g), torch.randn(entry.a.shape, generator=g)
                )
            else:
                noise[name] = Dense(torch.randn(entry.shape, generator=g))
        update = Update(noise, reply.update.spec)
        return replace(
            reply, update=update.scaled(self.times * reply.update.norm() / update.norm())
        )


def federation(make: Any, **sections: Any) -> RunSetup:
    """Four participants that train long enough for their updates to agree, on shared factors, so
    that they can be compared.
    """
    train = {"local_epochs": 20.0, "max_steps": 30}
    return build_setup(
        make(participants=4, train=train, **{"algorithm": {"reduce": "fedit"}, **sections})
    )


def with_bad(w: RunSetup, bad: type[Flipping], **settings: Any) -> Runtime:
    nodes: Mapping[int, Participant] = {**w.nodes, 2: bad(w.nodes[2], **settings)}
    return Embedded(nodes)


def one_round(run_spec: RunSpec, runtime: Runtime) -> tuple[State, dict[str, Any]]:
    state, _ = open_state(run_spec, runtime)
    return run_round(state, run_spec, runtime)


@pytest.mark.parametrize(
    ("bad", "to"), [(Flipping, "others"), (Flipping, "centre"), (Noise, "others")]
)
def test_who_points_elsewhere_is_refused_exactly_as_if_it_were_not_there(
    make_federation: Any, bad: type[Flipping], to: Any
) -> None:
    w = federation(make_federation)
    limit = 0.05
    run_spec = replace(
        w.run_spec, screening=Screening(cosine=limit, cosine_to=to, cosine_action="refuse")
    )
    after, body = one_round(run_spec, with_bad(w, bad))
    assert [(a["name"], a["alarm"], a["action"]) for a in body["alarms"]] == [
        ("site1", "cosine", "refuse")
    ]
    figure = body["alarms"][0]["figure"]
    assert figure < -0.3 if bad is Flipping else abs(figure) < limit
    refused = [a for a in body["admissions"] if a["status"] != "admitted"]
    reason = {"code": "alarm", "facts": {"alarm": "cosine", "figure": figure, "limit": limit}}
    assert refused == [{"name": "site1", "status": "rejected", "reason": reason}]
    without = replace(w.run_spec, members=tuple(m for m in w.run_spec.members if m.index != 2))
    expected, _ = one_round(without, Embedded(w.nodes))
    assert digest_update(after.shared) == digest_update(expected.shared)


def test_an_alarm_that_only_records_changes_nothing(make_federation: Any) -> None:
    w = federation(make_federation)
    runtime = with_bad(w, Flipping)
    run_spec = replace(w.run_spec, screening=Screening(cosine=0.0, loss=0.0))
    after, body = one_round(run_spec, runtime)
    expected, plain = one_round(w.run_spec, runtime)
    assert "site1" in {a["name"] for a in body["alarms"]}
    assert plain["alarms"] == []
    assert digest_update(after.shared) == digest_update(expected.shared)
    assert body["admissions"] == plain["admissions"]


def test_an_update_that_harms_public_slices_raises_the_alarm_of_loss(make_federation: Any) -> None:
    """Site 1 learns what it is told, with labels that say the opposite; nobody else is under
    suspicion.
    """
    w = poisoned(make_federation)
    for action in ("record", "refuse"):
        run_spec = replace(w.run_spec, screening=Screening(loss=0.1, loss_action=action))
        _, body = one_round(run_spec, Embedded(w.nodes))
        assert [(a["name"], a["alarm"], a["action"]) for a in body["alarms"]] == [
            ("site1", "loss", action)
        ]
        assert body["alarms"][0]["figure"] > body["alarms"][0]["limit"] > 0.0
        status = {a["name"]: a["status"] for a in body["admissions"]}
        assert status["site1"] == ("admitted" if action == "record" else "rejected")


def poisoned(make: Any) -> RunSetup:
    path: Path = make(
        participants=3, train={"local_epochs": 40.0, "max_steps": 120, "learning_rate": 2e-2}
    )
    swap = {"good": "bad", "bad": "good"}
    rows = [{**row, "label": swap[row["label"]]} for row in sentences(80, 1)]
    write_jsonl(path.parent / "data" / "site1.jsonl", rows)
    write_jsonl(path.parent / "public" / "slice.jsonl", sentences(200, 200))
    return build_setup(path)


def test_a_centre_that_cannot_evaluate_ends_the_round_where_the_alarm_of_loss_needs_it(
    make_federation: Any,
) -> None:
    w = federation(make_federation)
    run_spec = replace(w.run_spec, screening=Screening(loss=0.1))
    state, _ = open_state(run_spec, Embedded(w.nodes))

    @dataclass(frozen=True)
    class Blind:
        def exchange(self, tasks: Iterable[Request]) -> Iterator[Reply | Failure]:
            for task in tasks:
                if isinstance(task, EvaluateRequest) and task.index == 0:
                    yield Failure(task.round, 0, task.name, "TrainingError", "NaN")
                else:
                    yield from Embedded(w.nodes).exchange([task])

    with refused(RunError, "screening-without-centre"):
        run_round(state, run_spec, Blind())


def test_noise_of_nine_times_the_norm_is_cut_and_the_bound_follows_the_rate(
    make_federation: Any,
) -> None:
    """And the reference is the median of norms as they came: it is that of a run without the
    bound.
    """
    w = federation(make_federation, algorithm={"weights": "examples"})
    runtime = with_bad(w, Noise, times=9.0)
    run_spec = replace(w.run_spec, screening=Screening(norm_bound=1.0))
    state, first = one_round(run_spec, Embedded(w.nodes))
    norms = sorted(r["norm"] for r in first["train"] if r["name"] != "centre")
    longest = {
        a["name"]: a["figure"] for a in first["alarms"]
    }  # of four honest ones two are over their own median
    assert max(longest.values()) == pytest.approx(norms[-1] / ((norms[1] + norms[2]) / 2))
    assert run_spec.rate(2) == pytest.approx(0.3 * run_spec.rate(1))
    median = 0.3 * (norms[1] + norms[2]) / 2
    after, body = run_round(state, replace(run_spec, screening=Screening(norm_bound=2.0)), runtime)
    long = next(a for a in body["alarms"] if a["name"] == "site1")
    assert (long["name"], long["alarm"], long["action"]) == ("site1", "norm", "clip")
    assert long["figure"] > 2.0
    assert long["figure"] == pytest.approx(
        next(r["norm"] for r in body["train"] if r["name"] == "site1") / median
    )
    unbound, free = run_round(state, w.run_spec, runtime)
    assert [r["norm"] for r in body["train"]] == [r["norm"] for r in free["train"]]
    assert after.norm_per_rate == unbound.norm_per_rate
    # what was cut off: λ · its weight · (1 − 1/figure) of its length
    row = next(r for r in body["train"] if r["name"] == "site1")
    cut = 0.7 * row["weight"] * row["norm"] * (1.0 - 2.0 / long["figure"])
    assert unbound.shared.minus(after.shared).norm() == pytest.approx(cut, rel=1e-3)


@pytest.mark.parametrize(
    "screening",
    [
        Screening(norm_bound=0.9),
        Screening(cosine=0.3, cosine_action="refuse"),
        Screening(cosine=0.0, cosine_to="centre", cosine_action="refuse"),
        Screening(loss=0.0, loss_action="refuse"),
    ],
)
def test_screening_does_not_depend_on_the_order_of_arrival(
    make_federation: Any, screening: Screening
) -> None:
    w = build_setup(make_federation(participants=4, algorithm={"weights": "examples"}))
    run_spec = replace(w.run_spec, screening=screening)
    runtime = with_bad(w, Noise)
    state, _ = one_round(run_spec, runtime)
    expected, body = run_round(state, run_spec, runtime)
    for seed in range(2):
        again, same = run_round(state, run_spec, Shuffled(runtime, seed))
        assert digest_update(again.shared) == digest_update(expected.shared)
        assert same["alarms"] == body["alarms"]


def test_only_the_screens_that_need_it_keep_all_updates() -> None:
    assert Screening(norm_bound=1.0).streaming
    assert Screening(cosine=0.0, cosine_to="centre").streaming
    assert not Screening(cosine=0.0).streaming
    assert not Screening(loss=0.0).streaming


def test_a_streaming_screen_hands_on_an_update_before_the_next_is_trained(
    make_federation: Any,
) -> None:
    w = build_setup(make_federation(participants=3))
    state, _ = open_state(w.run_spec, Embedded(w.nodes))
    made: list[str] = []

    def outcomes() -> Iterator[Admitted]:
        for name in ("a", "b", "c"):
            made.append(name)
            yield replace(admitted(vector(1.0, 0.0)), member=Member(name, 1, 2, 2))

    state = replace(
        state, norm_per_rate=1.0
    )  # as after the first round, which keeps all to find their median
    streaming = screened(
        outcomes(),
        state,
        replace(w.run_spec, screening=Screening(norm_bound=1.0)),
        Embedded(w.nodes),
    )
    next(streaming)
    assert made == ["a"]
    keeping = screened(
        outcomes(), state, replace(w.run_spec, screening=Screening(cosine=0.0)), Embedded(w.nodes)
    )
    next(keeping)
    assert made == ["a", "a", "b", "c"]


def test_a_run_has_its_alarms_in_the_ledger(make_federation: Any, tmp_path: Path) -> None:
    """With a cosine that nobody reaches (1), each update but the last two raises it, in every
    round.
    """
    path = make_federation(participants=3, screen={"cosine": 1.0, "cosine_action": "record"})
    start(load_federation(path), tmp_path / "run", False)
    rounds = bodies(tmp_path / "run", "round")
    assert [[a["alarm"] for a in body["alarms"]] for body in rounds] == [["cosine"], ["cosine"]]


def test_a_bound_that_the_weights_undo_is_refused_when_the_run_is_built(
    make_federation: Any,
) -> None:
    path = make_federation(screen={"norm_bound": 1.0})
    with refused(ConfigError, "bound-without-effect", weights="norm_equalised") as caught:
        build_setup(path)
    assert 'weights = "examples"' in str(caught.value)
    build_setup(
        make_federation(folder="ok", screen={"norm_bound": 1.0}, algorithm={"weights": "fednova"})
    )


@pytest.mark.parametrize(
    ("screen", "gone", "message"),
    [
        ({"loss": 0.1}, "gate", "screen.loss: updates are tried on public slices"),
        (
            {"cosine": 0.0, "cosine_to": "centre"},
            "centre",
            'screen.cosine_to: there is no [centre]; use "others"',
        ),
        ({"cosine": 0.0}, "people", "screen.cosine: of two that disagree"),
        ({"cosine": 1.5}, "", "screen.cosine: "),
        ({"cosine": 0.0, "cosine_action": "refuze"}, "", "screen.cosine_action: "),
    ],
)
def test_screens_without_what_they_need_are_refused(
    make_federation: Any, screen: dict[str, Any], gone: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_federation(
            participants=2 if gone == "people" else 3,
            centre=gone not in ("gate", "centre"),
            screen=screen,
        )
    assert message in str(caught.value)
