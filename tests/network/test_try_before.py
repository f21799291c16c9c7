"""`tequio join --try`: an earlier model is tried at home; nobody listens, nothing is sent, and no
folder is made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from typer.testing import CliRunner

from builders import free_port
from tequio.app.models.export import export_models
from tequio.app.network.hub.folder import init_coordinator_folder
from tequio.app.simulation.run import start
from tequio.cli.main import app
from tequio.config import load_federation


@pytest.fixture
def asked(make_federation: Any, tmp_path: Path) -> tuple[str, str]:
    """(an invitation to a coordinator that is not there, the participant's file); a run lies in
    run/.
    """
    toml = make_federation(participants=2)
    start(load_federation(toml), tmp_path / "run", counterfactuals=False)
    _, invitations = init_coordinator_folder(tmp_path / "hub", toml, f"127.0.0.1:{free_port()}")
    return str(invitations[0]), str(toml.parent / "participants" / "site0.toml")


def test_it_says_whether_joining_would_pay_and_joins_nothing(
    asked: tuple[str, str], tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    said = CliRunner().invoke(app, ["join", *asked, "--try", str(tmp_path / "run"), "--json"])
    assert said.exit_code == 0, said.output
    row = json.loads(said.output)
    assert row["verdict"] in ("pays", "does_not_pay", "open")
    assert row["low"] <= row["benefit"] <= row["high"]
    assert row["verdict"] == "open" or row["texts"] >= 20
    spanish = CliRunner().invoke(
        app, ["join", *asked, "--try", str(tmp_path / "run"), "--lang", "es"]
    )
    words = " ".join(spanish.output.split())
    assert f"según {row['texts']} textos de validación" in words
    assert "Usted no se ha unido" in words
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_without_a_model_is_refused(asked: tuple[str, str], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    said = CliRunner().invoke(app, ["join", *asked, "--try", str(empty)])
    assert said.exit_code != 0
    assert not (tmp_path / "site0").exists()


def test_a_base_of_the_coordinators_choice_is_opened_only_where_it_is_the_coordinators(
    asked: tuple[str, str], tmp_path: Path
) -> None:
    """As when `participate` opens it: the invitation says which files the base must have."""
    export_models(tmp_path / "run", "shared", tmp_path / "exported", merged=False)
    text = Path(asked[0]).read_text(encoding="utf-8")
    invitation = json.loads(text)
    [agreed] = invitation["files"].values()
    Path(asked[0]).write_text(text.replace(agreed, "0" * len(agreed)), encoding="utf-8")
    said = CliRunner().invoke(app, ["join", *asked, "--try", str(tmp_path / "exported" / "shared")])
    assert said.exit_code != 0
    assert "is not the coordinator's" in str(said.exception)
