"""Test that few shapes of matrix products reach a causal model, and that oneDNN keeps those of a
whole step.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.base import PRODUCT_CACHE, PRODUCTS, Kind, best_dtype, load_base
from tequio.participant.data import Example
from tequio.participant.text_tasks import Causal, Item, batches

EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
BATCH, BLOCK = 4, 16
PRODUCT_OPS = (
    "aten::mm",
    "aten::addmm",
    "aten::addmm_",
    "aten::bmm",
    "aten::baddbmm",
    "aten::baddbmm_",
)
# One step twice, with a line before the second.
TWO_STEPS = """
import sys
from tequio.cli.environment import prepare_process
prepare_process()
import torch
from pathlib import Path
from tequio.participant.base import load_base
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.text_tasks import Causal, Item
torch.set_num_threads(1)
adapted = AdaptedModel(load_base(sys.argv[1], "causal", torch.bfloat16, Path(sys.argv[2])), sys.argv[3].split(","), 2.0)
parameters, row = adapted.attach(8, 0), tuple(range(3, 35))
for _ in range(2):
    print("step", flush=True)
    torch.autograd.grad(Causal(adapted.base.tokenizer, 32).loss(adapted, [Item(row, row)] * 4), parameters)
"""


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collect the distinct matrix products: operation, sizes and strides."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: set[tuple[object, ...]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name in PRODUCT_OPS:
            tensors = [a for a in args if isinstance(a, Tensor)]
            self.seen.add((func._schema.name, *((tuple(t.shape), t.stride()) for t in tensors)))
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def shared_keys(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """Make a Llama whose heads share keys, large enough for oneDNN."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 40, "hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 192}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    folder = tmp_path_factory.mktemp("shared-keys")
    config = LlamaConfig(**sizes, **heads, pad_token_id=0, eos_token_id=2, bos_token_id=None)
    LlamaForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(folder)
    return folder


def test_texts_of_many_lengths_reach_a_causal_model_in_few_row_counts(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """Training and evaluation together: only whole blocks, so one row count per number of
    blocks.
    """
    base = load_base(str(tiny_llama), "causal", torch.float32, tmp_path)
    adapted, task = (
        AdaptedModel(base, EVERY, 2.0),
        Causal(base.tokenizer, BLOCK, batch_tokens=BATCH * BLOCK),
    )
    texts = [" ".join(["very"] * (1 + k % 37)) for k in range(80)]
    examples = [
        Example(text, response="good" if k % 3 else "bad again") for k, text in enumerate(texts)
    ]
    assert len({len(text) for text in texts}) == 37
    rows: set[int] = set()

    def note(_module: nn.Module, inputs: tuple[Tensor, ...], _out: Tensor) -> None:
        rows.add(inputs[0].numel())

    base.model.model.embed_tokens.register_forward_hook(note)  # type: ignore[union-attr]
    parameters = adapted.attach(2, 0)
    for people in (examples, examples[:31], examples[7:52]):
        items, _ = task.encode(people, "x")
        stream = batches(items, BATCH, 0)
        for _ in range(12):
            torch.autograd.grad(task.loss(adapted, next(stream)), parameters)
        task.losses(adapted, items)
    assert rows <= {k * BLOCK for k in range(1, BATCH + 1)}, rows


def test_the_products_of_a_step_and_of_evaluation_fit_what_onednn_keeps(
    shared_keys: Path, tmp_path: Path
) -> None:
    """With adapters on all linear layers and keys shared by heads, which makes the most shapes."""
    base = load_base(str(shared_keys), "causal", torch.float32, tmp_path)
    adapted, task = AdaptedModel(base, EVERY, 2.0), Causal(base.tokenizer, 32)
    parameters, row = adapted.attach(8, 0), tuple(range(3, 35))
    item = Item(row, row)
    with Products() as products:
        torch.autograd.grad(task.loss(adapted, [item] * BATCH), parameters)
        step = len(products.seen)
        task.losses(adapted, [item] * 3 * BATCH)
    assert PRODUCTS["classification"] < step < len(products.seen) <= PRODUCTS["causal"]


@pytest.mark.parametrize(
    ("kind", "own"), [("causal", None), ("classification", None), ("causal", "7")]
)
def test_loading_a_base_sets_how_many_products_are_cached(
    tiny_bert: Path,
    tiny_llama: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Kind,
    own: str | None,
) -> None:
    monkeypatch.setenv(PRODUCT_CACHE, own or "")
    if own is None:
        monkeypatch.delenv(PRODUCT_CACHE)
    load_base(str(tiny_llama if kind == "causal" else tiny_bert), kind, torch.float32, tmp_path)
    assert os.environ[PRODUCT_CACHE] == (own or str(PRODUCTS[kind]))


@pytest.mark.skipif(
    best_dtype() != torch.bfloat16 or torch.cuda.is_available(),
    reason="oneDNN computes in bfloat16",
)
@pytest.mark.parametrize("cached", [None, PRODUCTS["classification"]])
def test_a_second_step_prepares_no_product(
    shared_keys: Path, tmp_path: Path, cached: int | None
) -> None:
    """By oneDNN's own log; with as few as for classification it prepares them all the time."""
    environment = {name: value for name, value in os.environ.items() if name != PRODUCT_CACHE}
    environment |= {"ONEDNN_VERBOSE": "profile_create"} | (
        {} if cached is None else {PRODUCT_CACHE: str(cached)}
    )
    command = [sys.executable, "-c", TWO_STEPS, str(shared_keys), str(tmp_path), ",".join(EVERY)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    _, first, second = done.stdout.split("step\n")
    assert "cache_miss" in first
    assert "cache_hit" in second
    assert ("cache_miss" in second) == (cached is not None)
