"""Export of a whole run: rank, agreement with the original, and cards that name no path of this
machine.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from builders import refused
from tequio.app.models.export import export_models, parse_rank
from tequio.app.models.model_card import card_text
from tequio.app.models.open import open_models
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.core.errors import ConfigError

NO_CARBON = {"emissions": None}


@pytest.fixture(scope="module", params=["classification", "causal"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(make: Any, tmp_path: Path, kind: str, **sections: Any) -> Path:
    train = {"rounds": 3, "patience": 9, "batch_size": 8, "learning_rate": 2e-2, "max_steps": 4}
    path = make(kind=kind, rows=60, centre=False, train=train, **sections)
    start(load_federation(path), tmp_path / "run", False)
    return tmp_path / "run"


def head(card: str) -> dict[str, Any]:
    """The YAML at the head of a card, as the hub reads it."""
    from huggingface_hub import ModelCard

    data: Any = ModelCard(card).data
    return dict(data.to_dict())


def test_the_rank_is_at_most_what_was_asked_and_the_agreement_is_measured(
    make_federation: Any, kind: str, tmp_path: Path
) -> None:
    folder = run(make_federation, tmp_path, kind)
    whole = export_models(folder, "shared", tmp_path / "whole", False, NO_CARBON, None)[0]
    assert whole["rank"] == whole["exact_rank"] > 3
    small = export_models(folder, "shared", tmp_path / "small", False, NO_CARBON, 3)[0]
    assert (small["rank"], small["exact_rank"]) == (3, whole["rank"])
    assert small["bytes"] < whole["bytes"]
    for row, out in ((whole, "whole"), (small, "small")):
        card = (tmp_path / out / "shared" / "adapter" / "README.md").read_text()
        agreement = row["agreement"]
        assert agreement["count"] > 0
        if kind == "classification":
            assert (
                f"the same answer on {100 * agreement['equal']:.1f} % of {agreement['count']}"
                in card
            )
        else:
            assert (
                f"loss {agreement['exported_loss']:.4f} instead of {agreement['loss']:.4f}" in card
            )
    if kind == "classification":
        assert whole["agreement"]["equal"] == 1.0
    else:
        assert whole["agreement"]["exported_loss"] == pytest.approx(
            whole["agreement"]["loss"], abs=1e-5
        )
        assert small["agreement"]["exported_loss"] != small["agreement"]["loss"]


def test_an_export_elsewhere_says_that_nothing_was_measured(
    make_federation: Any, kind: str, tmp_path: Path
) -> None:
    folder = run(make_federation, tmp_path, kind)
    shutil.rmtree(tmp_path / "fed" / "data")
    rows = export_models(folder, None, tmp_path / "out", False, NO_CARBON)
    assert [row["agreement"] for row in rows] == [None] * 3
    assert "not measured" in (tmp_path / "out" / "site0" / "adapter" / "README.md").read_text()


def test_no_file_holds_a_path_of_this_machine(
    make_federation: Any, kind: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export_models(run(make_federation, tmp_path, kind), "site0", out, True, NO_CARBON)
    texts = [file.read_text() for file in out.rglob("*") if file.suffix in (".json", ".md", ".py")]
    assert len(texts) > 5
    assert not any("/tmp" in text or str(Path.home()) in text for text in texts)
    assert (
        json.loads((out / "site0" / "adapter" / "adapter_config.json").read_text())[
            "base_model_name_or_path"
        ]
        is None
    )
    for form, library in (("adapter", "peft"), ("merged", "transformers")):
        found = head((out / "site0" / form / "README.md").read_text())
        assert found["library_name"] == library
        assert found["pipeline_tag"] == (
            "text-classification" if kind == "classification" else "text-generation"
        )
        assert "base_model" not in found


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("Llama 3.2", {"license": "llama3.2"}),
        ("not stated", {}),
        ("our own: ask Ana", {"license": "other", "license_name": "our-own-ask-ana"}),
    ],
)
def test_a_card_names_base_and_licence_as_the_hub_takes_them(
    make_federation: Any, tmp_path: Path, stated: str, expected: dict[str, str]
) -> None:
    opened = open_models(run(make_federation, tmp_path, "classification"), "shared")[0]
    base = opened.config.base.model_copy(update={"model": "acme/tiny-bert", "licence": stated})
    opened = type(opened)(
        **{**vars(opened), "config": opened.config.model_copy(update={"base": base})}
    )
    found = head(card_text(opened, NO_CARBON, rank=4))
    assert found["base_model"] == "acme/tiny-bert"
    assert {key: value for key, value in found.items() if key.startswith("license")} == expected


def test_the_merged_model_has_the_precision_of_the_base_or_the_one_asked_for(
    make_federation: Any, tiny_llama: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    short = Path(shutil.copytree(tiny_llama, tmp_path / "short"))
    AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.bfloat16).save_pretrained(short)
    folder = run(make_federation, tmp_path, "causal", base={"model": str(short)})
    for asked, expected in (
        (None, torch.bfloat16),
        ("float32", torch.float32),
        ("float16", torch.float16),
    ):
        out = tmp_path / f"as-{asked}"
        row = export_models(folder, "shared", out, True, NO_CARBON, dtype=asked)[0]
        tensors = load_file(out / "shared" / "merged" / "model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {expected}
        assert (
            json.loads((out / "shared" / "merged" / "config.json").read_text())["dtype"]
            == row["merged_dtype"]
        )
        assert row["merged_agreement"]["exported_loss"] == pytest.approx(
            row["merged_agreement"]["loss"], abs=0.02
        )


def test_an_output_layer_that_was_tied_is_merged_as_one_of_its_own(
    make_federation: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    from families import LLAMA, make

    tied = make(tmp_path / "tied", ("LlamaForCausalLM", LLAMA | {"tie_word_embeddings": True}))
    folder = run(
        make_federation,
        tmp_path,
        "causal",
        base={"model": str(tied)},
        adapter={"modules": ["lm_head"], "ranks": [2]},
    )
    row = export_models(folder, "shared", tmp_path / "out", True, NO_CARBON)[0]
    merged = Path(row["merged"])
    assert json.loads((merged / "config.json").read_text())["tie_word_embeddings"] is False
    tensors = load_file(merged / "model.safetensors")
    assert not torch.equal(tensors["lm_head.weight"], tensors["model.embed_tokens.weight"])
    opened = open_models(folder, "shared")[0]
    adapted = opened.adapted()
    adapted.fold_in(opened.model)
    ids = torch.tensor([[3, 9, 12, 20, 4]])
    with torch.inference_mode():
        expected = adapted.token_logits(ids, torch.ones_like(ids))
        found = AutoModelForCausalLM.from_pretrained(merged)(ids).logits
    assert float((found - expected).abs().max()) <= 1e-5


def test_what_rank_and_dtype_may_be() -> None:
    assert [parse_rank(text) for text in ("16", "1", "0", "full")] == [16, 1, None, None]
    for text in ("-1", "x", "", "1.5"):
        with refused(ConfigError, "option-unfit", option="--rank"):
            parse_rank(text)
    with refused(ConfigError, "option-unfit", option="--dtype", value="int8"):
        export_models(Path("run"), None, Path("out"), True, dtype="int8")
