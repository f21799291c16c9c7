"""The same weights are the same base, wherever they came from; and records written before still
open.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from families import DECODERS, ENCODERS, make
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.base import load_base
from tequio.participant.base_digest import digest_parameters


def digest(
    name: Path | str, cache: Path, dtype: torch.dtype = torch.float32, kind: Any = "causal"
) -> str:
    return load_base(str(name), kind, dtype, cache).digest


def saved(source: Path, target: Path, dtype: torch.dtype = torch.float32, **settings: Any) -> Path:
    """The same model, saved again."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(source, dtype=dtype).save_pretrained(target, **settings)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)
    return target


def in_the_hub(folder: Path, home: Path, name: str = "acme/tiny") -> str:
    """A copy in the hub's cache, as a download leaves it."""
    repository = home / f"models--{name.replace('/', '--')}"
    revision = "0123456789abcdef0123456789abcdef01234567"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    shutil.copytree(folder, repository / "snapshots" / revision)
    return name


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home))
    return home


def test_one_file_shards_and_a_hub_id_are_one_base(
    tiny_llama: Path, hub: Path, tmp_path: Path
) -> None:
    expected = digest(tiny_llama, tmp_path)
    shards = saved(tiny_llama, tmp_path / "shards", max_shard_size="20KB")
    assert len(list(shards.glob("*.safetensors"))) > 2
    assert digest(shards, tmp_path) == expected
    assert digest(in_the_hub(tiny_llama, hub), tmp_path) == expected
    assert digest(in_the_hub(shards, hub, "acme/shards"), tmp_path) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_digest_does_not_depend_on_the_precision_of_training(
    tiny_llama: Path, dtype: torch.dtype, tmp_path: Path
) -> None:
    assert digest(tiny_llama, tmp_path, dtype) == digest(tiny_llama, tmp_path, torch.float32)


@pytest.mark.parametrize("narrow", [torch.bfloat16, torch.float16])
def test_equal_values_in_another_precision_are_the_same_base(
    tiny_llama: Path, narrow: torch.dtype, tmp_path: Path
) -> None:
    short = saved(tiny_llama, tmp_path / "short", narrow)
    wide = saved(short, tmp_path / "wide", torch.float32)
    assert load_file(wide / "model.safetensors")["model.norm.weight"].dtype == torch.float32
    assert (
        digest(short, tmp_path) == digest(wide, tmp_path) == digest(short, tmp_path, torch.bfloat16)
    )
    assert digest(short, tmp_path) != digest(tiny_llama, tmp_path)  # its values were rounded


def test_names_values_and_shapes_count(tiny_llama: Path, tmp_path: Path) -> None:
    expected = digest(tiny_llama, tmp_path)
    copy = Path(shutil.copytree(tiny_llama, tmp_path / "copy"))
    tensors = load_file(copy / "model.safetensors")
    one, two = (f"model.layers.{i}.self_attn.q_proj.weight" for i in (0, 1))
    save_file(
        tensors | {one: tensors[two], two: tensors[one]},
        copy / "model.safetensors",
        metadata={"format": "pt"},
    )
    assert digest(copy, tmp_path) != expected
    tensors[one][0, 0] += 1e-6
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert digest(copy, tmp_path) != expected


def test_what_no_task_reads_does_not_count(tmp_path: Path) -> None:
    folder = make(tmp_path / "base", ENCODERS["bert"])
    expected = digest(folder, tmp_path, kind="classification")
    tensors = load_file(folder / "model.safetensors")
    retained = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    assert len(retained) < len(tensors)
    save_file(
        retained | {"cls.bias": torch.ones(3)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    assert digest(folder, tmp_path, kind="classification") == expected


def write_gguf(source: Path, target: Path, kind: str) -> Path:
    """The tiny Llama as llama.cpp writes it: query and key rows in its own order, norms in
    float32.
    """
    import gguf
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source)
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    writer = gguf.GGUFWriter(str(target), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(groups)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // heads)
    writer.add_vocab_size(config.vocab_size)
    words = ["<unk>", "<s>", "</s>", *(f"▁w{i}" for i in range(3, config.vocab_size))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([-float(i) for i in range(len(words))])
    writer.add_token_types([2, 3, 3] + [1] * (len(words) - 3))
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    types = gguf.GGMLQuantizationType
    for name, tensor in load_file(source / "model.safetensors").items():
        value = tensor.float()
        count = heads if "q_proj" in name else groups if "k_proj" in name else 0
        if count:
            value = value.reshape(count, 2, value.shape[0] // count // 2, value.shape[1]).swapaxes(
                1, 2
            )
            value = value.reshape(tensor.shape)
        new = names.get_name(name, try_suffixes=(".weight",))
        assert new is not None
        chosen = types.F32 if value.dim() == 1 else types[kind]
        data = gguf.quants.quantize(value.numpy(), chosen)
        writer.add_tensor(new, data, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("F32", torch.float32), ("F16", torch.float16), ("BF16", torch.bfloat16), ("Q8_0", None)],
)
def test_a_gguf_file_without_quantised_tensors_is_the_same_base(
    tiny_llama: Path, kind: str, dtype: torch.dtype | None, tmp_path: Path
) -> None:
    pytest.importorskip("gguf")
    from transformers import AutoTokenizer

    folder = saved(tiny_llama, tmp_path / "folder", dtype or torch.float32)
    file = write_gguf(folder, tmp_path / "tiny.gguf", kind)
    assert digest(file, tmp_path / "cache") != digest(
        folder, tmp_path / "cache"
    )  # another tokenizer is in it
    AutoTokenizer.from_pretrained(tmp_path, gguf_file=file.name).save_pretrained(folder)
    same = digest(file, tmp_path / "cache") == digest(folder, tmp_path / "cache")
    assert same == (dtype is not None)


TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def retokenised(folder: Path, target: Path, change: Callable[[Any], Any]) -> Path:
    """The base with another tokenizer.json, as `change` makes it."""
    copy = Path(shutil.copytree(folder, target))
    path = copy / "tokenizer.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    return copy


def swapped(table: Any) -> Any:
    """Two words of the vocabulary in each other's place."""
    vocabulary = table["model"]["vocab"]
    one, two = sorted(vocabulary, key=lambda token: -vocabulary[token])[:2]
    vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
    return table


def uncased(table: Any) -> Any:
    """The same vocabulary; letters become small first."""
    return table | {"normalizer": {"type": "Lowercase"}}


def marked(table: Any) -> Any:
    """The same vocabulary; a text begins with a special token."""
    single = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    tokens = {"[CLS]": {"id": "[CLS]", "ids": [3], "tokens": ["[CLS]"]}}
    return table | {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": single,
            "special_tokens": tokens,
        }
    }


@pytest.mark.parametrize("change", [swapped, uncased, marked])
def test_another_tokenizer_is_another_base(
    tiny_llama: Path, change: Callable[[Any], Any], tmp_path: Path
) -> None:
    expected = digest(tiny_llama, tmp_path)
    assert (
        digest(retokenised(tiny_llama, tmp_path / "same", lambda table: table), tmp_path)
        == expected
    )
    assert digest(retokenised(tiny_llama, tmp_path / "other", change), tmp_path) != expected


def test_special_tokens_count_and_the_template_for_a_causal_task_only(
    tmp_path: Path, tiny_bert: Path
) -> None:
    folder = make(tmp_path / "base", DECODERS["llama"])
    expected = digest(folder, tmp_path)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    with_template = digest(folder, tmp_path)
    (folder / "chat_template.jinja").write_text(TEMPLATE + "!")
    table = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(table | {"eos_token": table["unk_token"]})
    )
    assert len({expected, with_template, digest(folder, tmp_path)}) == 3
    encoder = Path(shutil.copytree(tiny_bert, tmp_path / "bert"))
    expected = digest(encoder, tmp_path, kind="classification")
    (encoder / "chat_template.jinja").write_text(TEMPLATE)
    assert digest(encoder, tmp_path, kind="classification") == expected


# records of versions before


def test_a_record_with_the_tensors_alone_gets_their_digest(
    tiny_llama: Path, tmp_path: Path
) -> None:
    """Whatever the tokenizer, as it was then."""
    now = load_base(str(tiny_llama), "causal", torch.float32, tmp_path)
    recorded = digest_parameters(now.model)
    assert recorded.startswith("tensors:")
    other = retokenised(tiny_llama, tmp_path / "other", uncased)
    for folder in (tiny_llama, other):
        for dtype in (torch.float32, torch.bfloat16):
            assert (
                load_base(str(folder), "causal", dtype, tmp_path, recorded=recorded).digest
                == recorded
            )
    assert (
        load_base(str(other), "causal", torch.float32, tmp_path, recorded=now.digest).digest
        != now.digest
    )


def before(folder: Path) -> str:
    """The digest that those versions recorded for a folder."""
    sha = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        sha.update(hashlib.sha256(file.read_bytes()).hexdigest().encode())
    return sha.hexdigest()


def test_a_base_gets_the_digest_that_a_record_has_of_it(
    tiny_llama: Path, hub: Path, tmp_path: Path
) -> None:
    recorded = before(tiny_llama)
    again = load_base(str(tiny_llama), "causal", torch.float32, tmp_path, recorded=recorded)
    assert again.digest == recorded
    now = load_base(str(tiny_llama), "causal", torch.float32, tmp_path)
    assert AdaptedModel(again, ["q_proj"], 2.0).spec != AdaptedModel(now, ["q_proj"], 2.0).spec
    name = in_the_hub(tiny_llama, hub)
    state = load_base(name, "causal", torch.bfloat16, tmp_path).model.state_dict()
    sha = hashlib.sha256()
    for key, tensor in sorted(state.items()):
        sha.update(key.encode() + tensor.float().numpy().tobytes())
    for dtype in (
        torch.bfloat16,
        torch.float32,
    ):  # exports load in float32 what was trained in bfloat16
        assert (
            load_base(name, "causal", dtype, tmp_path, recorded=sha.hexdigest()).digest
            == sha.hexdigest()
        )


def test_a_base_that_changed_has_neither_digest(tmp_path: Path) -> None:
    folder = make(tmp_path / "base", DECODERS["llama"])
    recorded = before(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert (
        load_base(str(folder), "causal", torch.float32, tmp_path, recorded=recorded).digest
        != recorded
    )
