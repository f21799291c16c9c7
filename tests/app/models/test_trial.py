"""An earlier shared model is tried at home before joining: a verdict from validation data, and
nothing written or sent.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builders import refused, sentences, write_jsonl
from tequio.app.models.export import export_models
from tequio.app.models.trial import try_at_home
from tequio.app.simulation.run import start
from tequio.config import load_federation, load_participant
from tequio.core.errors import RunError, UpdateError


def newcomer(folder: Path, rows: int = 120) -> Path:
    data = write_jsonl(folder / "late.jsonl", sentences(rows, 900))
    path = folder / "late.toml"
    path.write_text(f'name = "late"\n[data]\npath = "{data}"\n', encoding="utf-8")
    return path


@pytest.fixture
def federation(make_federation: Any) -> Path:
    return Path(make_federation(participants=2))


@pytest.fixture
def run(federation: Path, tmp_path: Path) -> Path:
    return start(load_federation(federation), tmp_path / "run", counterfactuals=False).folder


def test_a_run_and_its_exported_model_foretell_the_same(
    federation: Path, run: Path, tmp_path: Path
) -> None:
    export_models(run, "shared", tmp_path / "exported", merged=False, rank=None)
    config, file = load_federation(federation), load_participant(newcomer(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    rows = [try_at_home(config, file, source) for source in (run, tmp_path / "exported" / "shared")]
    assert sorted(tmp_path.rglob("*")) == before
    for row in rows:
        assert row["low"] <= row["benefit"] <= row["high"]
        assert row["texts"] == row["examples"]["validation"]
    assert rows[0]["benefit"] == pytest.approx(rows[1]["benefit"], abs=1e-3)


def test_a_head_that_began_from_other_words_is_the_same_model(
    federation: Path, run: Path, tmp_path: Path
) -> None:
    """Descriptions give the head its start; the earlier run's head is tried in any case."""
    config, file = load_federation(federation), load_participant(newcomer(tmp_path))
    task = config.task.model_copy(update={"labels": {"bad": "horrid", "good": "splendid"}})
    other = config.model_copy(update={"task": task})
    first, second = (try_at_home(each, file, run)["candidates"] for each in (config, other))
    assert first["shared"]["loss"] == pytest.approx(second["shared"]["loss"], abs=1e-5)
    assert first["base"]["loss"] != pytest.approx(second["base"]["loss"], abs=1e-5)


def test_a_model_with_other_labels_is_refused(federation: Path, run: Path, tmp_path: Path) -> None:
    export_models(run, "shared", tmp_path / "exported", merged=False)
    config, file = load_federation(federation), load_participant(newcomer(tmp_path))
    task = config.task.model_copy(
        update={"labels": {"bad": "rude", "dull": "grey", "good": "kind"}}
    )
    other = config.model_copy(update={"task": task})
    with pytest.raises(UpdateError, match="other labels"):
        try_at_home(other, file, tmp_path / "exported" / "shared")
    with pytest.raises(RunError, match="other labels"):
        try_at_home(other, file, run)


def test_an_exported_model_of_other_layers_is_refused(
    federation: Path, run: Path, tmp_path: Path
) -> None:
    export_models(run, "shared", tmp_path / "exported", merged=False)
    config, file = load_federation(federation), load_participant(newcomer(tmp_path))
    other = config.model_copy(
        update={"adapter": config.adapter.model_copy(update={"modules": ["query"]})}
    )
    with refused(UpdateError, "model-unfit", key="layers"):
        try_at_home(other, file, tmp_path / "exported" / "shared" / "adapter")
    with refused(RunError, "model-unfit", key="base"):
        try_at_home(other, file, run)
