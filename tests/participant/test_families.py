"""Bases of many families train, export and load again with the usual libraries, or give one clear
error.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from families import DECODERS, ENCODERS, REFUSED, make
from tequio.core.errors import BaseModelError
from tequio.core.update import Update
from tequio.participant.adapted_model import AdaptedModel, head_at_zero, pool
from tequio.participant.base import load_base, model_shape
from tequio.participant.export import adapter_files, save_merged
from tequio.participant.module_names import choose_layers
from tequio.participant.text_tasks import Causal, Classification, Item

IDS, MASK = (
    torch.tensor([[3, 9, 12, 20, 4], [5, 7, 0, 0, 0]]),
    torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]),
)
LABELS = ("bad", "good")
FAMILIES = [(name, "classification") for name in ENCODERS] + [(name, "causal") for name in DECODERS]


def trained(adapted: AdaptedModel, kind: str) -> Update:
    """What two steps of local training change, with steps large enough to matter."""
    parameters = adapted.attach(2, seed=3)
    rows = [tuple(range(3, 11)), tuple(range(12, 18)), tuple(range(20, 30))]
    if kind == "causal":
        items = [Item(row, row) for row in rows]
        task: Any = Causal(adapted.base.tokenizer, 16)
    else:
        items = [Item(row, (i % 2,)) for i, row in enumerate(rows)]
        task = Classification(adapted.base.tokenizer, LABELS, 16)
    before = float(task.losses(adapted, items).total.sum())
    optimizer = torch.optim.AdamW(parameters, lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        task.loss(adapted, items).backward()
        optimizer.step()
    assert float(task.losses(adapted, items).total.sum()) < before
    return adapted.extract()


def answers(model: nn.Module, kind: str) -> torch.Tensor:
    """Logits, or pooled hidden states, at real tokens, as plain transformers computes them."""
    with torch.inference_mode():
        out = model(input_ids=IDS, attention_mask=MASK)
        found: torch.Tensor = (
            out.logits[MASK.bool()] if kind == "causal" else pool(out.last_hidden_state, MASK)
        )
    return found.float()


def plain(base: Path, kind: str) -> Any:
    """The base as its user loads it, with no Tequio."""
    import transformers

    auto = "AutoModelForCausalLM" if kind == "causal" else "AutoModel"
    if json.loads((base / "config.json").read_text())["model_type"] == "t5":
        auto = "AutoModelForTextEncoding"
    return getattr(transformers, auto).from_pretrained(base, dtype=torch.float32).eval()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("family", "kind"), FAMILIES)
def test_a_family_trains_exports_and_loads_again(family: str, kind: Any, tmp_path: Path) -> None:
    from peft import PeftModel

    folder = make(tmp_path / "base", (ENCODERS | DECODERS)[family])
    base = load_base(str(folder), kind, torch.float32, tmp_path)
    untouched = answers(base.model, kind)
    adapted = AdaptedModel(base, ["all"], 2.0, None if kind == "causal" else head_at_zero(base, 2))
    shape = model_shape(str(folder), kind, ["all"], torch.float32, tmp_path)
    assert sorted(shape.adapted) == sorted(adapted.shapes.values())
    assert shape.parameters == base.parameters
    update = trained(adapted, kind)
    adapted.fold_in(update)
    expected = answers(adapted.model, kind)
    assert float((expected - untouched).abs().max()) > 1e-2
    for name, data in adapter_files(adapted, update, str(folder), LABELS).items():
        (tmp_path / name).write_bytes(data)
    loaded = PeftModel.from_pretrained(plain(folder, kind), str(tmp_path)).eval()
    assert float((answers(loaded, kind) - expected).abs().max()) <= 1e-4
    save_merged(adapted, update, tmp_path / "merged", LABELS)
    assert float((answers(plain(tmp_path / "merged", kind), kind) - expected).abs().max()) <= 1e-4


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_does_not_fit_gives_one_clear_error(family: str, tmp_path: Path) -> None:
    cls, config, kind, expected = REFUSED[family]
    folder = make(tmp_path / "base", (cls, config))
    with pytest.raises(BaseModelError, match=expected) as caught:
        load_base(str(folder), kind, torch.float32, tmp_path)  # type: ignore[arg-type]
    assert caught.value.fix


@pytest.mark.parametrize(("family", "kind"), FAMILIES)
def test_attention_is_a_part_of_all_and_neither_has_the_output_layer(
    family: str, kind: Any, tmp_path: Path
) -> None:
    folder = make(tmp_path / "base", (ENCODERS | DECODERS)[family])
    model = load_base(str(folder), kind, torch.float32, tmp_path).model
    word = "in_proj" if family == "mamba" else "attention"  # Mamba has none
    attention, everything = set(choose_layers(model, [word])), set(choose_layers(model, ["all"]))
    assert attention
    assert attention <= everything
    assert not any(
        path.endswith("lm_head") or "vision" in path or "pooler" in path for path in everything
    )


@pytest.mark.parametrize(("family", "module"), [("mamba", "out_proj"), ("deepseek_v3", "up_proj")])
def test_a_layer_whose_adapter_peft_could_not_load_is_refused(
    family: str, module: str, tmp_path: Path
) -> None:
    model = load_base(
        str(make(tmp_path / "base", DECODERS[family])), "causal", torch.float32, tmp_path
    ).model
    with pytest.raises(BaseModelError, match=f"peft cannot load adapters of {module}"):
        choose_layers(model, [module])


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_layers_with_and_without_transposed_weights_in_one_adapter(tmp_path: Path) -> None:
    """GPT-2's Conv1D layers together with its output layer, which is an ordinary one and tied to
    the embeddings.
    """
    from peft import PeftModel

    folder = make(tmp_path / "base", DECODERS["gpt2"])
    base = load_base(str(folder), "causal", torch.float32, tmp_path)
    adapted = AdaptedModel(base, ["c_attn", "lm_head"], 2.0)
    update = trained(adapted, "causal")
    adapted.fold_in(update)
    expected = answers(adapted.model, "causal")
    for name, data in adapter_files(adapted, update, str(folder), ()).items():
        (tmp_path / name).write_bytes(data)
    loaded = PeftModel.from_pretrained(plain(folder, "causal"), str(tmp_path)).eval()
    assert float((answers(loaded, "causal") - expected).abs().max()) <= 1e-4
    save_merged(adapted, update, tmp_path / "merged", ())
    assert (
        json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"]
        is False
    )
    assert (
        float((answers(plain(tmp_path / "merged", "causal"), "causal") - expected).abs().max())
        <= 1e-4
    )
