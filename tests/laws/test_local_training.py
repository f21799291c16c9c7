"""Local terms and methods on tiny real models: what they do to training, and what they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from term_rows import TERMS
from torch import Tensor
from torch.nn import functional as F

from builders import build_setup, refused, sentences, write_jsonl
from tequio.algorithms.local._products import still
from tequio.algorithms.registry import method_by_name, terms_by_name
from tequio.core.canonical import digest_update
from tequio.core.errors import TrainingError
from tequio.core.protocols import LocalTerm
from tequio.core.seeds import derive
from tequio.core.types import GradientRequest, TrainRequest
from tequio.core.update import Dense, Update, zero
from tequio.participant.adapted_model import AdaptedModel, head_at_zero
from tequio.participant.base import load_base
from tequio.participant.data import Example
from tequio.participant.loop import train
from tequio.participant.low_rank_gradient import public_gradient
from tequio.participant.objective import Objective, build_objective
from tequio.participant.public_text import public_text
from tequio.participant.text_tasks import Causal, Classification, Item, batches

Opened = tuple[AdaptedModel, Any, list[Item]]


KINDS = ("classification", "causal")


@pytest.fixture
def opened(tiny_bert: Path, tiny_llama: Path, tmp_path: Path) -> Callable[[str], Opened]:
    def make(kind: str) -> Opened:
        causal = kind == "causal"
        base = load_base(str(tiny_llama if causal else tiny_bert), kind, torch.float32, tmp_path)  # type: ignore[arg-type]
        adapted = AdaptedModel(
            base,
            ["q_proj", "v_proj"] if causal else ["query", "value"],
            2.0,
            None if causal else head_at_zero(base, 2),
        )
        task: Any = (
            Causal(base.tokenizer, 8)
            if causal
            else Classification(base.tokenizer, ("good", "bad"), 16)
        )
        rows = [Example(r["text"], label=None if causal else r["label"]) for r in sentences(24, 5)]
        return adapted, task, task.encode(rows, "x")[0]

    return make


def asked(
    adapted: AdaptedModel, terms: dict[str, float], gradient: Update | None = None
) -> TrainRequest:
    return TrainRequest(
        1, 1, "x", "product", 2, 3, 5e-3, 11, zero(adapted.spec), terms=terms, gradient=gradient
    )


def trained(
    setup: Opened, objective: Callable[[AdaptedModel], Objective | None], held: Update | None = None
) -> Update:
    """Three steps at 0.005 from fresh factors of rank 2."""
    adapted, task, items = setup
    adapted.fold_in(held or zero(adapted.spec))
    parameters = adapted.attach(2, 3)
    train(
        adapted,
        task,
        parameters,
        batches(items, 4, 5),
        [5e-3] * 3,
        "x",
        objective=objective(adapted),
    )
    update = adapted.extract()
    adapted.detach()
    return update


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(TERMS))
def test_weight_0_trains_to_the_same_bits_and_more_does_not(
    opened: Callable[[str], Opened], kind: str, name: str
) -> None:
    setup = opened(kind)
    adapted, task, items = setup
    public = public_text(items, 4, 0)
    gradient = public_gradient(adapted, task, public.batches, zero(adapted.spec), 4, 1)
    none = digest_update(trained(setup, lambda _: None))
    strengths = {"fedprox": 100.0, "kl": 1.0, "replay": 0.5, "transfer": 1.0}
    for strength, same in ((0.0, True), (strengths[name], False)):
        task_ = asked(adapted, {name: strength}, gradient)
        other = trained(setup, lambda b, t=task_: build_objective(t, b, public))  # type: ignore[misc]
        assert (digest_update(other) == none) is same, strength


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_is_what_the_model_is_without_adapters_and_shared_update(
    opened: Callable[[str], Opened], kind: str
) -> None:
    adapted, task, items = opened(kind)
    public = public_text(items, 4, 0)
    with torch.no_grad():
        expected = [task.logits(adapted, batch)[0] for batch in public.batches]
    g = torch.Generator().manual_seed(0)
    names = [*adapted.layers, *adapted.head]
    held = Update(
        {
            n: Dense(torch.randn(*(adapted.shapes.get(n) or adapted.head[n].shape), generator=g))
            for n in names
        },
        adapted.spec,
    )
    adapted.fold_in(held)
    adapted.attach(2, 0)
    before = digest_update(still(adapted.moving()))
    for k, logits in enumerate(expected):
        assert torch.equal(public.base(k, adapted, task), logits)
        assert public.base(k, adapted, task) is public.base(
            k, adapted, task
        )  # the base is not run twice
        with torch.no_grad():
            assert not torch.allclose(
                task.logits(adapted, public.batches[k])[0], logits
            )  # and all is put back
    assert digest_update(still(adapted.moving())) == before
    assert {k: v.requires_grad for k, v in adapted.head.items()} == dict.fromkeys(
        adapted.head, True
    )


@pytest.mark.parametrize("kind", KINDS)
def test_kl_is_0_at_the_base_and_its_training_keeps_near_it(
    opened: Callable[[str], Opened], kind: str
) -> None:
    setup = opened(kind)
    adapted, task, items = setup
    public = public_text(items, 4, 0)
    adapted.attach(2, 3)
    objective = build_objective(asked(adapted, {"kl": 1.0}), adapted, public)
    own = torch.zeros(())
    assert float(objective.total(own, adapted, task).detach()) == pytest.approx(0.0, abs=1e-6)

    def distance(update: Update) -> float:
        adapted.fold_in(update)
        adapted.attach(2, 3)
        far = build_objective(asked(adapted, {"kl": 1.0}), adapted, public)
        return float(far.total(own, adapted, task).detach())

    free = trained(setup, lambda _: None)
    near = trained(setup, lambda b: build_objective(asked(b, {"kl": 1000.0}), b, public))
    assert distance(near) < 0.7 * distance(free)


def test_fedprox_pulls_the_change_of_the_round_towards_0(opened: Callable[[str], Opened]) -> None:
    """The longer the pull, the shorter the change; with no distance there is no pull, so the first
    step is the free one.
    """
    setup = opened("classification")
    lengths = []
    for strength in (0.0, 10.0, 1e3):
        task = asked(setup[0], {"fedprox": strength})
        lengths.append(trained(setup, lambda b, t=task: build_objective(t, b, None)).norm())  # type: ignore[misc]
    assert lengths[0] > lengths[1] > lengths[2] > 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_the_sketched_gradient_is_the_gradient_of_the_weights(
    opened: Callable[[str], Opened], kind: str
) -> None:
    """At full rank exactly, up to rounding; at rank r as good as the best rank r up to a small
    factor (Halko et al., theorem 10.5).
    """
    adapted, task, items = opened(kind)
    parts = [items[:4], items[4:8]]
    held = trained((adapted, task, items), lambda _: None)
    adapted.fold_in(held)
    weights = {
        n: layer.weight.detach().clone().requires_grad_() for n, layer in adapted.layers.items()
    }
    heads = {n: t.detach().clone().requires_grad_() for n, t in adapted.head.items()}
    for n, layer in adapted.layers.items():
        layer.weight = weights[n]
    adapted.head = dict(heads)
    loss = (task.loss(adapted, parts[0]) + task.loss(adapted, parts[1])) / 2
    gradients = torch.autograd.grad(loss, [*weights.values(), *heads.values()])
    exact = Update(
        {n: Dense(g) for n, g in zip([*weights, *heads], gradients, strict=True)}, adapted.spec
    )
    adapted.fold_in(zero(adapted.spec))

    full = public_gradient(adapted, task, parts, held, 32, 7)
    assert set(full.entries) == set(exact.entries)
    assert full.minus(exact).norm() <= 1e-4 * exact.norm()
    few = public_gradient(adapted, task, parts, held, 8, 7)
    assert few.max_rank() == 8
    best = exact.minus(exact.to_rank(4)).norm()
    assert few.minus(exact).norm() <= 2.0 * best + 1e-4 * exact.norm()
    assert all(layer.a is None for layer in adapted.layers.values())  # the bench is left clean


def test_a_gradient_is_the_centres_only(make_federation: Any) -> None:
    w = build_setup(make_federation())
    with refused(TrainingError, "gradient-is-private", name="site0"):
        w.nodes[1].gradient(GradientRequest(1, 1, "site0", zero(w.run_spec.spec), 2, 1, 0))


class _Parabola:
    """A task whose loss is 3/2·Σx² over all parameters, whatever the batch."""

    def __init__(self, parameters: list[Any]) -> None:
        self.parameters = parameters

    def loss(self, adapted: AdaptedModel, items: Any) -> Tensor:
        return torch.stack([1.5 * p.square().sum() for p in self.parameters]).sum()


def test_fomaml_applies_the_gradient_of_the_point_ahead_where_it_was(
    opened: Callable[[str], Opened],
) -> None:
    """With all x at 0.001 gradients are 0.003, unclipped; ahead by α = 0.1 they are 0.0021.

    Adam's first moment is a tenth of it.
    """
    adapted, _, _ = opened("causal")
    parameters = adapted.attach(2, 0)
    with torch.no_grad():
        for p in parameters:
            p.fill_(1e-3)
    one: Iterator[list[Item]] = iter([[Item((1, 2), (1, 2))], [Item((1, 2, 3), (1, 2, 3))]])
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)
    objective = Objective(method=method_by_name("fomaml", inner_rate=0.1))
    done = train(adapted, _Parabola(parameters), parameters, one, [1e-4], "x", optimizer, objective)  # type: ignore[arg-type]
    assert (done.steps, done.tokens) == (1, 5)
    for p in parameters:
        moment = optimizer.state[p]["exp_avg"]
        assert torch.allclose(
            moment, torch.full_like(moment, 0.1 * 3.0 * (1e-3 - 0.1 * 3e-3)), rtol=1e-5
        )
        assert torch.allclose(
            p, torch.full_like(p, 1e-3 - 1e-4), rtol=1e-4
        )  # Adam's first step is the rate, from x itself


@pytest.mark.parametrize(
    ("terms", "message"),
    [({"kl": 0.1}, "public text"), ({"transfer": 1.0}, "no gradient of the centre")],
)
def test_a_node_that_lacks_what_a_term_needs_says_so(
    opened: Callable[[str], Opened], terms: dict[str, float], message: str
) -> None:
    adapted, _, _ = opened("causal")
    adapted.attach(2, 0)
    with pytest.raises(TrainingError, match=message):
        build_objective(asked(adapted, terms), adapted, None)


def test_terms_add_up_and_share_one_public_batch(opened: Callable[[str], Opened]) -> None:
    adapted, task, items = opened("causal")
    public = public_text(items, 4, 0)
    adapted.attach(2, 0)
    own = torch.tensor(2.0)
    alone = [
        float(
            build_objective(asked(adapted, {n: s}), adapted, public)
            .total(own, adapted, task)
            .detach()
        )
        - 2.0
        for n, s in (("kl", 0.5), ("replay", 0.1))
    ]
    both = float(
        build_objective(asked(adapted, {"kl": 0.5, "replay": 0.1}), adapted, public)
        .total(own, adapted, task)
        .detach()
    )
    assert both == pytest.approx(2.0 + sum(alone), rel=1e-5)
    logits, truth = task.logits(adapted, public.batches[next(public.order(derive(11, "public")))])
    assert alone[1] == pytest.approx(
        0.1 * (float(F.cross_entropy(logits, truth).detach()) - 2.0), rel=1e-4
    )


@pytest.mark.parametrize("name", sorted(TERMS))
def test_terms_follow_the_protocol(name: str) -> None:
    term: LocalTerm = terms_by_name({name: 0.1})[0]
    assert (term.name, term.strength) == (name, 0.1)
    assert term.needs <= {"public", "base", "gradient"}


def test_public_text_need_not_be_the_centres(make_federation: Any, tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "public.jsonl", sentences(20, 321))
    w = build_setup(make_federation(centre=False, local={"terms": {"kl": 0.1}, "data": str(data)}))
    public = w.nodes[1].public
    assert public is not None
    assert public is w.nodes[2].public
    assert sum(len(batch) for batch in public.batches) == 20
    assert "[local] data" in w.header["public_data"]
