"""Budgets kept in real small runs: steps cut, tasks refused, rounds ended, all with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from builders import build_setup, records
from tequio.app.assembly.budget import build_budget_tracker
from tequio.app.simulation.run import start
from tequio.cli.summary import print_summary
from tequio.config import load_federation, load_participant
from tequio.coordinator.buffered import run_window
from tequio.coordinator.byte_bounds import round_most
from tequio.coordinator.round import open_state, run_round
from tequio.core.errors import ConfigError
from tequio.core.reason import Reason
from tequio.core.texts.words import ENGLISH
from tequio.ledger.record import Ledger
from tequio.participant.accounts import read_account_books
from tequio.report.data.accounts import accounts
from tequio.report.data.summary import summary
from tequio.report.data.versus_alone import against_alone
from tequio.report.html.report import render
from tequio.runtimes.embedded import Embedded


def travelled(rounds: list[Any]) -> int:
    """Bytes up and down of participants' rows; the centre is where the coordinator is."""
    rows = [row for body in rounds for row in body["train"] if row["name"] != "centre"]
    return sum(row["bytes_up"] + row["bytes_down"] for row in rows)


def test_a_participants_budget_cuts_its_steps_and_then_refuses(
    make_federation: Any, tmp_path: Path
) -> None:
    train = {"rounds": 3, "max_steps": 40, "local_epochs": 10.0, "patience": 3}
    path = make_federation(rows=60, train=train, centre=False)
    file = path.parent / "participants" / "site0.toml"
    limit = 2e-8  # kWh, .07 J: some steps of this small model
    file.write_text(file.read_text() + f"\n[budget]\nkwh = {limit}\n")
    run = tmp_path / "run"
    start(load_federation(path), run, False)
    entries, kinds = records(run)
    work = [line for line in read_account_books(run)["site0"] if line["work"] == "train"]
    asked = next(p for p in kinds["run"][0]["participants"] if p["name"] == "site0")["steps"]
    rows = [row for body in kinds["round"] for row in body["train"] if row["name"] == "site0"]
    assert len(rows) < 3  # refused before the end
    assert rows == [] or rows[-1]["steps"] < asked
    assert all(row["note"]["code"] == "steps-cut" for row in rows if row["steps"] < asked)
    dearest = max(
        [
            line["joules"] / 3.6e6 / max(1, row["steps"])
            for line, row in zip(work, rows, strict=True)
        ],
        default=0,
    )
    spent = sum(line["joules"] for line in work) / 3.6e6
    assert spent <= limit + 3 * dearest  # one step, with what a task takes beside its steps
    refused = [
        a["reason"]
        for body in kinds["round"]
        for a in body["admissions"]
        if a["status"] == "withheld"
    ]
    assert refused
    assert all(
        reason == {"code": "own-budget-spent", "facts": {"keys": ["kwh"]}} for reason in refused
    )
    assert all(
        row["steps"] == asked
        for b in kinds["round"]
        for row in b["train"]
        if row["name"] == "site1"
    )
    assert "budget of energy is spent" in render(entries, "en")


def test_a_federations_budget_ends_the_rounds(make_federation: Any, tmp_path: Path) -> None:
    """In megabytes, which are the same on every machine: enough for two rounds of fifty, and no
    byte more is spent.
    """
    start(
        load_federation(make_federation(rows=60, folder="short", train={"rounds": 1})),
        tmp_path / "one",
        False,
    )
    _, once = records(tmp_path / "one")
    sent = travelled(once["round"])
    most = {"megabytes": 2.5 * sent / 1e6}
    path = make_federation(rows=60, train={"rounds": 50, "patience": 50}, budget=most)
    outcome = start(load_federation(path), tmp_path / "run", False)
    entries, kinds = records(tmp_path / "run")
    made = len(kinds["round"])
    assert made == 2
    assert kinds["budget"][0]["round"] == made
    assert "The rounds ended early, after" in render(entries, "en")
    assert outcome.end["reason"]["code"] == "bytes-spent"
    assert len(kinds["personal"]) == 2  # made all the same
    spent = travelled(kinds["round"])
    assert spent <= 1e6 * most["megabytes"] < 1.5 * spent


@pytest.mark.parametrize(
    "algorithm",
    [
        {"upload": "quantise", "download": "half"},
        {"reduce": "fedit"},
        {"reduce": "rolora", "upload": "topk", "feedback": 1.0},
        {"start": "flexlora"},
        {"server": "adam"},
    ],
)
def test_a_rounds_bytes_are_bounded_before_it(
    make_federation: Any, algorithm: dict[str, Any]
) -> None:
    """For every way of sending."""
    setup = build_setup(make_federation(rows=60, train={"rounds": 3}, algorithm=algorithm))
    runtime = Embedded(setup.nodes)
    state, _ = open_state(setup.run_spec, runtime)
    for _ in range(3):
        most = round_most(state, setup.run_spec)
        state, body = run_round(state, setup.run_spec, runtime)
        assert 0.5 * most <= travelled([body]) <= most


def test_so_are_those_of_a_window_in_which_late_updates_land(make_federation: Any) -> None:
    train = {"pace": "buffered", "round_seconds": 10.0, "rounds": 6, "patience": 9}
    path = make_federation(rows=60, train=train)
    slow = path.parent / "participants" / "site0.toml"
    slow.write_text(
        slow.read_text().replace("[hardware]\n", "[hardware]\ntokens_per_second = 10.0\n")
    )
    setup = build_setup(path)
    runtime = Embedded(setup.nodes)
    state, _ = open_state(setup.run_spec, runtime)
    late = 0
    for _ in range(6):
        most = round_most(state, setup.run_spec)
        state, body = run_window(state, setup.run_spec, runtime)
        late += sum(row.get("staleness", 0) > 0 for row in body["train"])
        assert travelled([body]) <= most
    assert late


def test_an_upload_that_does_not_fit_is_not_begun(make_federation: Any, tmp_path: Path) -> None:
    path = make_federation(rows=60, train={"rounds": 3, "patience": 3}, centre=False)
    file = path.parent / "participants" / "site0.toml"
    plain = tmp_path / "plain"
    start(load_federation(path), plain, False)
    _, kinds = records(plain)
    one = next(row["bytes_up"] for row in kinds["round"][0]["train"] if row["name"] == "site0")
    file.write_text(file.read_text() + f"\n[budget]\nmegabytes = {2.5 * one / 1e6}\n")
    start(load_federation(path), tmp_path / "run", False)
    _, kinds = records(tmp_path / "run")
    lines = [
        line for line in read_account_books(tmp_path / "run")["site0"] if line["work"] == "train"
    ]
    assert [line["bytes"] for line in lines] == [one, one]
    refused = [
        a["reason"]
        for body in kinds["round"]
        for a in body["admissions"]
        if a["status"] == "withheld"
    ]
    assert refused == [{"code": "own-budget-spent", "facts": {"keys": ["megabytes"]}}]


def joules(run: Path, name: str) -> dict[str, float]:
    """Of the own book, by kind of work."""
    out: dict[str, float] = {}
    for line in read_account_books(run)[name]:
        out[line["work"]] = out.get(line["work"], 0.0) + line["joules"]
    return out


LONG = {"local_rates": [5e-3, 2e-3], "private_rates": [2e-3], "private_epochs": 20.0}


def test_an_own_budget_covers_the_personal_model_too(make_federation: Any, tmp_path: Path) -> None:
    """Enough for the rounds and for about a third of the personal model."""
    path = make_federation(
        rows=80, train={"rounds": 1, "max_steps": 4}, personal=LONG, centre=False
    )
    start(load_federation(path), tmp_path / "plain", False)
    whole = joules(tmp_path / "plain", "site0")
    limit = (
        whole["train"] + whole["evaluate"] + (whole["local"] + whole["personal"]) / 3.0
    ) / 3.6e6
    file = path.parent / "participants" / "site0.toml"
    file.write_text(file.read_text() + f"\n[budget]\nkwh = {limit}\n")
    start(load_federation(path), tmp_path / "run", False)
    entries, kinds = records(tmp_path / "run")
    made = {body["name"]: body for body in kinds["personal"]}
    assert made["site0"]["cut"]["facts"]["keys"] == ["kwh"]
    assert "cut" not in made["site1"]
    assert sum(joules(tmp_path / "run", "site0").values()) < 0.8 * sum(whole.values())
    assert made["site0"]["fits"]["local"]["step"] < made["site1"]["fits"]["local"]["step"] or any(
        one["facts"].get("fit") == "local" for one in made["site0"]["cut"]["facts"]["cut"]
    )
    assert "site0: a budget shortened the training of its personal model" in render(entries, "en")
    assert [row["name"] for row in against_alone(entries)["participants"]] == ["site1"]


def test_where_nothing_is_left_the_shared_model_is_delivered(
    make_federation: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All own budgets are spent after the first look: the rounds end, nobody trains, nobody
    fails.
    """
    path = make_federation(rows=60, train={"rounds": 3}, personal={"ditto": [0.1]}, centre=False)
    for name in ("site0", "site1"):
        file = path.parent / "participants" / f"{name}.toml"
        file.write_text(file.read_text() + "\n[budget]\nkwh = 1e-12\n")
    run = tmp_path / "run"
    outcome = start(load_federation(path), run, False)
    entries, kinds = records(run)
    assert outcome.end["reason"] == {
        "code": "own-budgets-spent",
        "facts": {"count": 2, "participants": 2},
    }
    assert "round" not in kinds
    assert len(kinds["wait"]) == 1
    for body in kinds["personal"]:
        assert body["chosen"] == "shared"
        cut = body["cut"]["facts"]["cut"][0]
        assert (cut["code"], cut["facts"]["fit"], cut["facts"]["steps"]) == (
            "fit-shortened",
            "local",
            0,
        )
        assert body["test"]["local"] == body["test"]["base"]
        assert body["benefit"] is None  # nothing was trained alone to compare with
        assert body["gains"]["personal_over_local"] == {"loss": None, "accuracy": None}
        assert body["gains"]["personal_over_base"]["loss"] is not None
    assert [line["work"] for line in read_account_books(run)["site0"]] == [
        "evaluate",
        "local",
        "personal",
    ]
    print_summary(run, run / "report.html", summary(entries))
    printed, found = " ".join(capsys.readouterr().out.split()), summary(entries)
    for name in ("site0", "site1"):
        words = ENGLISH("personal.base", name=name, how="local model: 0 of").removesuffix(".")
        assert words in printed
    assert (found["comparison"], found["comparison_cut"]) == ("base", True)
    assert [person["versus"] for person in found["participants"]] == ["base", "base"]
    page, pagina = render(entries, "en"), render(entries, "es")
    assert page.count("So its gain is over the base model: local model: 0 of") == 2
    assert pagina.count("Por eso su mejora es frente al modelo base: modelo local: 0 de") == 2


@pytest.mark.parametrize("shape", ["peers", "bases"])
def test_spent_budgets_end_the_rounds_of_peers_and_of_bases(
    make_federation: Any, make_two_bases: Any, tmp_path: Path, shape: str
) -> None:
    train = {"rounds": 3}
    if shape == "peers":
        path = make_federation(
            rows=60,
            participants=3,
            train=train,
            topology={"kind": "ring"},
            algorithm={"weights": "uniform"},
            centre=False,
        )
    else:
        path = make_two_bases(participants=2, train=train)
    for file in (path.parent / "participants").glob("*.toml"):
        file.write_text(file.read_text() + "\n[budget]\nkwh = 1e-12\n")
    outcome = start(load_federation(path), tmp_path / "run", False)
    entries, kinds = records(tmp_path / "run")
    assert outcome.end["reason"]["code"] == "own-budgets-spent"
    assert "round" not in kinds
    assert all(body["cut"] for body in kinds["personal"])
    assert "have spent their own budgets" in render(entries, "en")


def test_a_federations_budget_covers_the_personal_models_too(
    make_federation: Any, tmp_path: Path
) -> None:
    path = make_federation(rows=80, train={"rounds": 1, "max_steps": 4}, personal=LONG)
    start(load_federation(path), tmp_path / "plain", False)

    def spent(run: Path) -> tuple[float, float]:
        """Joules of the rounds, and of the personal models."""
        _, kinds = records(run)
        rounds = sum(body["energy"]["joules"] for body in [*kinds["start"], *kinds["round"]])
        return rounds, sum(body["energy"]["joules"] for body in kinds["personal"])

    rounds, personal = spent(tmp_path / "plain")
    path = make_federation(
        rows=80,
        folder="bound",
        train={"rounds": 1, "max_steps": 4},
        personal=LONG,
        budget={"kwh": (1.2 * rounds + personal / 3.0) / 3.6e6},
    )
    start(load_federation(path), tmp_path / "run", False)
    _, kinds = records(tmp_path / "run")
    assert len(kinds["round"]) == 1
    assert all(body["cut"]["facts"]["keys"] == ["kwh"] for body in kinds["personal"])
    assert spent(tmp_path / "run")[1] < 0.8 * personal


def test_a_budget_of_money_counts_what_the_accounts_count(
    make_federation: Any, tmp_path: Path
) -> None:
    """The coordinator's, which no key need tell."""
    money = {"currency": "EUR", "per_kwh": 0.3, "rent_per_hour": 2.0}
    path = make_federation(rows=60, train={"rounds": 2}, money=money, budget={"money": 100.0})
    config = load_federation(path)
    start(config, tmp_path / "run", False)
    entries, _ = records(tmp_path / "run")
    with Ledger.open(tmp_path / "run" / "ledger.sqlite", read_only=True) as ledger:
        tracker = build_budget_tracker(config, ledger, one_process=True)
    assert tracker is not None
    disclosed = accounts(entries)["total"]["money"]
    assert 0 < disclosed["EUR"] == pytest.approx(tracker.spent["money"])


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
    ("energy", "code"),
    [
        ("", "carbon-without-place"),
        ('[energy]\ncountry = "DE"\ntell = false\n', "carbon-private"),
    ],
)
def test_a_carbon_budget_is_refused_where_somebody_does_not_tell(
    make_federation: Any, tmp_path: Path, energy: str, code: str
) -> None:
    path = make_federation(rows=40, budget={"kg_co2e": 100.0}, energy={"country": "DE"})
    file = path.parent / "participants" / "site0.toml"
    file.write_text(file.read_text() + "\n" + energy)
    with pytest.raises(ConfigError) as caught:
        start(load_federation(path), tmp_path / "run", False)
    assert caught.value.reason == Reason(code, {"who": "site0"})


def test_a_budget_that_pays_for_no_round_is_said(
    make_federation: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_federation(rows=40, budget={"kwh": 1e-12})
    run = tmp_path / "run"
    start(load_federation(path), run, False)
    entries, kinds = records(run)
    assert "round" not in kinds
    print_summary(run, run / "report.html", summary(entries))
    assert "No round was completed: the budget of energy is spent." in capsys.readouterr().out
    page = render(entries, "en")
    assert (
        "No round was completed: the budget of energy is spent. It is not known whether joining "
        "pays" in page
    )
    assert "paid for none" not in page
