"""A causal run and its encoding: what a record says of it, and what a run of an earlier encoding
still does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from builders import rewritten, write_jsonl
from tequio.app.models.export import export_models
from tequio.app.models.predict import predict_texts
from tequio.app.models.verify import verify_run
from tequio.app.simulation.run import resume, start
from tequio.config import load_federation
from tequio.core.errors import RunError
from tequio.ledger.record import Ledger
from tequio.participant.encoding import VERSION, Counts
from tequio.report.write import write_report

WORDS = ("the train", "the flight", "my nurse", "our lesson", "the pump", "this seat")
ENDS = ("was late", "was quick again", "was very kind", "was loud today")


def pairs(count: int, long: int) -> list[dict[str, str]]:
    """Different pairs; the first `long` have a response that does not fit."""
    rows = []
    for i in range(count):
        response = f"{ENDS[i % 4]} {WORDS[(i // 4) % 6]}" + (" really" * 20 if i < long else "")
        rows.append({"prompt": f"{WORDS[i % 6]} {WORDS[(i // 6) % 6]} and", "response": response})
    return rows


@pytest.fixture
def federation(make_federation: Any) -> Path:
    """Causal, with pairs; of site0 three do not fit."""
    path: Path = make_federation("causal", centre=False, train={"rounds": 2, "max_steps": 2})
    for i in range(2):
        write_jsonl(path.parent / "data" / f"site{i}.jsonl", pairs(36, 3 if i == 0 else 0))
    return path


def header(run: Path) -> dict[str, Any]:
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        return dict(next(ledger.entries("run")).body)


def as_earlier(run: Path) -> None:
    """Write the same chain as a version without `encoding` would have written it."""

    def without(kind: str, body: dict[str, Any]) -> None:
        if kind == "run":
            assert body.pop("encoding") == VERSION

    rewritten(run, without)


def test_a_run_says_what_was_left_out_and_an_old_one_is_opened(
    federation: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    start(load_federation(federation), run, False)
    found = header(run)
    assert found["encoding"] == VERSION
    site0, site1 = (row["data"] for row in found["participants"])
    assert (site0["cut"], site0["too_long"]) == (0, 3)
    assert site1["cut"] == 0
    assert "too_long" not in site1
    page, summary = write_report(run, "en", None)
    notes = summary["participants"][0]["notes"]
    assert (notes["cut"], notes["too_long"], notes["texts"]) == (
        0,
        3,
        sum(site0["counts"].values()),
    )
    assert "3 of 36 pairs or chats were longer than" in page.read_text(encoding="utf-8")
    as_earlier(run)
    assert verify_run(run)["ok"]
    assert write_report(run, "en", None)[1]["finished"]
    assert len(predict_texts(run, "site1", ["the train and"], 4)) == 1
    out = tmp_path / "out"
    assert export_models(run, "shared", out, False)
    assert (
        json.loads((out / "shared" / "adapter" / "encoding.json").read_text())["version"] == VERSION
    )


def test_a_run_of_an_earlier_encoding_is_not_resumed(federation: Path, tmp_path: Path) -> None:
    def halt(stage: str, what: str, done: int, of: int) -> None:
        if stage == "rounds" and what == "round 1 of 2":
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        start(load_federation(federation), run, False, watch=halt)
    as_earlier(run)
    with pytest.raises(
        RunError, match=r"cannot be resumed.*encoding 1 in the record, 2 in this version of Tequio"
    ):
        resume(run)


def test_a_classification_run_records_no_encoding(make_federation: Any, tmp_path: Path) -> None:
    def halt(stage: str, what: str, done: int, of: int) -> None:
        if stage == "rounds":
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        start(load_federation(make_federation(centre=False)), run, False, watch=halt)
    assert "encoding" not in header(run)


def test_counts_say_what_was_left_out_only_where_something_was() -> None:
    assert Counts(3).facts() == {"cut": 3}
    assert Counts(1).plus(Counts(2, 4)).facts() == {"cut": 3, "too_long": 4}
