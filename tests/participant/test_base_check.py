"""Bases as people have them: each problem gives one clear error, or is handled and noted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import builders
from builders import tokenizer
from families import BERT, DECODERS, ENCODERS, LLAMA, make
from tequio.core.errors import BaseModelError
from tequio.participant.base import load_base, model_shape
from tequio.participant.module_names import choose_layers

GPT2, T5 = DECODERS["gpt2"], ENCODERS["t5"]


def load(folder: Path, kind: Any = "causal") -> Any:
    return load_base(str(folder), kind, torch.float32, folder.parent / "cache")


def refused(folder: Path, *parts: str, kind: Any = "causal") -> BaseModelError:
    """The one error of a base, which holds these words and says what to do."""
    with pytest.raises(BaseModelError) as caught:
        load(folder, kind)
    assert caught.value.fix
    for part in parts:
        assert part in str(caught.value)
    return caught.value


@pytest.fixture
def llama(tiny_llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_llama, tmp_path / "base"))


@pytest.fixture
def sharded(tiny_llama: Path, tmp_path: Path) -> Path:
    from transformers import AutoModelForCausalLM

    folder = Path(shutil.copytree(tiny_llama, tmp_path / "sharded"))
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(tiny_llama).save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


# positions


@pytest.mark.parametrize(
    ("family", "kind", "limit"),
    [
        ("roberta", "classification", 64),  # 66 with the two that no token uses
        ("xlm-roberta", "classification", 64),
        ("camembert", "classification", 64),
        ("mpnet", "classification", 64),
        ("bert", "classification", 66),
        ("electra", "classification", 66),
        ("opt", "causal", 64),  # its table has two rows more than max_position_embeddings says
        ("gpt2", "causal", 64),
        ("llama", "causal", 66),
    ],
)
def test_the_longest_text_is_what_the_base_can_really_read(
    family: str, kind: Any, limit: int, tmp_path: Path
) -> None:
    base = load(make(tmp_path / "base", (ENCODERS | DECODERS)[family]), kind)
    assert base.max_positions == limit
    ids = torch.full((1, limit), 7)
    out = base.model(input_ids=ids, attention_mask=torch.ones_like(ids))
    assert torch.isfinite(out.logits if kind == "causal" else out.last_hidden_state).all()


# tokenizers


def test_a_tokenizer_that_knows_more_than_the_embeddings_is_refused(llama: Path) -> None:
    words = tokenizer()
    words.add_tokens([f"new{i}" for i in range(12)])
    words.save_pretrained(llama)
    refused(
        llama, f"knows {len(words)} tokens", "embeddings have 40 rows", "resize_token_embeddings"
    )


def test_a_token_of_an_image_beyond_the_embeddings_is_no_obstacle(tmp_path: Path) -> None:
    words = tokenizer()
    rows = len(words)
    words.add_tokens(["<image_soft_token>"], special_tokens=True)  # as Gemma 3 270M has it
    folder = make(
        tmp_path / "base", ("LlamaForCausalLM", LLAMA | {"vocab_size": rows}), lambda: words
    )
    assert load(folder).notes == ()


def without(*roles: str) -> Any:
    words = tokenizer()
    for role in roles:
        setattr(words, role, None)
    return words


def test_a_padding_token_is_chosen_where_there_is_none(tmp_path: Path) -> None:
    base = load(make(tmp_path / "eos", GPT2, lambda: without("pad_token")))
    assert (base.tokenizer.pad_token, base.notes) == ("<eos>", ())
    bare = make(
        tmp_path / "bare",
        ("BertModel", BERT),
        lambda: without("pad_token", "eos_token", "unk_token"),
    )
    base = load(bare, "classification")
    assert base.tokenizer.pad_token_id == 0
    assert "no padding token" in base.notes[0]


def test_a_padding_token_without_a_row_is_replaced(llama: Path) -> None:
    words = tokenizer()
    words.add_tokens([f"filler{i}" for i in range(40 - len(words))])
    words.add_special_tokens({"pad_token": "[PAD]"})
    words.save_pretrained(llama)
    base = load(llama)
    assert base.tokenizer.pad_token_id == base.tokenizer.eos_token_id == 2


def test_an_end_of_text_token_is_chosen_or_missed(llama: Path) -> None:
    without("eos_token").save_pretrained(llama)
    base = load(llama)
    assert base.tokenizer.eos_token == "<eos>"
    assert "no end-of-text token: <eos> is used" in base.notes[0]


def test_without_any_token_that_ends_a_text_a_causal_base_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(WordLevel({"one": 0, "two": 1, "three": 2}, unk_token="one"))
    shape = ("GPT2LMHeadModel", GPT2[1] | {"eos_token_id": None, "bos_token_id": None})
    folder = make(tmp_path / "base", shape, lambda: PreTrainedTokenizerFast(tokenizer_object=raw))
    refused(folder, "no token that ends a text", "eos_token")


def test_a_missing_tokenizer_is_an_error_of_the_base(llama: Path) -> None:
    for file in llama.glob("tokenizer*"):
        file.unlink()
    refused(llama, "cannot be loaded")


# weights


def test_a_missing_shard_is_named(sharded: Path) -> None:
    lost = sorted(sharded.glob("model-*.safetensors"))[1]
    lost.unlink()
    refused(sharded, lost.name, "is missing", "Download the model again")


def test_a_shard_that_was_cut_off_is_named(sharded: Path) -> None:
    cut = sorted(sharded.glob("model-*.safetensors"))[0]
    cut.write_bytes(cut.read_bytes()[:-64])
    refused(sharded, cut.name, "truncated or damaged")


@pytest.mark.parametrize(
    "data", [b"", b"\x08", b"\xff" * 64, b"<html>404 Not Found</html>", b"\x02\0\0\0\0\0\0\0[]"]
)
def test_a_weight_file_of_something_else_is_named(llama: Path, data: bytes) -> None:
    (llama / "model.safetensors").write_bytes(data)
    refused(llama, "model.safetensors", "truncated or damaged", "Download")


@pytest.mark.parametrize("text", ["", "{", '{"weight_map": 3}', "[]"])
def test_a_damaged_index_is_named(sharded: Path, text: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(text)
    refused(sharded, "model.safetensors.index.json is truncated or damaged")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"model_type": "no-such-family"}', '{"model_type": 3}']
)
def test_a_damaged_configuration_is_an_error_of_the_base(llama: Path, text: str) -> None:
    (llama / "config.json").write_text(text)
    refused(llama, "cannot be loaded")
    with pytest.raises(BaseModelError):
        model_shape(str(llama), "causal", ["q_proj"], torch.float32, llama)


def test_sizes_that_do_not_fit_the_weights_are_an_error_of_the_base(llama: Path) -> None:
    edit(llama / "config.json", hidden_size=48)
    refused(llama)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("gptq", "GPTQ"),
        ("awq", "AWQ"),
        ("bitsandbytes", "bitsandbytes"),
        ("fp8", "FP8"),
        ("x", "x"),
    ],
)
def test_a_quantised_checkpoint_is_named_before_any_weight_is_read(
    llama: Path, method: str, said: str
) -> None:
    (llama / "model.safetensors").write_bytes(b"not read")
    edit(llama / "config.json", quantization_config={"quant_method": method, "bits": 4})
    refused(llama, f"quantised with {said}", "unquantised", "GGUF")
    with pytest.raises(BaseModelError, match="quantised"):
        model_shape(str(llama), "causal", ["q_proj"], torch.float32, llama)


@pytest.mark.parametrize(
    ("ending", "said"), [("qweight", "GPTQ or AWQ"), ("weight.absmax", "bitsandbytes")]
)
def test_quantised_tensors_without_a_word_in_the_configuration(
    llama: Path, ending: str, said: str
) -> None:
    tensors = load_file(llama / "model.safetensors")
    tensors[f"model.layers.0.self_attn.q_proj.{ending}"] = torch.zeros(4, dtype=torch.int32)
    save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
    refused(llama, said)


def test_a_model_with_code_of_its_own_is_refused(llama: Path) -> None:
    edit(
        llama / "config.json",
        model_type="own",
        auto_map={"AutoConfig": "configuration_own.OwnConfig"},
    )
    refused(llama, "code that comes with the model")


# modules


@pytest.mark.parametrize(
    ("family", "kind", "name", "near"),
    [
        ("gpt2", "causal", "q_proj", "c_attn"),
        ("bert", "classification", "q_proj", "query"),
        ("bert", "classification", "v_proj", "value"),
        ("t5", "classification", "query", "q"),
        ("llama", "causal", "qproj", "q_proj"),
        ("llama", "causal", "query", "q_proj"),
        ("gpt_neox", "causal", "c_attn", "query_key_value"),
    ],
)
def test_a_name_that_is_not_there_gets_the_nearest(
    family: str, kind: Any, name: str, near: str, tmp_path: Path
) -> None:
    model = load(make(tmp_path / "base", (ENCODERS | DECODERS)[family]), kind).model
    with builders.refused(BaseModelError, "modules-unknown", missing=[name], nearest=[near]):
        choose_layers(model, [name])


def test_the_words_are_read_in_the_configuration(make_federation: Any, tiny_bert: Path) -> None:
    from tequio.app.assembly.build import build
    from tequio.config import load_federation

    path = make_federation(adapter={"modules": "attention"})
    assert 'modules = "attention"' in path.read_text()
    config = load_federation(path)
    assert config.adapter.modules == ["attention"]
    layers = build(config).adapted.layers
    assert {name.rsplit(".", 1)[-1] for name in layers} == {"query", "key", "value", "dense"}
    assert all(".attention." in name for name in layers)
