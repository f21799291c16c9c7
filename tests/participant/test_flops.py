"""The FLOPs that a plan counts from shapes, against those that torch counts in a model of
transformers with peft's adapters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel, AutoModelForCausalLM

from tequio.participant.base import Kind, best_device, model_shape
from tequio.planning.flops import forward, training

LENGTH, ROWS = 16, 4


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft and transformers about each other
@pytest.mark.parametrize("rank", [2, 8])
@pytest.mark.parametrize("kind", ["classification", "causal"])
def test_within_two_per_cent(
    tiny_bert: Path, tiny_llama: Path, tmp_path: Path, kind: Kind, rank: int
) -> None:
    folder, modules = (
        (tiny_llama, ["q_proj", "v_proj"]) if kind == "causal" else (tiny_bert, ["query", "value"])
    )
    shape = model_shape(str(folder), kind, modules, torch.float32, tmp_path)
    loader: Any = AutoModelForCausalLM if kind == "causal" else AutoModel
    model = loader.from_pretrained(folder, attn_implementation="eager")
    adapted: Any = get_peft_model(
        model.to(best_device()), LoraConfig(r=rank, target_modules=modules)
    )
    ids = torch.randint(5, 30, (ROWS, LENGTH), device=best_device())
    with FlopCounterMode(display=False) as first:
        out = adapted(input_ids=ids)
        loss = (out.logits if kind == "causal" else out.last_hidden_state).float().square().mean()
    assert first.get_total_flops() == pytest.approx(
        forward(shape, LENGTH, rank) * ROWS * LENGTH, rel=0.02
    )
    with FlopCounterMode(display=False) as second:
        loss.backward()
    both = first.get_total_flops() + second.get_total_flops()
    assert both == pytest.approx(training(shape, LENGTH, rank) * ROWS * LENGTH, rel=0.02)
