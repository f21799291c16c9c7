"""A run from Python: what it writes, what it returns, how it is followed, stopped, continued and
refused.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

import tequio
from builders import bodies
from tequio.core.errors import DataError, RunError


@pytest.fixture
def done(api_settings: dict[str, Any], api_people: dict[str, Any], tmp_path: Path) -> tequio.Run:
    """A finished run."""
    return tequio.run(tequio.load_federation(api_settings, api_people), tmp_path / "run")


def test_a_run_is_a_mapping_with_the_reports_own_figures(done: tequio.Run) -> None:
    assert done.finished
    assert [*done] == ["north", "south"]
    assert len(done) == 2
    assert "north" in done
    assert "west" not in done
    assert done.get("west") is None
    with pytest.raises(RunError) as caught:
        done["west"]
    assert caught.value.reason is not None
    assert caught.value.reason.code == "no-such-participant"
    assert str(caught.value).endswith("Name one of these.")
    reported = {row["name"]: row for row in done.summary["participants"]}
    for name, one in done.items():
        effect = reported[name]["outcome"]["effect"]
        assert one.gain == effect["mean"]
        assert one.interval == (effect["low"], effect["high"])
        assert one.verdict == reported[name]["verdict"]
    rows = done.rows()
    assert [row["participant"] for row in rows] == ["north", "south"]
    assert {
        "base_accuracy",
        "local_accuracy",
        "shared_accuracy",
        "personal_accuracy",
        "gain",
    } <= set(rows.columns)
    assert done.report().read_text("utf-8").startswith("<!doctype html>")
    assert tequio.verify(done)["ok"]
    assert tequio.open_run(done.folder) == done


def test_it_predicts_and_exports(done: tequio.Run, tmp_path: Path) -> None:
    (one, other) = done["north"].predict(["my train was late", "the nurse was kind"])
    assert one["label"] in ("good", "bad")
    assert sum(other["probabilities"].values()) == pytest.approx(1.0)
    assert len(done.predict("the nurse was kind")) == 1
    made = done["north"].export(tmp_path / "out")
    assert (Path(made["adapter"]) / "adapter_model.safetensors").is_file()
    everything = tequio.export(done, tmp_path / "all")
    assert {row["name"] for row in everything} == {"north", "south", "shared"}


def test_what_came_from_python_is_ordinary_files_for_their_owner(done: tequio.Run) -> None:
    inputs = done.folder / "inputs"
    found = sorted(str(file.relative_to(inputs)) for file in inputs.rglob("*") if file.is_file())
    private = ["participants/data/north/data.jsonl", "participants/data/south/data.jsonl"]
    assert found == [
        "federation.toml",
        *private,
        "participants/north.toml",
        "participants/south.toml",
    ]
    for name in found[1:]:
        assert stat.S_IMODE((inputs / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((inputs / "participants").stat().st_mode) == 0o700


def test_the_written_files_give_the_same_run(done: tequio.Run, tmp_path: Path) -> None:
    again = tequio.run(done.folder / "inputs" / "federation.toml", tmp_path / "again")
    assert again.summary["chain"]["outcome"] == done.summary["chain"]["outcome"]


def test_a_stopped_run_is_followed_and_resumes_to_the_same_end(
    api_settings: dict[str, Any], api_people: dict[str, Any], tmp_path: Path
) -> None:
    federation = tequio.load_federation(api_settings, api_people).with_settings(
        {"train.rounds": 5, "train.patience": 9}
    )
    whole = tequio.run(federation, tmp_path / "whole", wait=False)
    rounds = [*whole.rounds()]
    assert [each.number for each in rounds] == [1, 2, 3, 4, 5]
    assert all(each.loss is not None and {*each.losses} == {"north", "south"} for each in rounds)
    assert whole.finished
    assert [*whole.rounds()] == rounds
    cut = tequio.run(federation, tmp_path / "cut", wait=False)
    next(cut.rounds())
    cut.stop()
    assert not cut.finished
    assert cut["north"].gain is None
    resumed = tequio.run(cut)
    assert resumed.finished
    assert resumed.summary["chain"]["outcome"] == whole.summary["chain"]["outcome"]


def test_resume_takes_only_the_same_federation(
    api_settings: dict[str, Any], api_people: dict[str, Any], tmp_path: Path
) -> None:
    federation = tequio.load_federation(api_settings, api_people)
    first = tequio.run(federation, tmp_path / "run", resume=True)
    records = len(bodies(first.folder, "round"))
    assert tequio.run(federation, tmp_path / "run", resume=True) == first
    assert len(bodies(first.folder, "round")) == records
    others = {
        "the key train.rounds": federation.with_settings({"train.rounds": 3}),
        "data/north/data.jsonl": federation.with_participants({"north": api_people["south"]}),
    }
    for what, other in others.items():
        with pytest.raises(RunError, match=what) as caught:
            tequio.run(other, tmp_path / "run", resume=True)
        assert caught.value.reason is not None
        assert caught.value.reason.code == "run-of-another-federation"
    with pytest.raises(RunError):
        tequio.run(federation, tmp_path / "run")


def test_what_is_wrong_is_raised_at_once_also_in_the_background(
    api_settings: dict[str, Any], api_people: dict[str, Any], tmp_path: Path
) -> None:
    few = tequio.load_federation(api_settings, {**api_people, "south": api_people["south"][:3]})
    with pytest.raises(DataError, match="south"):
        tequio.run(few, tmp_path / "run", wait=False)
    assert not (tmp_path / "run" / "ledger.sqlite").exists()
    fine = tequio.load_federation(api_settings, api_people)
    assert tequio.run(fine, tmp_path / "run").finished


def test_a_run_from_a_file_is_the_commands_own(make_federation: Any) -> None:
    path = make_federation(centre=False, participants=2, rows=60)
    run = tequio.run(path)
    assert run.folder == path.parent.resolve() / "runs" / "small-7"
    assert not (run.folder / "inputs").exists()
    other = tequio.run(tequio.load_federation(path).with_settings(seed=8))
    assert other.folder.name == "small-8"
    assert not (other.folder / "inputs").exists()


def test_tables_in_notebooks_are_escaped(
    api_settings: dict[str, Any], api_people: dict[str, Any], tmp_path: Path
) -> None:
    federation = tequio.load_federation(api_settings, api_people)
    odd = federation.with_settings({"task.labels": {"<b>good": "great", "bad": "rude"}})
    assert "&lt;b&gt;good" in odd._repr_html_()
    assert "<b>" not in odd._repr_html_()
    rows = tequio.Rows([{"<i>": "<script>", "n": 0.123456}, {"n": None}])
    html = rows._repr_html_()
    assert "<script>" not in html
    assert "<i>" not in html
    assert "<td>0.1235</td>" in html
    run = tequio.run(federation, tmp_path / "run")
    assert "north" in run._repr_html_()
    assert "personal_accuracy" in run["north"]._repr_html_()
