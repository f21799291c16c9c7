"""A newcomer starts from a finished federation; the run is only read, and nothing of the newcomer's
text is in what is written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from builders import records, refused, sentences, write_jsonl
from tequio.app.models.adapt import adapt
from tequio.app.models.predict import predict_texts
from tequio.app.models.verify import verify_run
from tequio.app.simulation.run import resume, start
from tequio.cli.accounts import accounts as say_accounts
from tequio.cli.summary import print_adapted
from tequio.config import load_federation
from tequio.core.canonical import digest_update, unpack
from tequio.core.errors import RunError
from tequio.core.texts.words import Words
from tequio.ledger.folder import open_to_others
from tequio.participant.accounts import read_account_books
from tequio.report.data.accounts import accounts
from tequio.report.html.report import render


def newcomer(folder: Path, name: str, rows: int) -> Path:
    data = write_jsonl(folder / f"{name}.jsonl", sentences(rows, 900))
    path = folder / f"{name}.toml"
    path.write_text(
        f'name = "{name}"\n[data]\npath = "{data}"\n[hardware]\nmax_rank = 2\n', encoding="utf-8"
    )
    return path


@pytest.fixture
def run(make_federation: Any, tmp_path: Path) -> Path:
    return start(
        load_federation(make_federation(participants=2)), tmp_path / "run", counterfactuals=False
    ).folder


def test_a_newcomer_gets_the_best_of_its_candidates(run: Path, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    file = newcomer(tmp_path, "late", 60)
    result = adapt(run, file, tmp_path / "out")
    assert {
        p: p.read_bytes() for p in run.rglob("*") if p.is_file()
    } == before  # the run is only read

    assert not open_to_others(tmp_path / "out")
    assert sum(result["examples"].values()) == 60  # every row is in one split
    assert result["rank"] == 2  # its hardware's limit
    assert set(result["test"]) == {"base", "local", "shared", "personal", "general"}
    assert result["chosen"] in result["candidates"]
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == result
    weights = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert weights, "an adapter that plain peft can load"

    twin = adapt(run, file, tmp_path / "twin")
    digests = {
        digest_update(unpack((tmp_path / x / "personal.safetensors").read_bytes(), x))
        for x in ("out", "twin")
    }
    assert len(digests) == 1  # the same seed gives the same model
    assert twin["chosen"] == result["chosen"]

    written = "".join(
        p.read_bytes().decode("latin-1") for p in (tmp_path / "out").rglob("*") if p.is_file()
    )
    assert not [row["text"] for row in sentences(60, 900) if row["text"] in written]


def test_an_adaptation_has_an_account_book_and_a_record(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it took is in its own folder: told figures in the record, private ones in the book
    alone; neither in the run.
    """
    file, out = newcomer(tmp_path, "late", 60), tmp_path / "out"
    placed = (
        '[energy]\ncountry = "DE"\n[money]\ncurrency = "EUR"\nper_kwh = 0.3\nrent_per_hour = 2.0\n'
    )
    file.write_text(file.read_text() + placed)
    result = adapt(run, file, out)
    lines = read_account_books(out)["late"]
    assert [line["work"] for line in lines] == ["local", "personal"]
    assert (out / "participants" / "late" / "accounts.jsonl").stat().st_mode & 0o777 == 0o600
    assert verify_run(out)["ok"]
    entries, _ = records(out)
    [row] = accounts(entries)["participants"]
    assert row["joules"] == pytest.approx(sum(line["joules"] for line in lines))
    assert row["grams"] == pytest.approx(row["joules"] / 3.6e6 * 380.95)  # Germany
    assert row["money"] == {}  # [money] tell = false
    say_accounts(out, own=True)
    printed = capsys.readouterr().out
    hours = sum(line["seconds"] for line in lines) / 3600.0
    euro = 2.0 * hours + 0.3 * row["joules"] / 3.6e6
    assert f"{euro:.4g} EUR" in printed
    assert "the rounds are in" not in printed
    report = render(entries, "en")
    assert "late" in report
    assert "EUR" not in report
    assert predict_texts(out, "late", ["the nurse was kind"], 5)
    print_adapted(result)
    assert f"More: tequio accounts {out} --own" in capsys.readouterr().out.replace("\n", " ")


def test_a_newcomers_budget_is_said_and_no_gain_over_what_was_not_trained(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = newcomer(tmp_path, "late", 60)
    file.write_text(file.read_text() + "[budget]\nkwh = 1e-12\n")
    result = adapt(run, file, tmp_path / "out")
    print_adapted(result)
    printed = " ".join(capsys.readouterr().out.split())
    w = Words("en")
    assert result["cut"]["code"] == "personal-cut"
    assert w("personal.short", name="late", how=w.reason(result["cut"])) in printed
    assert "Gain over starting alone" not in printed


def test_a_member_is_no_newcomer(run: Path, tmp_path: Path) -> None:
    with refused(RunError, "newcomer-name-taken", name="site0"):
        adapt(run, newcomer(tmp_path, "site0", 60), tmp_path / "out")


def test_an_occupied_folder_is_left_alone(run: Path, tmp_path: Path) -> None:
    with refused(RunError, "record-exists") as caught:
        adapt(run, newcomer(tmp_path, "late", 60), run)
    assert "--resume" not in str(caught.value)  # which could not make an adaptation
    assert "Name another folder" in str(caught.value)


def test_an_adaptation_is_not_resumed_but_said_to_be_whole(run: Path, tmp_path: Path) -> None:
    adapt(run, newcomer(tmp_path, "late", 60), tmp_path / "out")
    with refused(RunError, "record-of-adapt"):
        resume(tmp_path / "out")
