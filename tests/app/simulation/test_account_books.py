"""Accounts of a real small run: told and private parts, own books, and keys that are refused."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from builders import records
from tequio.app.assembly.site import build_site
from tequio.app.models.export import export_models
from tequio.app.simulation.run import start
from tequio.cli.accounts import accounts as say_accounts
from tequio.cli.accounts import run_emissions
from tequio.config import load_federation, load_participant
from tequio.core.errors import ConfigError
from tequio.core.types import Energy
from tequio.ledger.folder import RunFolder
from tequio.participant.accounts import AccountBook, read_account_books
from tequio.report.data.accounts import accounts
from tequio.report.data.summary import summary
from tequio.report.data.versus_alone import against_alone, of_books


def extend(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_energy_is_one_number_whatever_watts_a_participant_states(
    make_federation: Any, tmp_path: Path
) -> None:
    path = make_federation(rows=40)
    people = path.parent / "participants"
    file = people / "site0.toml"
    file.write_text(file.read_text().replace("[hardware]", "[hardware]\ntdp_watts = 100000.0"))
    run = tmp_path / "run"
    start(load_federation(path), run, False)
    entries, _ = records(run)
    found, shown = accounts(entries), summary(entries)
    rows = [
        row
        for e in entries
        if e.kind == "round"
        for row in e.body["train"]
        if row["name"] == "site0"
    ]
    if rows[0]["energy"]["method"].endswith("model"):  # a counter does not ask what is stated
        assert found["participants"][0]["joules"] > found["participants"][1]["joules"] * 5
        assert all(row["energy"]["hosted"] < row["joules"] / 5 for row in rows)
    assert found["coordinator"]["joules"] > 0
    assert shown["cost"]["joules"] == found["total"]["joules"]
    assert shown["cost"]["joules"] > sum(p["joules"] for p in shown["participants"])


def test_a_run_tells_what_it_may_and_keeps_the_rest_in_the_books(
    make_federation: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_federation(rows=40, energy={"country": "MX"})
    people = path.parent / "participants"
    extend(people / "site0.toml", '\n[energy]\ncountry = "DE"\nembodied_kg = 100.0\n')
    extend(
        people / "site0.toml",
        '[money]\ncurrency = "EUR"\nper_kwh = 0.3\nrent_per_hour = 1.0\ntell = true\n',
    )
    extend(
        people / "site1.toml",
        '\n[energy]\ncountry = "FR"\ntell = false\n[money]\ncurrency = "CHF"\ncapital = 0.0\n',
    )
    run = tmp_path / "run"
    start(load_federation(path), run, False)
    entries, _ = records(run)
    disclosed = {row["name"]: row for row in accounts(entries)["participants"]}
    assert disclosed["site0"]["intensity"] == pytest.approx(380.95)  # Germany
    assert disclosed["site0"]["money"]["EUR"] > 0
    assert disclosed["site0"]["embodied"] > 0
    assert (disclosed["site1"]["grams"], disclosed["site1"]["money"]) == (None, {})
    assert disclosed["site1"]["joules"] > 0
    assert accounts(entries)["coordinator"]["intensity"] == pytest.approx(507.245)  # Mexico
    assert "FRA" not in json.dumps([dict(e.body) for e in entries], default=dict)
    private = [run / "participants/site0" / file for file in ("accounts.jsonl", "salt")]
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}
    books = read_account_books(run)
    assert [line["work"] for line in books["site1"]] == [
        *["evaluate", "train"] * 2,
        "evaluate",
        "local",
        "personal",
    ]
    assert {line["money"]["currency"] for line in books["site1"]} == {"CHF"}
    assert sum(line["money"]["amount"] for line in books["site1"]) == 0.0
    assert all(line["intensity"] == pytest.approx(56.039) for line in books["site1"])  # France
    assert sum(line["joules"] for line in books["site0"]) == pytest.approx(
        disclosed["site0"]["joules"]
    )

    # against training alone: the local model apart, in the record as it is told and in the book
    # with private money
    compared = {row["name"]: row for row in against_alone(entries)["participants"]}
    separate = {
        work: [x for x in books["site0"] if (x["work"] == "local") == work]
        for work in (True, False)
    }
    assert compared["site0"]["alone"]["joules"] == pytest.approx(
        sum(x["joules"] for x in separate[True])
    )
    assert compared["site0"]["joined"]["joules"] == pytest.approx(
        sum(x["joules"] for x in separate[False])
    )
    money = [sum(x["money"]["amount"] for x in separate[work]) for work in (True, False)]
    assert compared["site0"]["avoided"]["money"] == {"EUR": pytest.approx(money[0] - money[1])}
    assert compared["site0"]["avoided"]["grams"] is not None
    assert (compared["site1"]["avoided"]["money"], compared["site1"]["avoided"]["grams"]) == (
        {},
        None,
    )
    assert {row["name"]: set(row["avoided"]["money"]) for row in of_books(books)} == {
        "site0": {"EUR"},
        "site1": {"CHF"},
    }
    local = next(e.body for e in entries if e.kind == "personal")["local_cost"]
    asked = next(e.body for e in entries if e.kind == "run")["participants"][0]
    epoch = math.ceil(asked["batches"]["train"] / 8)  # for the private adapter, beside two rounds
    assert local["steps"] == 2 * asked["steps"] + epoch
    assert local["tokens"] > 0

    say_accounts(run)
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "not known. Kept private by site1 ([energy] tell = false in participant.toml)." in printed
    )

    english = r"\b(the|and|who|energy|money|of|alone|joined|avoided|private|not|known|in|all|coordinator|rounds|Boundary)\b"
    for own in (False, True):
        say_accounts(run, own, "es")
        spanish = re.sub(
            r"\[energy\] [a-z]+ (o intensity|= false) en [a-z]+\.toml", "", capsys.readouterr().out
        )
        assert re.findall(english, spanish) == []
        assert ("Cuentas propias" in spanish) is own
        assert "Gramos para una ficha del modelo: no se sabe. Dato privado de site1" in " ".join(
            spanish.split()
        )

    # the model card says grams where they are known, and that they are not where not
    known = {"emissions": 12.5, "source": "a test", "training_type": "fine-tuning"}
    for emissions, said in ((known, 12.5), (run_emissions(run), None)):
        out = tmp_path / f"out-{said}"
        export_models(run, "site0", out, False, emissions)
        card = ModelCard.load(out / "site0" / "adapter" / "README.md")
        assert card.data.base_model is None  # a folder, whose path is not published
        assert (card.data.get("co2_eq_emissions") or {}).get("emissions") == said
        assert ("not known" in card.text) == (said is None)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[energy]\ncountry = "Germny"\n', "nearest: Germany"),
        ('[energy]\nzone = "DE"\n', "zone names one of several"),
        ("[energy]\npue = 0.5\n", "energy.pue"),
        ('[money]\ncurrency = "EUR"\n', "give per_kwh"),
        ('[money]\ncurrency = "euro"\nper_kwh = 0.1\n', "money.currency"),
        ('[money]\ncurrency = "EUR"\nper_kwh = -0.1\n', "money.per_kwh"),
        ('[money]\ncurrency = "EUR"\nrent_per_hour = 1.0\ncapital = 1.0\n', "not both"),
    ],
)
def test_bad_keys_are_refused(make_federation: Any, text: str, words: str) -> None:
    file = make_federation(rows=10).parent / "participants" / "site0.toml"
    extend(file, f"\n{text}")
    with pytest.raises(ConfigError, match=words):
        load_participant(file, "site0")


def test_a_bad_file_of_intensities_is_found_by_its_line(make_federation: Any) -> None:
    file = make_federation(rows=10).parent / "participants" / "site0.toml"
    (file.parent / "odd.csv").write_text("time,value\n")
    extend(file, '\n[energy]\nintensity = "odd.csv"\n')
    loaded = load_participant(file, "site0")
    with pytest.raises(ConfigError, match=r"odd\.csv, line 1"):
        build_site(loaded.energy, loaded.money)


def test_a_book_cut_off_loses_its_last_line_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    folder, energy = RunFolder(tmp_path), Energy(3.6e6, 3600.0, "model", "cpu package", 0.4)
    books = AccountBook(limits={"kwh": 5.0}).opened(folder, "p")
    for round_ in (1, 2):
        books.enter("train", round_, energy, None)
    path = tmp_path / "p" / "accounts.jsonl"
    path.write_text(path.read_text() + '{"work": "tra')  # killed as it wrote
    again = AccountBook(limits={"kwh": 5.0}).opened(folder, "p")
    assert again.left() == {"kwh": 3.0}
    again.enter("train", 3, energy, None)
    assert [line["round"] for line in map(json.loads, path.read_text().splitlines())] == [1, 2, 3]
    assert AccountBook(limits={"kwh": 5.0}).opened(folder, "p").left() == {"kwh": 2.0}
    path.write_text("what?\n" + path.read_text())
    with pytest.raises(ConfigError, match="is damaged"):
        AccountBook().opened(folder, "p")
