"""The layers of Tequio's own are not slower than transformers' code: a ratio within one run, wide
enough for a busy machine.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.base import best_dtype, load_base
from tequio.participant.fused.select import Path as Way
from tequio.participant.text_tasks import Causal, Item

MOST = 1.2


def test_a_step_takes_no_longer_than_through_transformers(tiny_llama: Path, tmp_path: Path) -> None:
    """Least processor time of six steps each, in turns, one thread."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    heads = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    sizes = {
        "vocab_size": 8192,
        "hidden_size": 256,
        "num_hidden_layers": 2,
        "intermediate_size": 512,
    }
    LlamaForCausalLM(LlamaConfig(**sizes, **heads)).save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(tmp_path / "model")
    base = load_base(str(tmp_path / "model"), "causal", best_dtype(), tmp_path)
    adapted = AdaptedModel(base, ["q_proj", "v_proj"], 2.0)
    ours = adapted.path
    assert ours.layers is not None, ours.why
    parameters, task = adapted.attach(8, 0), Causal(base.tokenizer, 64)
    ids = [tuple(range(k, k + 64)) for k in range(4)]
    batch = [Item(row, row) for row in ids]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {"ours": [], "plain": []}
    for _ in range(7):
        for name, way in (("ours", ours), ("plain", Way(None, "plain"))):
            adapted.path = way
            begin = time.thread_time()
            torch.autograd.grad(task.loss(adapted, batch), parameters)
            found[name].append(time.thread_time() - begin)
    torch.set_num_threads(threads)
    ratio = min(found["ours"][1:]) / min(found["plain"][1:])  # the first step warms up
    print(f"ours ÷ transformers: {ratio:.2f}")
    assert ratio <= MOST
