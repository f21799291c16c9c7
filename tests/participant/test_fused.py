"""The layers of Tequio's own against transformers' code: losses and gradients, in float32 to
rounding, in bfloat16 as near as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tequio.core.update import Factored, Update
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.base import load_base
from tequio.participant.fused import linear
from tequio.participant.fused.loss import cross_entropy
from tequio.participant.fused.select import LONGEST, choose, real_rows
from tequio.participant.fused.select import Path as Way
from tequio.participant.text_tasks import Causal, Classification, Item, TextTask

EVERY = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "qwen2": ["q_proj", "down_proj"],
    "bert": [
        "query",
        "key",
        "value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ],
}
BATCH = [Item((3, 9, 12, 20, 4, 7), (3, 9, 12, 20, 4, 7)), Item((5, 7, 8), (-100, 7, 8))]


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """A Llama with biases, as Qwen2 is, and untied keys."""
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(3)
    sizes = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("bias"):
                p.normal_()
    folder = tmp_path_factory.mktemp("qwen")
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(folder)
    return folder


Opener = Callable[..., tuple[AdaptedModel, TextTask]]


@pytest.fixture
def opened(tiny_bert: Path, tiny_llama: Path, tiny_qwen: Path, tmp_path: Path) -> Opener:
    """open(family, dtype): a bench that holds a shared update and has factors attached, B too; and
    its task.
    """
    folders = {"bert": tiny_bert, "llama": tiny_llama, "qwen2": tiny_qwen}

    def make(family: str, dtype: torch.dtype = torch.float32) -> tuple[AdaptedModel, TextTask]:
        encoder = family == "bert"
        base = load_base(
            str(folders[family]), "classification" if encoder else "causal", dtype, tmp_path
        )
        g = torch.Generator().manual_seed(1)
        head = torch.randn(2, base.hidden, generator=g) if encoder else None
        adapted = AdaptedModel(base, modules_of(base.model, EVERY[family]), 2.0, head)
        held = {
            name: Factored(
                torch.randn(m, 2, generator=g) * 0.1, torch.randn(2, n, generator=g) * 0.1
            )
            for name, (m, n) in adapted.shapes.items()
        }
        adapted.fold_in(Update(dict(held), adapted.spec))
        adapted.attach(4, 0)
        for layer in adapted.layers.values():
            assert layer.b is not None
            layer.b.data.normal_(0.0, 0.1, generator=g)
        if encoder:
            return adapted, Classification(base.tokenizer, ("a", "b"), 16)
        return adapted, Causal(base.tokenizer, 16)

    return make


def modules_of(model: nn.Module, ends: list[str]) -> list[str]:
    return [
        p
        for p, m in model.named_modules()
        if isinstance(m, nn.Linear) and any(p.endswith(e) for e in ends)
    ]


def batch_of(task: TextTask) -> list[Item]:
    return (
        BATCH
        if isinstance(task, Causal)
        else [replace(item, target=(i % 2,)) for i, item in enumerate(BATCH)]
    )


def step(
    adapted: AdaptedModel, task: TextTask, items: list[Item] | None = None
) -> tuple[Tensor, Tensor]:
    """The loss of the batch, and its gradient in one row."""
    parameters = [
        p for layer in adapted.layers.values() for p in (layer.a, layer.b) if p is not None
    ]
    loss = task.loss(adapted, items or batch_of(task))
    return loss.detach(), torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


@pytest.mark.parametrize("family", ["llama", "qwen2", "bert"])
def test_in_float32_loss_and_gradient_are_those_of_transformers(
    opened: Opener, family: str
) -> None:
    adapted, task = opened(family)
    assert adapted.path.layers is not None, adapted.path.why
    loss, gradient = step(adapted, task)
    scored = task.losses(adapted, batch_of(task))
    adapted.path = Way(None, "plain")
    expected, wanted = step(adapted, task)
    assert float((loss - expected).abs()) <= 1e-5
    assert float((gradient - wanted).norm() / wanted.norm()) <= 1e-5
    plain = task.losses(adapted, batch_of(task))
    assert scored.total == pytest.approx(plain.total, abs=1e-5)
    assert (scored.terms == plain.terms).all()


def test_an_encoder_does_not_compute_padding(opened: Opener) -> None:
    """Texts of one to twelve tokens: 80 rows instead of 144, and the same loss and gradient."""
    mask = torch.arange(12)[None] <= torch.arange(12)[:, None]
    rows = real_rows(mask.long())
    assert len(rows) == len(set(rows.tolist())) == 80
    assert set(mask.flatten().nonzero()[:, 0].tolist()) <= set(rows.tolist())
    adapted, task = opened("bert")
    items = [Item(tuple(range(3, 4 + k)), (k % 2,)) for k in range(12)]
    loss, gradient = step(adapted, task, items)
    adapted.path = Way(None, "plain")
    expected, wanted = step(adapted, task, items)
    assert float((loss - expected).abs()) <= 1e-5
    assert float((gradient - wanted).norm() / wanted.norm()) <= 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen2", "bert"])
def test_in_bfloat16_it_is_no_farther_from_float32_than_transformers(
    opened: Opener, family: str
) -> None:
    exact_model, task = opened(family)
    exact_model.path = Way(None, "plain")
    exact, wanted = step(exact_model, task)
    adapted, _ = opened(family, torch.bfloat16)
    loss, gradient = step(adapted, task)
    adapted.path = Way(None, "plain")
    plain, theirs = step(adapted, task)
    limit = 1.5 * float((theirs - wanted).norm()) + 1e-3 * float(wanted.norm())
    assert float((gradient - wanted).norm()) <= limit
    assert float((loss - exact).abs()) <= 2.0 * float((plain - exact).abs()) + 5e-3


def test_the_step_is_the_same_to_the_bit_when_made_again(opened: Opener) -> None:
    adapted, task = opened("llama", torch.bfloat16)
    (loss, gradient), (again, once_more) = step(adapted, task), step(adapted, task)
    assert torch.equal(loss, again)
    assert torch.equal(gradient, once_more)


def test_cross_entropy_in_parts_is_that_of_the_whole() -> None:
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(45, 8, generator=g, requires_grad=True)
    weight = torch.randn(2**19, 8, generator=g)  # so wide that 16 rows go at a time
    target = torch.randint(0, 2**19, (45,), generator=g)
    each = torch.rand(45, generator=g)
    ours = cross_entropy(hidden, weight, target)
    (gradient,) = torch.autograd.grad((ours * each).sum(), hidden)
    theirs = F.cross_entropy(hidden @ weight.T, target, reduction="none")
    (wanted,) = torch.autograd.grad((theirs * each).sum(), hidden)
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert float((gradient - wanted).norm() / wanted.norm()) <= 1e-4  # half a million classes


def test_stacked_factors_are_each_participants_own() -> None:
    """Three participants of two rows each, and the same one by one."""
    g = torch.Generator().manual_seed(0)
    x, gy = torch.randn(6, 5, generator=g), torch.randn(6, 7, generator=g)
    w, bias = torch.randn(7, 5, generator=g), torch.randn(7, generator=g)
    a, b = torch.randn(3, 2, 5, generator=g), torch.randn(3, 7, 2, generator=g)
    layer = linear.Linear(w, bias, a, b, 2.0)
    y, inner = linear.forward(x, layer)
    dx, (da, db) = linear.backward(gy, x, inner, layer)
    for i in range(3):
        part, rows = replace(layer, a=a[i], b=b[i]), slice(2 * i, 2 * i + 2)
        own, retained = linear.forward(x[rows], part)
        own_dx, (own_da, own_db) = linear.backward(gy[rows], x[rows], retained, part)
        for whole, alone in ((y[rows], own), (dx[rows], own_dx), (da[i], own_da), (db[i], own_db)):
            assert torch.allclose(whole, alone, atol=1e-5)


def test_who_goes_the_way_of_transformers(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    adapted, _ = opened("llama")
    config: Any = adapted.model.config
    adapted.detach()
    assert choose(adapted.model).layers is not None
    for key, value, said in (
        ("model_type", "gemma", "type gemma"),
        ("hidden_act", "gelu_new", "activation gelu_new"),
        ("sliding_window", 8, "window of 8"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(config, key, value, raising=False)
            way = choose(adapted.model)
            assert way.layers is None
            assert said in way.why
    with monkeypatch.context() as patch:  # a model that only looks like one of the family
        layer: Any = adapted.model.get_submodule("model.layers.0.mlp")
        patch.setattr(layer, "act_fn", nn.Tanh())
        way = choose(adapted.model)
        assert way.layers is None
        assert "differ" in way.why
    long = torch.zeros(1, LONGEST + 1, dtype=torch.int64)
    assert adapted._layers(long) is None
    adapted.attach_full()
    assert adapted._layers(long[:, :4]) is None


def test_lower_layers_without_adapters_are_not_part_of_the_backward_pass(
    tiny_llama: Path, tmp_path: Path
) -> None:
    base = load_base(str(tiny_llama), "causal", torch.float32, tmp_path)
    adapted = AdaptedModel(base, ["model.layers.1.self_attn.v_proj"], 2.0)
    adapted.attach(2, 0)
    ids = torch.tensor([[3, 4, 5]])
    node: Any = (
        adapted.token_losses(ids, torch.ones_like(ids), ids[:, 1:], ids[:, 1:] > 0).sum().grad_fn
    )
    seen: set[Any] = set()
    todo = [node]
    while todo:
        node = todo.pop()
        seen.add(node)
        todo += [before for before, _ in node.next_functions if before is not None]
    assert sum("_Layer" in type(node).__name__ for node in seen) == 1
