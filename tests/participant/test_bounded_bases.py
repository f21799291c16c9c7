"""A base that somebody else chose cannot hang its reader or fill its memory: each try is one error
that names it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from builders import refused
from tequio.core.errors import BaseModelError, DataError
from tequio.participant.base import load_base, model_shape
from tequio.participant.base_files import digest_base_files
from tequio.participant.base_sizes import check_counts
from tequio.participant.data import Columns, read_examples


@pytest.fixture
def llama(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "base"))


def load(folder: Path) -> Any:
    return load_base(str(folder), "causal", torch.float32, folder.parent / "cache")


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"num_hidden_layers": 10**8}, "num_hidden_layers = 100,000,000"),
        ({"num_hidden_layers": 10.0**300}, "num_hidden_layers"),
        ({"text_config": {"num_layers": 10**8}}, "num_layers = 100,000,000"),
        ({"attention_types": [[["global", "local"], 10**9]]}, "attention_types = 1,000,000,000"),
        ({"num_hidden_layers": 4000, "num_local_experts": 16000}, "layers × experts = 64,000,000"),
    ],
)
def test_more_parts_than_any_model_has_are_refused_before_any_is_built(
    llama: Path, values: Any, words: str, tmp_path: Path
) -> None:
    change(llama, **values)
    for read in (
        lambda: load(llama),
        lambda: model_shape(str(llama), "causal", ["q_proj"], torch.float32, tmp_path),
    ):
        with refused(BaseModelError, "base-unlikely", name=str(llama)) as caught:
            read()
        assert words in str(caught.value)
        assert str(llama) in str(caught.value)


def test_real_shapes_are_within_the_bounds() -> None:
    """Those of DeepSeek V3, Llama 3.1 405B, GPT-Neo 2.7B and a Qwen2-VL."""
    check_counts(
        "deepseek", {"num_hidden_layers": 61, "n_routed_experts": 256, "num_attention_heads": 128}
    )
    check_counts(
        "llama", {"num_hidden_layers": 126, "max_position_embeddings": 131072, "vocab_size": 128256}
    )
    check_counts(
        "neo", {"attention_types": [[["global", "local"], 16]], "attention_layers": ["global"] * 32}
    )
    check_counts(
        "qwen",
        {
            "vision_config": {"depth": 32, "embed_dim": 1280},
            "max_window_layers": 80,
            "head_dim": 128,
        },
    )


@pytest.mark.parametrize("values", [{"vocab_size": 10**9}, {"intermediate_size": 10**8}])
def test_a_model_far_larger_than_its_files_is_refused_before_memory_is_taken(
    llama: Path, values: Any
) -> None:
    change(llama, **values)
    with refused(BaseModelError, "base-larger-than-files", name=str(llama)):
        load(llama)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
)
def test_a_pipe_in_place_of_a_file_of_the_base_is_named(llama: Path, name: str) -> None:
    (llama / name).unlink(missing_ok=True)
    os.mkfifo(llama / name)
    with pytest.raises(BaseModelError, match=rf"{name} cannot be read \(it is a named pipe"):
        load(llama)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("chat_template.jinja", 1_800_000_000),
        ("tokenizer.json", 1 << 40),
        ("additional_chat_templates/x.jinja", 1 << 30),
    ],
)
def test_a_file_of_a_base_larger_than_any_is_not_read(llama: Path, name: str, size: int) -> None:
    (llama / name).parent.mkdir(exist_ok=True)
    with (llama / name).open("wb") as stream:
        stream.truncate(size)  # sparse
    with pytest.raises(BaseModelError, match=f"{size:,} bytes, and at most"):
        load(llama)


def test_the_digest_of_a_bases_files_is_that_of_all_that_can_be_read(llama: Path) -> None:
    before = digest_base_files(llama)
    (llama / "README.md").write_text("words")
    assert digest_base_files(llama) == before
    tensors = load_file(llama / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, llama / "model.safetensors")
    after = digest_base_files(llama)
    (llama / "added_tokens.json").write_text("{}")
    assert len({before, after, digest_base_files(llama)}) == 3


@pytest.mark.parametrize("path", ["pipe.jsonl", "/dev/zero"])
def test_data_that_are_no_ordinary_file_are_named(tmp_path: Path, path: str) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    with refused(DataError, "unreadable"):
        read_examples(tmp_path / path, Columns(), "causal", (), "[gate] slices, a")
