"""The base model: what is loaded, its digest, and its sizes without weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from builders import refused
from tequio.core.errors import BaseModelError
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.base import load_base, model_shape
from tequio.participant.fused.loss import cells


@pytest.mark.parametrize("kind", ["causal", "classification"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_base_is_frozen_and_says_what_it_is(
    kind: Any, dtype: torch.dtype, tiny_bert: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    base = load_base(str(tiny_llama if kind == "causal" else tiny_bert), kind, dtype, tmp_path)
    parameters = list(base.model.parameters())
    assert not any(p.requires_grad for p in parameters)
    assert {p.dtype for p in parameters} == {dtype} == {base.dtype}
    assert not base.model.training
    assert base.parameters == sum(p.numel() for p in parameters)
    assert (base.hidden, base.max_positions) == (32, 64)
    assert base.tokenizer.pad_token_id == 0


def test_the_digest_is_of_the_weights_not_of_the_folder(tiny_bert: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(tiny_bert, tmp_path / "copy"))

    def digest() -> str:
        return load_base(str(copy), "classification", torch.float32, tmp_path).digest

    original = load_base(str(tiny_bert), "classification", torch.float32, tmp_path).digest
    assert original.startswith("base:")
    assert len(original) == len("base:") + 64
    (copy / "README.md").write_text("words")
    assert digest() == original
    tensors = load_file(copy / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][1, 1] += 1e-3
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert digest() != original


def test_the_sizes_without_weights_are_those_with_them(tiny_llama: Path, tmp_path: Path) -> None:
    """Two layers; q is 32 × 32, v is 16 × 32 (one key head of two), so 64 + 48 a rank and layer."""
    modules = ["q_proj", "v_proj"]
    shape = model_shape(str(tiny_llama), "causal", modules, torch.bfloat16, tmp_path)
    base = load_base(str(tiny_llama), "causal", torch.bfloat16, tmp_path)
    assert shape.parameters == base.parameters
    assert (shape.layers, shape.hidden, shape.vocabulary, shape.bytes_per_parameter) == (
        2,
        32,
        40,
        2,
    )
    assert sorted(shape.adapted) == [(16, 32), (16, 32), (32, 32), (32, 32)]
    assert sorted(AdaptedModel(base, modules, 2.0).shapes.values()) == sorted(shape.adapted)
    assert shape.loss_cells == cells(40, base.device)
    trained_output = model_shape(str(tiny_llama), "causal", ["lm_head"], torch.bfloat16, tmp_path)
    assert trained_output.loss_cells is None  # then logits are made whole


def test_a_path_that_is_not_there_is_not_taken_for_an_id(tmp_path: Path) -> None:
    with refused(BaseModelError, "base-folder-missing"):
        load_base("./models/bart", "classification", torch.float32, tmp_path)
    with refused(BaseModelError, "base-file-missing", path="x.gguf"):
        load_base("x.gguf", "causal", torch.float32, tmp_path)


def test_a_causal_head_that_an_encoder_lacks_is_not_made_up(
    tiny_bert: Path, tmp_path: Path
) -> None:
    with refused(BaseModelError, "base-incomplete"):
        load_base(str(tiny_bert), "causal", torch.float32, tmp_path)
