"""The default demo on its real data and real model, cut short: fetch, two rounds, personal models,
report, verify, export, PEFT.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from builders import refused
from tequio.app.demos.catalogue import RECIPES, write_demo
from tequio.app.models.export import export_models
from tequio.app.models.open import open_models
from tequio.app.models.predict import predict_texts
from tequio.app.models.verify import verify_run
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.core.errors import ConfigError, DataError
from tequio.report.write import write_report


@pytest.fixture(scope="module")
def short_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a short sentiment demo."""
    root = tmp_path_factory.mktemp("demo")
    try:
        path, provenance = write_demo(
            "sentiment", root, limits={"max_train": 24, "max_validation": 12, "max_test": 20}
        )
    except DataError as error:
        pytest.skip(f"the demo's data cannot be fetched here: {error}")
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"rounds = \d+", "rounds = 2\nmax_steps = 4", text), encoding="utf-8")
    start(load_federation(path), root / "run", True, provenance)
    return root / "run"


@pytest.mark.slow
@pytest.mark.parametrize("asked", [0, 7, 99])
def test_more_participants_than_a_demo_has_are_refused(
    short_demo: Path, tmp_path: Path, asked: int
) -> None:
    assert short_demo.exists(), "so that its data are here"
    with refused(ConfigError, "demo-participants", asked=asked, most=6):
        write_demo("sentiment", tmp_path, participants=asked)


@pytest.mark.slow
def test_the_demo_goes_through_on_real_data(short_demo: Path) -> None:
    assert verify_run(short_demo)["ok"] is True
    page, summary = write_report(short_demo, "en", None)
    assert [p["rank"] for p in summary["participants"]] == [16, 8, 8, 4, 4, 2]
    assert summary["finished"] is True
    assert all(p["test"]["personal"]["examples"] == 20 for p in summary["participants"])
    text = page.read_text(encoding="utf-8")
    assert "CC BY-NC-SA" in text  # the licence of the tweets is shown
    assert "virginamerica" in text


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft asks transformers
def test_the_demos_adapter_gives_the_same_logits_in_plain_peft(
    short_demo: Path, tmp_path: Path
) -> None:
    """Float32, within 1e-4 of logits of size 10; measured 2e-5 on one machine."""
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoTokenizer

    texts = [
        "@united my flight was cancelled and nobody told us",
        "thank you for the kind crew today",
    ]
    ours = predict_texts(short_demo, "united", texts, 1)
    written = export_models(short_demo, "united", tmp_path / "out", merged=False, rank=None)
    folder = Path(written[0]["adapter"])
    base = Path(open_models(short_demo, "united")[0].config.base.model).expanduser()
    model: Any = PeftModel.from_pretrained(AutoModel.from_pretrained(base), str(folder))
    tokenizer = AutoTokenizer.from_pretrained(base)
    head, recipe = (
        load_file(folder / "head.safetensors"),
        json.loads((folder / "head.json").read_text()),
    )
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1)
        pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        logits = 10 * pooled @ head["head.weight"].T + head["head.bias"]
    theirs = torch.softmax(logits, 1)
    expected = torch.tensor(
        [[row["probabilities"][label] for label in recipe["labels"]] for row in ours]
    )
    torch.testing.assert_close(theirs, expected, atol=1e-4, rtol=1e-3)


def test_every_demo_has_a_base_with_a_licence() -> None:
    assert {r.model.licence for r in RECIPES.values()} == {"Apache-2.0"}
