"""Runs whose records were written by earlier or newer versions: what resumes, and what is refused
by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from builders import NEEDED, refused, rewritten
from tequio.app.assembly.manifest import same_run
from tequio.app.models.export import export_models
from tequio.app.models.verify import verify_run
from tequio.app.network.monitoring.status import read_status
from tequio.app.run_files import config_from_header
from tequio.app.simulation.run import resume, start
from tequio.config import Federation, load_federation, stored, whole
from tequio.config import load as config_read
from tequio.core.errors import ConfigError, LedgerError, RunError
from tequio.ledger.chain import RECORD_VERSION, VERSION
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger
from tequio.report.write import write_report


class Stop(BaseException):
    """The end of a run's process."""


def cut(stage: str, what: str, done: int, of: int) -> None:
    """End after the first round."""
    if stage == "rounds" and what.startswith("round 1 of") and ":" not in what:
        raise Stop


@pytest.fixture
def stopped(make_federation: Any, tmp_path: Path) -> Path:
    """A run that was cut off after its first round."""
    run = tmp_path / "run"
    with pytest.raises(Stop):
        start(
            load_federation(make_federation(train={"rounds": 2}, screen={"loss": 99.0})),
            run,
            False,
            watch=cut,
        )
    return run


def header(run: Path) -> dict[str, Any]:
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        return dict(next(ledger.entries("run")).body)


def earlier(more: Mapping[str, Any]) -> Any:
    """A change that makes records those of version 1: no version, the whole configuration, with
    `more` keys of [train].
    """

    def change(kind: str, body: dict[str, Any]) -> None:
        assert body.pop(VERSION) == RECORD_VERSION
        if kind == "run":
            body["config"] = whole(body["config"])
            body["config"]["train"] |= more
            body["config_digest"] = "of all that"

    return change


def test_a_record_holds_no_default_and_its_version(stopped: Path) -> None:
    found = header(stopped)
    assert found[VERSION] == RECORD_VERSION
    assert found["config"]["screen"] == {"loss": 99.0}
    assert "algorithm" not in found["config"]
    assert found["config"]["participants"][0].keys() == {"name", "file"}
    with Ledger.open(stopped / "ledger.sqlite", read_only=True) as ledger:
        assert [entry.body[VERSION] for entry in ledger.entries()] == [RECORD_VERSION] * 3


@pytest.mark.parametrize("more", [{}, {"warmup": 0}])
def test_a_record_of_an_earlier_version_is_the_same_run(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    """With the whole configuration, and with a key that was retired since: opened, reported,
    resumed, verified and exported.
    """
    rewritten(stopped, earlier(more))
    monkeypatch.setattr(config_read, "RETIRED", dict.fromkeys((f"train.{key}" for key in more), 0))
    summary = write_report(stopped, "en", None)[1]
    assert summary["chain"]["algorithm"].startswith("reduce = stack")
    assert resume(stopped).end["rounds"] == 2
    assert verify_run(stopped)["ok"]
    assert export_models(stopped, "shared", tmp_path / "out", False)
    with Ledger.open(stopped / "ledger.sqlite", read_only=True) as ledger:
        versions = [entry.body.get(VERSION) for entry in ledger.entries()]
    assert versions[:3] == [None] * 3
    assert set(versions[3:]) == {RECORD_VERSION}


def test_a_record_from_before_a_key_was_there_is_the_same_run(stopped: Path) -> None:
    """Of version 1, without a key and a whole table that this version has."""

    def change(kind: str, body: dict[str, Any]) -> None:
        earlier({})(kind, body)
        if kind == "run":
            del (
                body["config"]["train"]["lockstep"],
                body["config"]["equity"],
                body["config"]["shift"],
            )

    rewritten(stopped, change)
    assert resume(stopped).end["rounds"] == 2


def test_a_retired_key_at_another_value_stops_the_resume_by_name(
    stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewritten(stopped, earlier({"warmup": 3}))
    monkeypatch.setattr(config_read, "RETIRED", {"train.warmup": 0})
    with refused(ConfigError, "key-retired", key="train.warmup"):
        resume(stopped)


def test_the_outcome_does_not_depend_on_the_version_that_appended(
    make_federation: Any, tmp_path: Path
) -> None:
    """A record of version 1 that is continued here has the outcome that it had had there: versions
    do not count, the header does.
    """
    config = load_federation(make_federation(train={"rounds": 2}))
    runs = [tmp_path / "a", tmp_path / "b"]
    for run in runs:
        with pytest.raises(Stop):
            start(config, run, False, watch=cut)
    rewritten(runs[1], lambda kind, body: body.pop(VERSION))
    one, other = (resume(run).end["outcome"] for run in runs)
    assert one == other


def test_a_changed_key_is_named_with_both_values_and_labels_are_not_shown(stopped: Path) -> None:
    now, ledger = header(stopped), RunFolder.open(stopped).ledger_path
    assert same_run(now, now, ledger) == []
    config = config_from_header(now, ledger)
    train, task = (
        config.train.model_copy(update={"rounds": 5}),
        config.task.model_copy(update={"labels": ["x", "y"]}),
    )
    other = stored(config.model_copy(update={"train": train, "task": task}))
    del other["screen"]
    assert same_run({**now, "config": other}, now, ledger) == [
        "the key screen.loss of federation.toml (expected 99.0, found its default)",
        "the key task.labels of federation.toml",
        "the key train.rounds of federation.toml (expected 2, found 5)",
    ]
    base = {**now["base"], "digest": "0" * 64, "dtype": "bfloat16"}
    (weights, precision) = same_run({**now, "base": base}, now, ledger)
    assert weights.startswith("the weights of [base]")
    assert "found digest 0000000000000000…" in weights
    assert precision.endswith("(expected float32, found bfloat16)")
    (layout,) = same_run({**now, "spec": "0" * 64}, now, ledger)
    assert layout.startswith("the adapter layout of [base] (expected digest ")
    (public,) = same_run(
        {**now, "public_data": {**now["public_data"], "centre": "1" * 64}}, now, ledger
    )
    assert (
        f"the public data of centre in {config.centre.data if config.centre else ''} (expected "
        "digest" in public
    )
    (gone,) = same_run(
        {**now, "public_data": {}}, {**now, "public_data": {"slice s": "2" * 64}}, ledger
    )
    assert gone == "the public data of slice s (expected digest 2222222222222222…, found none)"


def test_changed_public_data_stop_the_resume_by_file(stopped: Path) -> None:
    file = Path(header(stopped)["config"]["gate"]["slices"]["public"])
    text = file.read_text()
    file.write_text("".join(text.splitlines(keepends=True)[1:]))
    with pytest.raises(RunError) as caught:
        resume(stopped)
    assert "cannot be resumed." in caught.value.what
    assert f"the public data of slice public in {file} (expected digest " in caught.value.why
    assert "Put back what changed" in caught.value.fix
    file.write_text(text)
    assert resume(stopped).end["rounds"] == 2


def test_a_record_of_a_newer_version_names_both(stopped: Path) -> None:
    """It is still verified, for its chain is the same; nothing else is read of it, and nothing
    added.
    """

    def newer(kind: str, body: dict[str, Any]) -> None:
        if kind == "round":
            body[VERSION] = RECORD_VERSION + 1

    rewritten(stopped, newer)
    why = (
        rf"has record version {RECORD_VERSION + 1}, and this Tequio reads versions up to "
        rf"{RECORD_VERSION}"
    )
    with pytest.raises(LedgerError, match=why):
        resume(stopped)
    with Ledger.open(stopped / "ledger.sqlite") as ledger, refused(LedgerError, "newer-record"):
        ledger.append("end", {})


def test_the_version_is_the_ledgers_own_key(tmp_path: Path) -> None:
    with Ledger.create(tmp_path / "ledger.sqlite", {VERSION: 1}) as ledger:
        assert next(ledger.entries()).body == {VERSION: RECORD_VERSION}  # a copied body
        with pytest.raises(LedgerError, match=f"the key {VERSION} is reserved"):
            ledger.append("general", {VERSION: {"base": 1}})


def test_the_rounds_of_a_record_that_leaves_them_out_are_shown(tmp_path: Path) -> None:
    """`tequio status` of a coordinator whose federation.toml has the default of `rounds`."""
    hub_files = {"federation": "f", "digest": "d", "address": "h:1", "tokens": {"a": "t"}}
    (tmp_path / "run").mkdir()
    (tmp_path / "coordinator.json").write_text(json.dumps(hub_files))
    begun = {"name": "a", "config": stored(Federation.model_validate(NEEDED)), "participants": []}
    Ledger.create(tmp_path / "run" / "ledger.sqlite", begun).close()
    try:
        found = read_status(tmp_path)
    except ConfigError as error:  # the certificates, which this folder lacks
        pytest.fail(str(error))
    assert found["rounds"] == 10
