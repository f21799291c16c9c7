"""Budgets kept in real small runs: steps cut, tasks refused, rounds ended, all with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tequio.cli.summary import print_summary
from tequio.core.errors import ConfigError
from tequio.ledger.record import Ledger
from tequio.recipes.books import read_books
from tequio.recipes.config import load_federation, load_participant
from tequio.recipes.run import start
from tequio.web.report import render
from tequio.web.summary import summary


def records(run: Path) -> tuple[list[Any], dict[str, list[Any]]]:
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        entries = list(ledger.entries())
    kinds: dict[str, list[Any]] = {}
    for entry in entries:
        kinds.setdefault(entry.kind, []).append(entry.body)
    return entries, kinds


def test_a_participants_budget_cuts_its_steps_and_then_refuses(make_federation: Any, tmp_path: Path) -> None:
    train = {"rounds": 3, "max_steps": 40, "local_epochs": 10.0, "patience": 3}
    path = make_federation(rows=60, train=train, centre=False)
    file = path.parent / "participants" / "site0.toml"
    limit = 2e-8  # kWh, .07 J: some steps of this small model
    file.write_text(file.read_text() + f"\n[budget]\nkwh = {limit}\n")
    run = tmp_path / "run"
    start(load_federation(path), run, False)
    entries, kinds = records(run)
    work = [line for line in read_books(run)["site0"] if line["work"] == "train"]
    asked = next(p for p in kinds["run"][0]["participants"] if p["name"] == "site0")["steps"]
    rows = [row for body in kinds["round"] for row in body["train"] if row["name"] == "site0"]
    assert len(rows) < 3  # refused before the end
    assert rows == [] or rows[-1]["steps"] < asked
    assert all("no more fit the budget" in row["note"] for row in rows if row["steps"] < asked)
    dearest = max(
        [line["joules"] / 3.6e6 / max(1, row["steps"]) for line, row in zip(work, rows, strict=True)], default=0
    )
    spent = sum(line["joules"] for line in work) / 3.6e6
    assert spent <= limit + 3 * dearest  # one step, with what a task takes beside its steps
    refused = [a["reason"] for body in kinds["round"] for a in body["admissions"] if a["status"] == "withheld"]
    assert refused
    assert all("its own budget of energy is spent" in reason for reason in refused)
    assert all(row["steps"] == asked for b in kinds["round"] for row in b["train"] if row["name"] == "site1")
    assert not any("Error" in reason for reason in refused)
    assert "budget of energy is spent" in render(entries, "en")


def test_a_federations_budget_ends_the_rounds(make_federation: Any, tmp_path: Path) -> None:
    """In megabytes, which are the same on every machine: enough for a few rounds of fifty."""
    start(load_federation(make_federation(rows=60, folder="short", train={"rounds": 1})), tmp_path / "one", False)
    _, once = records(tmp_path / "one")
    sent = sum(row["bytes_up"] + row["bytes_down"] for row in once["round"][0]["train"])
    most = {"megabytes": 2.5 * sent / 1e6}
    path = make_federation(rows=60, train={"rounds": 50, "patience": 50}, budget=most)
    outcome = start(load_federation(path), tmp_path / "run", False)
    entries, kinds = records(tmp_path / "run")
    made = len(kinds["round"])
    assert 1 <= made < 10
    assert kinds["budget"][0]["round"] == made
    assert "The rounds ended early, after" in render(entries, "en")
    assert outcome.end["reason"] == "the budget of bytes is spent"
    assert len(kinds["personal"]) == 2  # made all the same
    before = sum(row["bytes_up"] + row["bytes_down"] for body in kinds["round"][:-1] for row in body["train"])
    assert before <= 1e6 * most["megabytes"]  # the last round at most went beyond


def test_carbon_and_money_need_a_place_and_prices(make_federation: Any) -> None:
    for sections, words in (
        ({"budget": {"kg_co2e": 1.0}}, "the coordinator's carbon is not known"),
        ({"budget": {"money": 1.0}}, "in which currency"),
        ({"budget": {"kwh": 1.0}, "topology": {"kind": "ring"}}, "use a star"),
        ({"budget": {"kwh": 0.0}}, "budget.kwh"),
    ):
        with pytest.raises(ConfigError, match=words):
            load_federation(make_federation(rows=10, centre=False, folder=words[:6], **sections))
    file = make_federation(rows=10, folder="own").parent / "participants" / "site0.toml"
    for key, words in (("kg_co2e", "carbon is not known"), ("money", "costs are not known")):
        text = file.read_text()
        file.write_text(f"{text}\n[budget]\n{key} = 1.0\n")
        with pytest.raises(ConfigError, match=words):
            load_participant(file, "site0")
        file.write_text(text)


@pytest.mark.parametrize(
    ("energy", "words"),
    [
        ("", "site0 does not tell.*no .energy. country"),
        ('[energy]\ncountry = "DE"\ntell = false\n', "site0 .*tell = true"),
    ],
)
def test_a_carbon_budget_is_refused_where_somebody_does_not_tell(
    make_federation: Any, tmp_path: Path, energy: str, words: str
) -> None:
    path = make_federation(rows=40, budget={"kg_co2e": 100.0}, energy={"country": "DE"})
    file = path.parent / "participants" / "site0.toml"
    file.write_text(file.read_text() + "\n" + energy)
    with pytest.raises(ConfigError, match=words):
        start(load_federation(path), tmp_path / "run", False)


def test_a_budget_that_pays_for_no_round_is_said(
    make_federation: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_federation(rows=40, budget={"kwh": 1e-12})
    run = tmp_path / "run"
    start(load_federation(path), run, False)
    entries, kinds = records(run)
    assert "round" not in kinds
    print_summary(run, run / "report.html", summary(entries))
    assert "No round was made: the budget of energy is spent." in capsys.readouterr().out
    page = render(entries, "en")
    assert "No round was made: the budget of energy is spent. Whether joining pays" in page
    assert "paid for none" not in page
