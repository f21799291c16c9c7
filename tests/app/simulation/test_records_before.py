"""Runs that recorded the digest of a base's files, as versions before did, resume, verify, predict
and export.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from tequio.app.assembly.build import build, read_participants
from tequio.app.models.export import export_models
from tequio.app.models.predict import predict_texts
from tequio.app.models.verify import verify_run
from tequio.app.run_files import HEAD_FILE, base_file, save
from tequio.app.simulation import run as simulation
from tequio.config import MAIN, load_federation
from tequio.core.errors import RunError
from tequio.ledger.folder import RunFolder
from tequio.ledger.record import Ledger


def before(folder: Path) -> str:
    """The digest that those versions recorded."""
    sha = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        sha.update(hashlib.sha256(file.read_bytes()).hexdigest().encode())
    return sha.hexdigest()


class Cut(Exception):
    """The run is cut off here."""


def begin(path: Path, out: Path, digests: dict[str, str], rounds: int) -> None:
    """Begin a run whose record has these digests, and cut it off after so many rounds."""
    config = load_federation(path)
    setup = build(config, participants=read_participants(config), bases=digests)
    folder = RunFolder.create(out)
    header = {
        **setup.header,
        "counterfactuals": False,
        "commitment": simulation._commit_data(folder, setup),
    }
    for group in setup.groups:
        save(folder, base_file(group.name, HEAD_FILE), group.adapted.head_update())

    def watch(stage: str, what: str, done: int, of: int) -> None:
        if stage == "rounds" and what.startswith(f"round {rounds} of") and ":" not in what:
            raise Cut

    with folder.lock(), Ledger.create(folder.ledger_path, header) as ledger, pytest.raises(Cut):
        simulation._drive(folder, ledger, setup, 1, False, watch)


@pytest.fixture
def federation(
    make_two_bases: Any, tiny_bert: Path, small_bert: Path
) -> tuple[Path, dict[str, str]]:
    return make_two_bases(participants=2), {MAIN: before(tiny_bert), "small": before(small_bert)}


def test_such_a_run_resumes_and_its_models_are_used(
    federation: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    path, digests = federation
    out = tmp_path / "run"
    begin(path, out, digests, 1)
    end = simulation.resume(out)
    assert end.folder == out
    with Ledger.open(out / "ledger.sqlite", read_only=True) as ledger:
        entry = ledger.last("run")
    assert entry is not None
    assert entry.body["base"]["digest"] == digests[MAIN]
    assert verify_run(out)["ok"]
    assert predict_texts(out, "site0", ["the nurse was rude"], 4)[0]["label"] in ("good", "bad")
    rows = export_models(out, None, tmp_path / "out", False, {"emissions": None})
    assert {row["name"] for row in rows} == {"site0", "site1", "shared", "shared-small"}


def test_and_it_does_not_resume_on_another_base(
    federation: tuple[Path, dict[str, str]], tiny_bert: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    path, digests = federation
    copy = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    path.write_text(path.read_text().replace(str(tiny_bert), str(copy)))
    begin(path, tmp_path / "run", digests, 1)
    tensors = load_file(copy / "model.safetensors")
    tensors["encoder.layer.0.output.dense.bias"][0] += 1
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match=r"the weights of \[base\]"):
        simulation.resume(tmp_path / "run")
