"""What `export` writes gives, with plain peft and transformers and no Tequio, the logits of the
run's own model.

Measured on these models in float32: adapter 9e-8 (causal) and 2e-6 (classification, logits around
10), merged 0.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tequio.core.update import Dense, Factored, Update, is_matrix
from tequio.participant.adapted_model import AdaptedModel, head_at_zero
from tequio.participant.base import load_base
from tequio.participant.export import TOLERANCE, adapter_files, save_merged

LIMIT = 1e-4
IDS, MASK = (
    torch.tensor([[3, 9, 12, 20, 4], [5, 7, 0, 0, 0]]),
    torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]),
)
LABELS = ("bad", "good")


def opened(folder: Path, kind: Any, cache: Path) -> AdaptedModel:
    base = load_base(str(folder), kind, torch.float32, cache)
    if kind == "causal":
        return AdaptedModel(base, ["q_proj", "v_proj", "down_proj"], 2.0)
    return AdaptedModel(base, ["query", "value"], 2.0, head_at_zero(base, 2))


def model_of(adapted: AdaptedModel, form: str) -> Update:
    """Changes as large as the weights: factors, of unequal rank, or whole matrices of rank 3 as a
    shared model may hold.
    """
    generator = torch.Generator().manual_seed(4)
    entries: dict[str, Any] = {}
    for i, (name, (m, n)) in enumerate(sorted(adapted.shapes.items())):
        rank = 3 if form == "dense" else 1 + i % 4
        f = Factored(
            torch.randn(m, rank, generator=generator) * 0.1,
            torch.randn(rank, n, generator=generator) * 0.1,
        )
        entries[name] = Dense(f.value()) if form == "dense" else f
    entries |= {
        name: Dense(torch.randn(*t.shape, generator=generator)) for name, t in adapted.head.items()
    }
    return Update(entries, adapted.spec)


def plain_logits(model: nn.Module, kind: str, folder: Path) -> Tensor:
    """Logits with a plain model; the head is applied as head.json says, in numbers."""
    out = model(input_ids=IDS, attention_mask=MASK)
    if kind == "causal":
        logits: Tensor = out.logits[MASK.bool()]
        return logits
    recipe = json.loads((folder / "head.json").read_text())
    assert recipe["labels"] == list(LABELS)
    assert recipe["pooling"] == "mean of the last hidden states over real tokens, then unit length"
    assert recipe["logits"] == "10 * pooled @ head.weight.T + head.bias"
    head = load_file(folder / "head.safetensors")
    mean = (out.last_hidden_state * MASK[..., None]).sum(1) / MASK.sum(1, keepdim=True)
    pooled = mean / mean.norm(dim=1, keepdim=True)
    scored: Tensor = 10 * pooled @ head["head.weight"].T + head["head.bias"]
    return scored


def ours(adapted: AdaptedModel, kind: str) -> Tensor:
    """At real tokens: what padding says means nothing."""
    return (
        adapted.token_logits(IDS, MASK)[MASK.bool()]
        if kind == "causal"
        else adapted.class_logits(IDS, MASK)
    )


def auto(kind: str) -> Any:
    from transformers import AutoModel, AutoModelForCausalLM

    return AutoModelForCausalLM if kind == "causal" else AutoModel


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # between peft and transformers
@pytest.mark.parametrize("form", ["factors", "dense"])
@pytest.mark.parametrize("kind", ["causal", "classification"])
def test_the_adapter_loads_with_plain_peft(
    kind: str, form: str, tiny_bert: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    folder = tiny_llama if kind == "causal" else tiny_bert
    adapted = opened(folder, kind, tmp_path)
    with torch.inference_mode():
        before = ours(adapted, kind)
        model = model_of(adapted, form)
        adapted.fold_in(model)
        expected = ours(adapted, kind)
    assert float((expected - before).abs().max()) > 100 * LIMIT  # the adapter matters
    for name, data in adapter_files(adapted, model, str(folder), LABELS).items():
        (tmp_path / name).write_bytes(data)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == (3 if form == "dense" else 4)
    assert (tmp_path / "head.safetensors").exists() == (kind == "classification")
    plain = auto(kind).from_pretrained(folder)
    loaded = PeftModel.from_pretrained(plain, str(tmp_path)).eval()
    with torch.inference_mode():
        difference = float((plain_logits(loaded, kind, tmp_path) - expected).abs().max())
    print(f"adapter {kind} {form}: {difference:.2e}")
    assert difference <= LIMIT


@pytest.mark.parametrize("kind", ["causal", "classification"])
def test_the_merged_model_loads_with_plain_transformers(
    kind: str, tiny_bert: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    adapted = opened(tiny_llama if kind == "causal" else tiny_bert, kind, tmp_path)
    model = model_of(adapted, "factors")
    adapted.fold_in(model)
    with torch.inference_mode():
        expected = ours(adapted, kind)
    save_merged(adapted, model, tmp_path / "merged", LABELS)
    plain = auto(kind).from_pretrained(tmp_path / "merged").eval()
    with torch.inference_mode():
        difference = float((plain_logits(plain, kind, tmp_path / "merged") - expected).abs().max())
    print(f"merged {kind}: {difference:.2e}")
    assert difference <= 1e-5
    tokens = AutoTokenizer.from_pretrained(tmp_path / "merged")("the pump was great")["input_ids"]
    assert tokens == adapted.base.tokenizer("the pump was great")["input_ids"]


def test_what_the_tolerance_leaves_out_is_below_it(tiny_llama: Path, tmp_path: Path) -> None:
    """Singular values 1, 1e-3 and 1e-7: the third is left out, so the rank is 2 and the error 1e-7
    of the norm.
    """
    adapted = opened(tiny_llama, "causal", tmp_path)
    generator = torch.Generator().manual_seed(0)
    entries: dict[str, Any] = {}
    for name, (m, n) in adapted.shapes.items():
        u, _ = torch.linalg.qr(torch.randn(m, 3, generator=generator, dtype=torch.float64))
        v, _ = torch.linalg.qr(torch.randn(n, 3, generator=generator, dtype=torch.float64))
        values = torch.tensor([1.0, 1e-3, 1e-7], dtype=torch.float64)
        entries[name] = Factored((u * values).float(), v.T.contiguous().float())
    model = Update(entries, adapted.spec)
    files = adapter_files(adapted, model, "base", ())
    assert json.loads(files["adapter_config.json"])["r"] == 2
    (tmp_path / "a").write_bytes(files["adapter_model.safetensors"])
    flat = load_file(tmp_path / "a")
    back = {
        name: Factored(
            flat[f"base_model.model.{name}.lora_B.weight"],
            flat[f"base_model.model.{name}.lora_A.weight"],
        )
        for name in adapted.shapes
    }
    assert Update(back, adapted.spec).minus(model).norm() <= 5 * TOLERANCE * model.norm()


def test_an_empty_model_exports_as_no_change(tiny_llama: Path, tmp_path: Path) -> None:
    adapted = opened(tiny_llama, "causal", tmp_path)
    files = adapter_files(adapted, Update({}, adapted.spec), "base", ())
    assert json.loads(files["adapter_config.json"])["r"] == 1
    (tmp_path / "a").write_bytes(files["adapter_model.safetensors"])
    flat = load_file(tmp_path / "a")
    assert len(flat) == 2 * len(adapted.layers)
    assert all(not bool(tensor.any()) for tensor in flat.values())


def test_a_head_is_never_an_adapter(tiny_bert: Path, tmp_path: Path) -> None:
    adapted = opened(tiny_bert, "classification", tmp_path)
    model = model_of(adapted, "dense")
    assert {n for n, e in model.entries.items() if not is_matrix(n, e)} == {
        "head.weight",
        "head.bias",
    }
    adapted.fold_in(model)
    (tmp_path / "a").write_bytes(
        adapter_files(adapted, model, "base", LABELS)["adapter_model.safetensors"]
    )
    assert not any("head" in name for name in load_file(tmp_path / "a"))
