"""A run whose federation.toml or participant.toml was edited is not resumed unnoticed: the key is
named, and the way to go on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tequio.app.simulation.run import resume, start, with_seed
from tequio.config import load_federation
from tequio.core.errors import RunError

Maker = Callable[..., Path]


def cut_off(federation: Path, out: Path, seed: int | None = None) -> None:
    """A run that ends after its first round."""

    def stop(stage: str, what: str, done: int, of: int) -> None:
        if what == "round 1 of 2":
            raise KeyboardInterrupt

    config = with_seed(load_federation(federation), seed)
    with pytest.raises(KeyboardInterrupt):
        start(config, out, False, watch=stop, source=(federation, seed))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_edited_key_is_named_and_the_record_can_be_resumed(
    make_federation: Maker, tmp_path: Path
) -> None:
    federation = make_federation(centre=False)
    cut_off(federation, tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    edit(federation, "learning_rate = 0.005", "learning_rate = 0.001")
    with pytest.raises(RunError) as caught:
        resume(tmp_path / "run")
    assert "the key train.learning_rate of federation.toml (expected 0.005, found 0.001)" in str(
        caught.value
    )
    assert f"tequio run --resume {tmp_path / 'run'} --as-recorded" in caught.value.fix
    assert resume(tmp_path / "run", as_recorded=True).end["rounds"] == 2
    edit(federation, "learning_rate = 0.001", "# as before\nlearning_rate = 0.0050")
    assert resume(tmp_path / "other").end["rounds"] == 2


def test_the_seed_of_the_command_line_is_no_edit(make_federation: Maker, tmp_path: Path) -> None:
    federation = make_federation(centre=False)
    cut_off(federation, tmp_path / "run", seed=11)
    assert resume(tmp_path / "run").end["rounds"] == 2


def test_a_run_of_an_earlier_version_is_compared_where_its_file_is_usual(
    make_federation: Maker,
) -> None:
    federation = make_federation(centre=False)
    run = federation.parent / "runs" / "small-7"
    cut_off(federation, run)
    (run / "source.json").unlink()
    edit(federation, "max_tokens = 16", "max_tokens = 12")
    with pytest.raises(
        RunError, match=r"task\.max_tokens of federation\.toml \(expected 16, found 12\)"
    ):
        resume(run)
    federation.unlink()
    assert resume(run).end["rounds"] == 2


def test_keys_of_a_participant_are_named(make_federation: Maker, tmp_path: Path) -> None:
    federation = make_federation(centre=False)
    cut_off(federation, tmp_path / "run")
    edit(federation.parent / "participants" / "site0.toml", "max_rank = 4", "max_rank = 2")
    with pytest.raises(
        RunError, match=r"the key hardware\.max_rank in participant\.toml of participant site0"
    ):
        resume(tmp_path / "run")
