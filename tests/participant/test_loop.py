"""The local loop against one written by hand, precision of the masters, folding, and what a packed
batch holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import register_optimizer_step_post_hook

from builders import refused
from tequio.core.errors import TrainingError
from tequio.core.reason import Reason
from tequio.core.update import Dense, Factored, Update, zero
from tequio.participant.adapted_model import AdaptedModel, head_at_zero
from tequio.participant.base import load_base
from tequio.participant.data import Example
from tequio.participant.encoding import Counts
from tequio.participant.loop import CLIP, train
from tequio.participant.text_tasks import IGNORE, Causal, Classification, Item, batches

Opener = Callable[..., AdaptedModel]
TEXTS = [
    "the pump was great",
    "my nurse was rude today",
    "seat clean",
    "the ticket was late again and again",
    "calm class",
]


@pytest.fixture
def adapted(tiny_bert: Path, tiny_llama: Path, tmp_path: Path) -> Opener:
    def make(kind: str = "causal", dtype: torch.dtype = torch.float32) -> AdaptedModel:
        base = load_base(str(tiny_llama if kind == "causal" else tiny_bert), kind, dtype, tmp_path)  # type: ignore[arg-type]
        modules = ["q_proj", "v_proj"] if kind == "causal" else ["query", "value"]
        return AdaptedModel(base, modules, 2.0, None if kind == "causal" else head_at_zero(base, 2))

    return make


def items_of(adapted: AdaptedModel, kind: str) -> tuple[Any, list[Item]]:
    if kind == "causal":
        causal = Causal(adapted.base.tokenizer, 8)
        return causal, causal.encode([Example(t) for t in TEXTS], "x")[0]
    labelled = Classification(adapted.base.tokenizer, ("a", "b"), 16)
    return labelled, labelled.encode(
        [Example(t, label="ab"[i % 2]) for i, t in enumerate(TEXTS)], "x"
    )[0]


def by_hand(adapted: AdaptedModel, kind: str, batch: list[Item]) -> Tensor:
    """The loss of a batch, one item at a time and without padding."""
    total, count = torch.zeros(()), 0
    for item in batch:
        ids = torch.tensor([item.ids])
        if kind == "causal":
            logits = adapted.model(input_ids=ids, use_cache=False).logits[0, :-1]
            total = total + F.cross_entropy(logits, ids[0, 1:], reduction="sum")
            count += ids.shape[1] - 1
        else:
            hidden = adapted.model(input_ids=ids).last_hidden_state[0].mean(0)
            logits = (
                10.0 * (hidden / hidden.norm()) @ adapted.head["head.weight"].T
                + adapted.head["head.bias"]
            )
            total = total - torch.log_softmax(logits, 0)[item.target[0]]
            count += 1
    return total / count


@pytest.mark.parametrize("kind", ["causal", "classification"])
def test_the_loop_is_adamw_step_by_step(adapted: Opener, kind: str) -> None:
    """Six steps of Adam written out (β .9, .999, ε 1e-8, no decay;

    Kingma & Ba, arXiv 1412.6980), gradient clipped at 1.
    """
    ours, theirs = adapted(kind), adapted(kind)
    task, items = items_of(ours, kind)
    rates = [0.02, 0.02, 0.01, 0.01, 0.005, 0.005]
    trained = train(ours, task, ours.attach(4, 3), batches(items, 2, 5), rates, "x")

    parameters = theirs.attach(4, 3)
    m = [torch.zeros_like(p) for p in parameters]
    v = [torch.zeros_like(p) for p in parameters]
    losses, tokens = [], 0
    for step, (rate, batch) in enumerate(zip(rates, batches(items, 2, 5), strict=False), 1):
        loss = by_hand(theirs, kind, batch)
        gradient = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradient))
        with torch.no_grad():
            for i, (p, g) in enumerate(zip(parameters, gradient, strict=True)):
                g = g * min(1.0, CLIP / norm)
                m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g
                p.sub_(rate * (m[i] / (1 - 0.9**step)) / ((v[i] / (1 - 0.999**step)).sqrt() + 1e-8))
        losses.append(float(loss.detach()))
        tokens += sum(len(item.ids) for item in batch)
    assert (trained.steps, trained.tokens) == (6, tokens)
    assert trained.loss_first == pytest.approx(sum(losses[:3]) / 3, abs=1e-5)
    assert trained.loss_last == pytest.approx(sum(losses[3:]) / 3, abs=1e-5)
    difference = ours.extract().minus(theirs.extract()).norm() / theirs.extract().norm()
    assert difference <= 1e-3, difference


class _Steep:
    """A task whose gradient is a given number on every parameter."""

    def __init__(self, parameters: list[nn.Parameter], slope: float) -> None:
        self.parameters, self.slope = parameters, slope

    def loss(self, adapted: AdaptedModel, items: Any) -> Tensor:
        slope = torch.stack([p.sum() for p in self.parameters]).sum() * self.slope
        return slope - slope.detach() + 1.0


def test_the_gradient_is_clipped_at_one_over_all_parameters_together(adapted: Opener) -> None:
    """After one step with gradient g everywhere, Adam's first moment would be .1·g; clipped it has
    norm .1.
    """
    b = adapted()
    for slope, expected in ((100.0, 0.1), (1e-4, None)):
        parameters = b.attach(2, 0)
        count = sum(p.numel() for p in parameters)
        seen: list[torch.optim.Optimizer] = []
        handle = register_optimizer_step_post_hook(lambda o, *_, s=seen: s.append(o))
        try:
            train(b, _Steep(parameters, slope), parameters, iter([[Item((1,), (1,))]]), [1e-3], "x")  # type: ignore[arg-type]
        finally:
            handle.remove()
        moments = [seen[0].state[p]["exp_avg"] for p in parameters]
        norm = math.sqrt(sum(float(m.square().sum()) for m in moments))
        assert norm == pytest.approx(expected or 0.1 * 1e-4 * math.sqrt(count), rel=1e-4)


def test_masters_are_float32_over_a_bfloat16_base(adapted: Opener) -> None:
    """Steps of 1e-5 on factors near 0.1: bfloat16, 2⁻⁸ relative, would lose each one (≥ 4e-4 apart
    there).
    """
    b = adapted(dtype=torch.bfloat16)
    task, items = items_of(b, "causal")
    parameters = b.attach(4, 0)
    assert {p.dtype for p in parameters} == {torch.float32}
    layer = next(iter(b.layers.values()))
    assert layer.weight.dtype == torch.bfloat16
    assert layer.a is not None
    with torch.no_grad():
        for other in b.layers.values():
            assert other.b is not None
            other.b.fill_(0.1)  # so that A has a gradient
    before = layer.a.detach().clone()
    train(b, task, parameters, batches(items, 2, 0), [1e-5] * 8, "x")
    moved = (layer.a.detach() - before).abs()
    assert 1e-5 <= float(moved.max()) <= 8.1e-5  # Adam moves by at most about the rate a step
    big = before.abs() > 0.05
    lost = (before[big] + 1e-5).bfloat16() == before[big].bfloat16()
    assert float(lost.float().mean()) > 0.9
    assert float(moved[big].median()) > 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["causal", "classification"])
def test_fresh_factors_give_exactly_the_bases_output(
    adapted: Opener, kind: str, dtype: torch.dtype
) -> None:
    b = adapted(kind, dtype)
    ids, mask = (
        torch.tensor([[3, 9, 12, 20], [5, 7, 0, 0]]),
        torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
    )
    ask = b.token_logits if kind == "causal" else b.class_logits
    with torch.inference_mode():
        before = ask(ids, mask)
        b.attach(4, 1)
        assert torch.equal(ask(ids, mask), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_holding_nothing_again_gives_back_the_weights_bit_for_bit(
    adapted: Opener, dtype: torch.dtype
) -> None:
    b = adapted("classification", dtype)
    before = {name: layer.weight.clone() for name, layer in b.layers.items()}
    head = {name: tensor.clone() for name, tensor in b.head.items()}
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    entries: dict[str, Any] = {n: Factored(noise(32, 3), noise(3, 32)) for n in b.layers}
    entries |= {n: Dense(noise(*tensor.shape)) for n, tensor in b.head.items()}
    b.fold_in(Update(entries, b.spec))
    assert not any(torch.equal(before[n], layer.weight) for n, layer in b.layers.items())
    assert not any(torch.equal(head[n], tensor) for n, tensor in b.head.items())
    b.fold_in(zero(b.spec))
    assert all(torch.equal(before[n], layer.weight) for n, layer in b.layers.items())
    assert all(torch.equal(head[n], tensor) for n, tensor in b.head.items())


def test_documents_fill_blocks_without_padding_and_lose_no_token(adapted: Opener) -> None:
    b = adapted()
    _, items = items_of(b, "causal")
    words = [len(t.split()) for t in TEXTS]  # one token a word, and an end token a text
    assert sum(words) == 4 + 5 + 2 + 7 + 2
    assert [len(item.ids) for item in items] == [8, 8, 8, 1][
        :3
    ]  # 25 tokens; a block of one token teaches nothing
    assert all(item.ids == item.target for item in items)
    end = b.base.tokenizer.eos_token_id
    flat = [i for item in items for i in item.ids]
    assert flat.count(end) == 4
    assert flat[4] == flat[10] == flat[13] == flat[21] == end


def test_only_the_response_is_learnt_and_what_is_cut_is_counted(adapted: Opener) -> None:
    """Counted by hand: prompt 3, response 2 + end = 6 tokens; the second has prompt 5, response 4 +
    end = 10: its prompt loses 2.
    """
    b = adapted()
    task = Causal(b.base.tokenizer, 8)
    first = Example("the pump was", response="very loud")
    second = Example("my nurse today was really", response="calm and kind again")
    items, counts = task.encode([first, second], "x")
    assert counts == Counts(cut=1)
    end = b.base.tokenizer.eos_token_id
    ids = b.base.tokenizer.convert_tokens_to_ids
    assert [len(item.ids) for item in items] == [6, 8]
    assert items[0].target == (IGNORE, IGNORE, IGNORE, *ids(["very", "loud"]), end)
    assert items[1].ids[:3] == tuple(ids(["today", "was", "really"]))
    assert items[1].target == (IGNORE, IGNORE, IGNORE, *ids(["calm", "and", "kind", "again"]), end)
    assert task.losses(b, items).terms.tolist() == [3.0, 5.0]
    with torch.no_grad():
        logits = [b.model(input_ids=torch.tensor([i.ids])).logits[0].log_softmax(-1) for i in items]
        right = [
            -float(logits[k][p - 1, items[k].ids[p]])
            for k in (0, 1)
            for p in range(3, len(items[k].ids))
        ]
        assert float(task.loss(b, items)) == pytest.approx(sum(right) / 8, abs=1e-5)


def test_padding_changes_no_loss(adapted: Opener) -> None:
    for kind in ("causal", "classification"):
        b = adapted(kind)
        task, items = items_of(b, kind)
        with torch.no_grad():
            assert float(task.loss(b, items)) == pytest.approx(
                float(by_hand(b, kind, items)), abs=1e-5
            )
        assert task.losses(b, items).scores().loss == pytest.approx(
            float(by_hand(b, kind, items)), abs=1e-5
        )


def test_batches_are_the_same_for_a_seed_and_give_each_item_once_an_epoch(adapted: Opener) -> None:
    items = [Item((i,) * (i % 5 + 1), (i,)) for i in range(23)]
    one, two = batches(items, 4, 1), batches(items, 4, 1)
    epoch = list(islice(one, 6))
    assert epoch == list(islice(two, 6))
    assert sorted(i.ids[0] for batch in epoch for i in batch) == list(range(23))
    assert list(islice(batches(items, 4, 2), 6)) != epoch


def test_a_loss_that_is_not_a_number_is_an_error_with_advice(adapted: Opener) -> None:
    b = adapted()
    task, items = items_of(b, "causal")
    name = next(n for n in b.layers if n.endswith("v_proj"))
    b.fold_in(Update({name: Dense(torch.full(b.shapes[name], float("nan")))}, b.spec))
    with refused(TrainingError, "diverged") as caught:
        train(b, task, b.attach(4, 0), batches(items, 2, 0), [1e-3], "ana")
    assert caught.value.reason == Reason("diverged", {"loss": "nan", "step": 1})
    assert "Lower [train] learning_rate" in caught.value.fix


def test_a_loss_that_explodes_is_an_error_though_only_the_first_was_small(adapted: Opener) -> None:
    """With a rate of 1000 the second loss is in the thousands already: what counts is the one
    before any step.
    """
    b = adapted("classification")
    task, items = items_of(b, "classification")
    with pytest.raises(TrainingError) as caught:
        train(b, task, b.attach(4, 0), batches(items, 2, 0), [1e3] * 20, "ana")
    assert caught.value.reason is not None
    assert caught.value.reason.code == "loss-rose"
    assert caught.value.reason.facts["first"] == pytest.approx(
        0.69, abs=0.1
    )  # ln 2 = 0.69 with two classes
