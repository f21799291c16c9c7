"""Budgets across a network: the coordinator ends the rounds before bytes are overrun; who has spent
its own still gets the shared model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from network_processes import ALONE, background, federation, tequio

from builders import bodies, free_port
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.participant.accounts import read_account_books

pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")


def sent(run: Path, *names: str) -> int:
    """Bytes up and down of these participants' rows."""
    rows = [row for body in bodies(run, "round") for row in body["train"] if row["name"] in names]
    return sum(row["bytes_up"] + row["bytes_down"] for row in rows)


@pytest.mark.timeout(600)
def test_budgets_are_retained_across_a_network(make_federation: Any, tmp_path: Path) -> None:
    shape = {"rounds": 30, "patience": 30}
    alone = start(
        load_federation(make_federation(folder="one", train={"rounds": 1})),
        tmp_path / "alone",
        False,
    ).folder
    limit = (
        4.5 * sent(alone, "site1") / 1e6
    )  # a round is begun where it pays for both; site0 will send nothing
    toml = make_federation(train=shape, budget={"megabytes": limit})
    file = toml.parent / "participants" / "site0.toml"
    file.write_text(file.read_text() + "\n[budget]\nkwh = 1e-12\n")
    with federation(tmp_path, toml, f"127.0.0.1:{free_port()}") as folders:
        logs = {name: tmp_path / f"{name}.log" for name in folders}
        first = background(logs["site0"], "participate", folders["site0"], *ALONE)
        second = background(logs["site1"], "participate", folders["site1"], *ALONE)
        with first as one, second as two:
            assert (one.wait(400), two.wait(60)) == (0, 0), [
                log.read_text() for log in logs.values()
            ]
    run = tmp_path / "hub" / "run"
    rounds = bodies(run, "round")
    assert len(rounds) in (1, 2, 3)
    assert 0 < sent(run, "site0", "site1") <= 1e6 * limit
    assert bodies(run, "budget")[0]["reason"]["code"] == "bytes-spent"
    assert {a["status"] for body in rounds for a in body["admissions"] if a["name"] == "site0"} == {
        "withheld"
    }
    personal = {body["name"]: body for body in bodies(run, "personal")}
    assert personal["site0"]["chosen"] == "shared"
    assert personal["site0"]["cut"] == {"code": "own-budget-private", "facts": {}}  # and no figures
    assert (personal["site0"]["fits"], personal["site0"]["local_cost"]) == ({}, {})
    assert personal["site0"]["gains"]["personal_over_local"] == {"loss": None, "accuracy": None}
    at_home = bodies(folders["site0"] / "run", "personal")[0]["cut"]["facts"]["cut"][0]
    assert at_home["facts"]["fit"] == "local"
    assert at_home["facts"]["steps"] == 0
    assert "cut" not in personal["site1"]
    [book] = [read_account_books(folders["site0"] / "run")["site0"]]
    assert [line["work"] for line in book] == [
        "evaluate",
        "local",
        "personal",
    ]  # the first look, and the last one
    home = folders["site1"] / "run"
    printed = tequio("accounts", home, "--own")
    assert (
        "Joining against training alone, by the participants' own account books (private)"
        in printed
    )
    assert "as reported" not in printed  # the rounds are in the book alone
    assert "Resume with" not in tequio("report", home)
    assert json.loads(tequio("report", home, "--json"))["summary"]["finished"]
    assert json.loads(tequio("verify", run, "--json"))["ok"]
