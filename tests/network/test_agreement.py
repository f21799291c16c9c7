"""A coordinator that departs from what was agreed: each way is refused with its key named, and the
participant works on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from agreed_requests import Compared, compared, coordinate_all, first_request

from tequio.app.assembly.build import build
from tequio.app.assembly.setup import RunSetup
from tequio.app.network.participant.agreement import REPEATS, Agreement, Asked, check_task
from tequio.config import MAIN, load_federation
from tequio.core.errors import AgreementError
from tequio.core.messages import REQUESTS, pack_message, unpack_message
from tequio.core.types import (
    DescribeRequest,
    EvaluateRequest,
    GradientRequest,
    PersonaliseRequest,
    Span,
    TrainRequest,
)
from tequio.core.update import Dense, Factored, Update, zero

RICH: dict[str, Any] = {
    "train": {"rounds": 3, "max_steps": 4, "patience": 9},
    "algorithm": {"upload": "quantise", "upload_settings": {"bits": 4}},
    "local": {"terms": {"fedprox": 0.1}, "method": "fomaml"},
    "budget": {"kwh": 5.0},
}
FACTORS: dict[str, Any] = {
    "train": {"rounds": 3, "max_steps": 4, "patience": 9},
    "algorithm": {
        "reduce": "rolora",
        "upload": "topk",
        "upload_settings": {"density": 0.5, "bits": 8.0},
    },
}
MADE: dict[str, tuple[RunSetup, Compared]] = {}
HUGE = 10**10


@pytest.fixture
def asked(make_federation: Any, tmp_path: Path) -> Callable[[str], Compared]:
    """Every request that the real coordinator of a federation makes, and what its participants
    agreed to; made once.
    """

    def made(which: str) -> Compared:
        if which not in MADE:
            whole = load_federation(
                make_federation(
                    participants=2, rows=60, **{"rich": RICH, "factors": FACTORS}[which]
                )
            )
            setup = build(whole)
            runtimes = compared(setup, whole)
            coordinate_all(setup, whole, runtimes, tmp_path / "ledger.sqlite")
            MADE[which] = setup, runtimes[MAIN]
        return MADE[which][1]

    return made


def refused(task: Any, agreed: Agreement) -> str:
    """What the participant answers to a request as it comes over the network."""
    with pytest.raises(AgreementError) as caught:
        check_task(unpack_message(pack_message(task), "a request", REQUESTS), agreed)
    return str(caught.value)


def with_entry(model: Update, change: Callable[[str, Any], tuple[str, Any]]) -> Update:
    """The model with its first matrix altered."""
    name = next(name for name in model.entries if not name.startswith("head."))
    new, entry = change(name, model.entries[name])
    return Update({**{k: v for k, v in model.entries.items() if k != name}, new: entry}, model.spec)


def held(change: Callable[[str, Any], tuple[str, Any]]) -> Callable[[Any], Any]:
    return lambda task: replace(task, held=with_entry(task.held, change))


def to(**changes: Any) -> Callable[[Any], Any]:
    return lambda task: replace(task, **changes)


EMPTY = Factored(torch.zeros(HUGE, 0), torch.zeros(0, HUGE))  # no byte of it travels
WIDE = Factored(torch.zeros(32, 5000), torch.zeros(5000, 32))
TRAIN: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("one round more", "train.round: 4 asked, at most 3 agreed", to(round=4)),
    ("round 0", "train.round: 0 asked, at least 1 agreed", to(round=0)),
    ("in another's place", "train.index: 2 asked, 1 agreed", to(index=2)),
    ("as the centre", "train.index: 0 asked, 1 agreed", to(index=0)),
    ("many steps", "train.steps: 400 asked, at most 4 agreed", to(steps=400)),
    ("steps without end", "train.steps: 10000000000 asked, at most 4 agreed", to(steps=HUGE)),
    ("steps beyond words", "train.steps: about 10^19 asked, at most 4", to(steps=2**64)),
    ("too few steps", "train.steps: 1 asked, at least 2 agreed", to(steps=1)),
    ("rank of no ladder", "train.rank: 3 asked, one of 2, 4 agreed", to(rank=3)),
    ("rank 2000", "train.rank: 2000 asked, one of 2, 4 agreed", to(rank=2000)),
    ("a large rate", "train.learning_rate: 1 asked, 0.00325 agreed", to(learning_rate=1.0)),
    (
        "the first round's rate",
        "train.learning_rate: 0.005 asked, 0.00325 agreed",
        to(learning_rate=5e-3),
    ),
    ("other batches", "train.seed: 1 asked, ", to(seed=1)),
    ("another layout", "train.layout: factors asked, product agreed", to(layout="factors")),
    ("half of the factors", "train.trained: a asked, both agreed", to(trained="a")),
    ("an open upload", "train.upload: plain asked, quantise agreed", to(upload="plain")),
    ("an unknown codec", "train.upload: ../x asked, quantise agreed", to(upload="../x")),
    (
        "a finer upload",
        "train.upload_settings.bits: 8 asked, 4 agreed",
        to(upload_settings={"bits": 8.0}),
    ),
    (
        "coarser by default",
        "train.upload_settings.bits: none asked, 4 agreed",
        to(upload_settings={}),
    ),
    ("a memory", "train.feedback: 1 asked, none agreed", to(feedback=1.0)),
    ("a memory of later", "train.memory_round: 7 asked, at most 0 agreed", to(memory_round=7)),
    ("without its term", "train.terms.fedprox: none asked, 0.1 agreed", to(terms={})),
    ("a weaker term", "train.terms.fedprox: 0.01 asked, 0.1 agreed", to(terms={"fedprox": 0.01})),
    (
        "a further term",
        "train.terms.zzz: 1 asked, none agreed",
        to(terms={"fedprox": 0.1, "zzz": 1.0}),
    ),
    ("another method", "train.method: nope asked, fomaml agreed", to(method="nope")),
    (
        "settings of it",
        "train.method_settings.x: 1 asked, none agreed",
        to(method_settings={"x": 1.0}),
    ),
    ("no budget", "train.budget.kwh: none asked, a share of 5 agreed", to(budget={})),
    ("a larger budget", "train.budget.kwh: 50 asked, at most 5", to(budget={"kwh": 50.0})),
    ("a negative budget", "train.budget.kwh: -1 asked, at least 0", to(budget={"kwh": -1.0})),
    (
        "another budget",
        "train.budget.hours: 1 asked, none agreed",
        to(budget={"kwh": 1.0, "hours": 1.0}),
    ),
    (
        "made-up hours",
        "train.hours: 1 asked, 0 agreed",
        to(hours=(Span("2026-01-01T00:00:00+00:00", 9.0),)),
    ),
    (
        "a gradient",
        "train.gradient: a gradient asked, none agreed",
        lambda t: replace(t, gradient=t.held),
    ),
    (
        "factors to continue",
        "train.start: factors to continue asked",
        lambda t: replace(t, start=t.held),
    ),
    (
        "another base",
        "train.held: layout 'x' asked",
        lambda t: replace(t, held=Update(t.held.entries, "x")),
    ),
    (
        "a module of its own",
        "train.held: entry 'x.y' asked, no such module",
        held(lambda _, e: ("x.y", e)),
    ),
    (
        "a smaller matrix",
        "query: 4 × 4 asked, 32 × 32 agreed",
        held(lambda n, _: (n, Dense(torch.zeros(4, 4)))),
    ),
    (
        "a huge matrix",
        "query: 10000000000 × 10000000000 asked, 32 × 32",
        held(lambda n, _: (n, EMPTY)),
    ),
    (
        "thousands of ranks",
        "query rank: 5000 asked, at most 32 agreed",
        held(lambda n, _: (n, WIDE)),
    ),
]


@pytest.mark.parametrize(
    ("key", "alter"), [row[1:] for row in TRAIN], ids=[row[0] for row in TRAIN]
)
def test_a_training_request_that_departs_is_refused_by_key(
    asked: Any, key: str, alter: Callable[[Any], Any]
) -> None:
    runtime = asked("rich")
    task = first_request(runtime.requests, TrainRequest, 2)
    check_task(task, runtime.agreed[1])
    said = refused(alter(task), runtime.agreed[1])
    assert key in said
    assert "The coordinator departs from the federation.toml that this participant joined" in said


def test_a_rank_beyond_the_participants_own_maximum_is_refused(asked: Any) -> None:
    """Its own file says max_rank = 2."""
    runtime = asked("rich")
    task = first_request(runtime.requests, TrainRequest, 2, index=2)
    check_task(task, runtime.agreed[2])
    assert "train.rank: 4 asked, one of 2 agreed" in refused(
        replace(task, rank=4), runtime.agreed[2]
    )


def test_the_first_round_starts_from_the_base(asked: Any) -> None:
    runtime = asked("rich")
    first, second = (first_request(runtime.requests, TrainRequest, round_) for round_ in (1, 2))
    said = refused(replace(first, held=second.held), runtime.agreed[1])
    assert "train.held: a trained model before the first round asked, the base agreed" in said
    look = first_request(runtime.requests, EvaluateRequest, 0)
    assert "evaluate.held: a trained model" in refused(
        replace(look, held=second.held), runtime.agreed[1]
    )


def test_numbers_that_are_none_are_refused(asked: Any) -> None:
    """Even where a message could hold them."""
    runtime = asked("rich")
    task, agreed = first_request(runtime.requests, TrainRequest, 2), runtime.agreed[1]
    for key, odd in (
        ("train.learning_rate", replace(task, learning_rate=float("nan"))),
        ("train.learning_rate", replace(task, learning_rate=float("inf"))),
        ("train.terms.fedprox", replace(task, terms={"fedprox": float("nan")})),
        ("train.budget.kwh", replace(task, budget={"kwh": float("nan")})),
    ):
        with pytest.raises(AgreementError, match=f"^{key}: "):
            check_task(odd, agreed)


FACTOR_ROWS: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("no factors", "train.start: none asked, factors to continue agreed", to(start=None)),
    ("rank 4 in a part of rank 2", "rank: 4 asked, at most 2 agreed", to(rank=2)),
    ("a product", "train.layout: product asked, factors agreed", to(layout="product")),
    (
        "A in B's turn",
        "train.trained: a asked, b agreed",
        lambda t: replace(t, round=1, trained="a"),
    ),
    ("all factors", "train.trained: both asked", to(trained="both")),
    ("no memory", "train.feedback: none asked, 1 agreed", to(feedback=None)),
    ("a memory that fades", "train.feedback: 0.5 asked, 1 agreed", to(feedback=0.5)),
    ("a memory of this round", "train.memory_round: 2 asked, at most 1 agreed", to(memory_round=2)),
    (
        "a denser upload",
        "train.upload_settings.density: 1 asked, 0.5",
        to(upload_settings={"density": 1.0, "bits": 8.0}),
    ),
    (
        "other factors",
        "train.start: entry 'x:a' asked, no such factor",
        lambda t: replace(t, start=grown(t.start)),
    ),
    ("half a factor", ":b: none asked", lambda t: replace(t, start=without_b(t.start))),
    (
        "no entry",
        "rank: 0 asked, at least 1 agreed",
        lambda t: replace(t, start=zero(t.start.spec)),
    ),
]


def grown(start: Update) -> Update:
    return Update({**start.entries, "x:a": Dense(torch.zeros(2, 2))}, start.spec)


def without_b(start: Update) -> Update:
    last = next(name for name in start.entries if name.endswith(":b"))
    return Update(
        {name: entry for name, entry in start.entries.items() if name != last}, start.spec
    )


@pytest.mark.parametrize(
    ("key", "alter"), [row[1:] for row in FACTOR_ROWS], ids=[row[0] for row in FACTOR_ROWS]
)
def test_a_request_for_shared_factors_that_departs_is_refused_by_key(
    asked: Any, key: str, alter: Callable[[Any], Any]
) -> None:
    runtime = asked("factors")
    task = first_request(runtime.requests, TrainRequest, 2)
    check_task(task, runtime.agreed[1])
    altered = alter(task)
    if altered.round == 1:
        altered = replace(first_request(runtime.requests, TrainRequest, 1), trained="a")
    assert key in refused(altered, runtime.agreed[1])


OTHERS: list[tuple[type, int, str, Callable[[Any], Any]]] = [
    (EvaluateRequest, 1, "evaluate.round: 4 asked, at most 3 agreed", to(round=4)),
    (EvaluateRequest, 1, "evaluate.round: -1 asked, at least 0 agreed", to(round=-1)),
    (EvaluateRequest, 1, "evaluate.index: 0 asked, 1 agreed", to(index=0)),
    (
        EvaluateRequest,
        1,
        "evaluate.hours: 1 asked",
        to(hours=(Span("2026-01-01T00:00:00+00:00", 9.0),)),
    ),
    (EvaluateRequest, 1, "evaluate.held: entry 'x.y' asked", held(lambda _, e: ("x.y", e))),
    (EvaluateRequest, 1, "query: 10000000000 × 10000000000 asked", held(lambda n, _: (n, EMPTY))),
    (EvaluateRequest, 1, "head.bias: 9 asked, 2 agreed", lambda t: replace(t, held=bias(t.held))),
    (PersonaliseRequest, -1, "personalise.rank: 2000 asked", to(rank=2000)),
    (
        PersonaliseRequest,
        -1,
        "personalise.steps: 10000000000 asked, at most 4 agreed",
        to(steps=HUGE),
    ),
    (PersonaliseRequest, -1, "personalise.budget.kwh: none asked", to(budget={})),
    (PersonaliseRequest, -1, "personalise.budget.kwh: 6 asked, at most 5", to(budget={"kwh": 6.0})),
    (PersonaliseRequest, -1, "personalise.round: 9 asked, at most 3", to(round=9)),
    (
        PersonaliseRequest,
        -1,
        "personalise.held: layout 'x' asked",
        lambda t: replace(t, held=Update({}, "x")),
    ),
    (DescribeRequest, 0, "describe.round: 4 asked, at most 3", to(round=4)),
    (DescribeRequest, 0, "describe.index: 2 asked", to(index=2)),
    (
        EvaluateRequest,
        1,
        "gradient: a request of this kind asked, none agreed",
        lambda t: GradientRequest(1, 1, t.name, t.held, 2, 1, 1),
    ),
]


def bias(model: Update) -> Update:
    return Update({**model.entries, "head.bias": Dense(torch.zeros(9))}, model.spec)


@pytest.mark.parametrize(
    ("kind", "round_", "key", "alter"), OTHERS, ids=[row[2][:40] for row in OTHERS]
)
def test_any_other_request_that_departs_is_refused_by_key(
    asked: Any, kind: type, round_: int, key: str, alter: Callable[[Any], Any]
) -> None:
    runtime = asked("rich")
    own: list[Any] = [r for r in runtime.requests if r.index == 1 and r.__class__ is kind]
    task = next(r for r in own if round_ in (-1, r.round))
    check_task(task, runtime.agreed[1])
    assert key in refused(alter(task), runtime.agreed[1])


def test_a_round_has_one_model_and_a_bounded_number_of_evaluations(asked: Any) -> None:
    """The same again is no departure; another model is, and so is a validation loss of ever more
    models.
    """
    runtime = asked("rich")
    task, agreed, before = (
        first_request(runtime.requests, TrainRequest, 2),
        runtime.agreed[1],
        Asked(),
    )
    before.check_trained(task, "one", "")
    before.check_trained(task, "one", "")
    for changed, model in (
        (task, "other"),
        (replace(task, steps=3), "one"),
        (replace(task, rank=2), "one"),
    ):
        with pytest.raises(
            AgreementError,
            match=r"^train.round: round 2 again with other content asked, once agreed",
        ):
            before.check_trained(changed, model, "")
    for k in range(REPEATS - 1):
        before.check_trained(task, "one", f"gradient {k}")
    with pytest.raises(
        AgreementError, match=r"^train.gradient: 11 asked, at most 10 in one round agreed"
    ):
        before.check_trained(task, "one", "one more")
    for k in range(REPEATS):
        before.check_look(2, f"model {k}", agreed)
    before.check_look(2, "model 3", agreed)
    with pytest.raises(
        AgreementError, match=r"^evaluate.looks: 11 asked, at most 10 in one round agreed"
    ):
        before.check_look(2, "one more", agreed)
    before.check_look(3, "one more", agreed)
