"""What else Python offers: sweeps, own metrics and losses, newcomers, forecasts, and the first hour
in one call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import tequio
from builders import bodies, sentences, write_jsonl
from tequio.algorithms.registry import OWN_TERMS, known_terms
from tequio.core.errors import ConfigError, RunError, TequioError
from tequio.core.protocols import Need, Step


def accuracy(answers: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> float:
    """The share of texts answered right, computed again."""
    right = [bool(one["label"] == label) for one, label in zip(answers, labels, strict=True)]
    return sum(right) / len(right)


@dataclass(frozen=True)
class Recall:
    """The share of one label's texts that are found."""

    label: str
    name: str = "recall"

    def __call__(self, answers: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> float:
        found = [
            bool(one["label"] == self.label)
            for one, label in zip(answers, labels, strict=True)
            if label == self.label
        ]
        return sum(found) / len(found)


@dataclass(frozen=True)
class Steeper:
    """The square of the own loss on top of it."""

    strength: float
    name: str = "steeper"
    needs: frozenset[Need] = frozenset()
    for_centre: bool = True

    def added(self, step: Step) -> Tensor:
        return self.strength * step.own**2


@dataclass(frozen=True)
class Flatter:
    """Another term under the same name."""

    strength: float
    name: str = "steeper"
    needs: frozenset[Need] = frozenset()
    for_centre: bool = True

    def added(self, step: Step) -> Tensor:
        return self.strength * step.own


def code(error: TequioError) -> str:
    assert error.reason is not None
    return error.reason.code


def test_a_sweep_gives_rows_and_repeats_nothing(
    api_settings: dict[str, Any], api_people: Any, tmp_path: Path
) -> None:
    federation = tequio.load_federation(api_settings, api_people).with_settings({"train.rounds": 1})
    rows = tequio.sweep(
        federation, {"train.learning_rate": [1e-3, 5e-3]}, tmp_path, metrics=[accuracy]
    )
    assert [(row["train.learning_rate"], row["participant"]) for row in rows] == [
        (1e-3, "north"),
        (1e-3, "south"),
        (5e-3, "north"),
        (5e-3, "south"),
    ]
    for row in rows:
        assert row["accuracy"] == pytest.approx(row["personal_accuracy"])
        (rate,) = {
            tequio.load_federation(
                Path(row["run"]) / "inputs/federation.toml"
            ).settings.train.learning_rate
        }
        assert rate == row["train.learning_rate"]
    stamps = {
        folder: (folder / "ledger.sqlite").stat().st_mtime_ns for folder in tmp_path.iterdir()
    }
    assert len(stamps) == 2
    larger = tequio.sweep(federation, {"train.learning_rate": [5e-3, 1e-3, 1e-2]}, tmp_path)
    assert len(larger) == 6
    assert {f: (f / "ledger.sqlite").stat().st_mtime_ns for f in stamps} == stamps
    with pytest.raises(ConfigError):
        tequio.sweep(federation, {"train.rounds": [1, 0]}, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_own_metrics_on_the_runs_own_test_data(
    api_settings: dict[str, Any], api_people: Any, tmp_path: Path
) -> None:
    run = tequio.run(tequio.load_federation(api_settings, api_people), tmp_path / "run")
    rows = run.evaluate(accuracy, Recall("good"))
    reported = {row["name"]: row["test"] for row in run.summary["participants"]}
    assert [(row["participant"], row["model"]) for row in rows][:2] == [
        ("north", "personal"),
        ("north", "shared"),
    ]
    for row in rows:
        found = reported[row["participant"]][row["model"]]
        assert (row["accuracy"], row["texts"]) == (
            pytest.approx(found["accuracy"]),
            found["examples"],
        )
        assert 0.0 <= row["recall"] <= 1.0
    refused: dict[str, list[Any]] = {
        "metric-name-taken": [accuracy, accuracy],
        "metric-without-name": [Nameless()],
        "metric-no-number": [lambda answers, labels: "much"],
    }
    for expected, metrics in refused.items():
        with pytest.raises(ConfigError) as caught:
            run.evaluate(*metrics)
        assert code(caught.value) == expected
    file = run.folder / "inputs/participants/data/north/data.jsonl"
    file.write_bytes(file.read_bytes() + b'{"text": "another kind one", "label": "good"}\n')
    with pytest.raises(RunError) as changed:
        run.evaluate(accuracy)
    assert code(changed.value) == "metric-data-changed"


class Nameless:
    """A metric that the rows cannot call anything."""

    def __call__(self, answers: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> float:
        return 0.0


def test_an_own_loss_trains_and_resumes_only_with_itself(
    api_settings: dict[str, Any], api_people: Any, tmp_path: Path
) -> None:
    federation = tequio.load_federation(api_settings, api_people).with_settings(
        {"train.rounds": 4, "train.patience": 9}
    )
    plain = tequio.run(federation, tmp_path / "plain")
    whole = tequio.run(federation, tmp_path / "whole", losses=[Steeper(0.5)])
    assert bodies(whole.folder, "run")[0]["config"]["local"]["terms"] == {"steeper": 0.5}
    assert [r.loss for r in whole.rounds()] != [r.loss for r in plain.rounds()]
    cut = tequio.run(federation, tmp_path / "cut", losses=[Steeper(0.5)], wait=False)
    next(cut.rounds())
    cut.stop()
    assert not cut.finished
    for losses in ([], [Steeper(0.4)], [Flatter(0.5)]):
        with pytest.raises(RunError) as caught:
            tequio.run(cut, losses=losses)
        assert code(caught.value) == "losses-differ"
    resumed = tequio.run(cut, losses=[Steeper(0.5)])
    assert resumed.summary["chain"]["outcome"] == whole.summary["chain"]["outcome"]
    assert OWN_TERMS == {}
    with pytest.raises(ConfigError) as taken:
        tequio.run(federation, tmp_path / "other", losses=[Steeper(0.5, name="kl")])
    assert code(taken.value) == "loss-name-taken"
    with known_terms([Flatter(0.5)]), pytest.raises(ConfigError) as busy:
        tequio.run(federation, tmp_path / "other", losses=[Steeper(0.5)])
    assert code(busy.value) == "loss-name-taken"


def test_a_newcomer_from_rows(
    api_settings: dict[str, Any], api_people: Any, tmp_path: Path
) -> None:
    run = tequio.run(tequio.load_federation(api_settings, api_people), tmp_path / "run")
    rows = [(row["text"], row["label"]) for row in sentences(50, 9)]
    adapted = tequio.adapt(run, "west", tmp_path / "west", data=rows)
    assert [*adapted] == ["west"]
    assert adapted["west"].gain is not None
    assert adapted["west"].predict(["the nurse was kind"])[0]["label"] in ("good", "bad")
    assert (tmp_path / "west" / "adapter" / "adapter_model.safetensors").is_file()


def test_a_forecast_has_a_row_per_participant(
    api_settings: dict[str, Any], api_people: Any
) -> None:
    rows = tequio.forecast(tequio.load_federation(api_settings, api_people), machine="L4")
    assert [row["participant"] for row in rows] == ["north", "south"]
    assert all(row["seconds"] > 0 and row["joules"] > 0 and row["machine"] == "L4" for row in rows)
    assert rows.facts["total"]["joules"] >= sum(row["joules"] for row in rows) * 0.999


@pytest.mark.parametrize("from_files", [False, True])
def test_start_goes_from_data_to_models(
    api_people: Any, tiny_bert: Path, tmp_path: Path, from_files: bool
) -> None:
    data: Any = api_people
    if from_files:
        data = [
            write_jsonl(tmp_path / f"{name}.jsonl", sentences(60, i))
            for i, name in enumerate(api_people)
        ]
    run = tequio.start(data, tmp_path / "mine", base=str(tiny_bert), rounds=1)
    assert run.finished
    assert [*run] == ["north", "south"]
    assert (tmp_path / "mine" / "federation.toml").is_file()
