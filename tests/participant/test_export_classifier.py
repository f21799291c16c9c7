"""A merged classifier is used with its own head, or refused: never with a random one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from families import ENCODERS, make
from tequio.core.update import Dense, Factored, Update
from tequio.participant.adapted_model import AdaptedModel, head_at_zero
from tequio.participant.base import load_base
from tequio.participant.encoding import class_ids
from tequio.participant.export import save_merged
from tequio.participant.general import answers
from tequio.participant.predict import classify

LABELS = ("rude", "kind")
TEXTS = ["the train was late again", "my nurse was very kind"]


@pytest.fixture(params=["bert", "roberta", "distilbert", "modernbert", "t5"])
def merged(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[dict[str, Any]]]:
    """A merged classifier of this family, and what Tequio predicts with it."""
    base = load_base(
        str(make(tmp_path / "base", ENCODERS[request.param])),
        "classification",
        torch.float32,
        tmp_path,
    )
    adapted = AdaptedModel(base, ["attention"], 2.0, head_at_zero(base, 2))
    generator = torch.Generator().manual_seed(1)
    entries: dict[str, Any] = {
        name: Factored(
            torch.randn(m, 2, generator=generator) * 0.2, torch.randn(2, n, generator=generator)
        )
        for name, (m, n) in adapted.shapes.items()
    }
    entries |= {
        name: Dense(torch.randn(*t.shape, generator=generator)) for name, t in adapted.head.items()
    }
    model = Update(entries, adapted.spec)
    expected = classify(answers(adapted, model, class_ids(base.tokenizer, TEXTS, 32)), LABELS)
    save_merged(adapted, model, tmp_path / "merged", LABELS)
    return tmp_path / "merged", expected


def test_load_py_answers_as_tequio_does(merged: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, expected = merged
    spec = importlib.util.spec_from_file_location("merged_load", folder / "load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for found, row in zip(module.classify(TEXTS), expected, strict=True):
        assert next(iter(found)) == row["label"]
        assert found == pytest.approx(row["probabilities"], abs=1e-4)


def test_the_usual_pipeline_works_with_its_code_and_refuses_without(
    merged: tuple[Path, list[dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers.dynamic_module_utils as dynamic
    from transformers import pipeline

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, expected = merged
    for task in ("text-classification", "sentiment-analysis"):
        with pytest.raises(ValueError, match="trust_remote_code"):
            pipeline(task, model=str(folder))
    ours: Any = pipeline(
        "text-classification", model=str(folder), trust_remote_code=True, device="cpu"
    )
    for found, row in zip(ours(TEXTS), expected, strict=True):
        assert found["label"] == row["label"]
        assert found["score"] == pytest.approx(max(row["probabilities"].values()), abs=1e-4)


def test_a_random_head_is_never_made(merged: tuple[Path, list[dict[str, Any]]]) -> None:
    from transformers import AutoModelForSequenceClassification

    with pytest.raises((RuntimeError, ValueError)):
        AutoModelForSequenceClassification.from_pretrained(merged[0])


def test_the_labels_stand_in_the_configuration_and_no_path_of_this_machine(
    merged: tuple[Path, list[dict[str, Any]]],
) -> None:
    folder = merged[0]
    config = json.loads((folder / "config.json").read_text())
    assert config["id2label"] == {"0": "rude", "1": "kind"}
    assert config["label2id"] == {"rude": 0, "kind": 1}
    assert config["architectures"]
    for file in folder.glob("*.json"):
        assert str(folder.parent) not in file.read_text()
