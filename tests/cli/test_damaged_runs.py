"""A finished run and one that was cut off, with their files damaged or changed: noticed, named and
not built upon.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from marked_runs import MARKER, nothing_leaks, put, rows_of, said, site
from typer.testing import CliRunner

from builders import refused
from tequio.app.models.export import export_models
from tequio.app.models.predict import predict_texts
from tequio.app.models.verify import verify_run
from tequio.app.simulation.run import resume, start
from tequio.cli.main import app
from tequio.config import load_federation
from tequio.core.errors import (
    ConfigError,
    LedgerCorrupt,
    RunError,
    TequioError,
    UpdateError,
)
from tequio.ledger.record import Ledger

# a finished run and one that was cut off; each is made once, and every test has its own copy

MADE: dict[str, tuple[Path, Path]] = {}


@pytest.fixture
def finished(marked: Any, tmp_path: Path) -> tuple[Path, Path]:
    """(federation.toml, run) of a run with one participant of one class and one with long texts."""
    if "finished" not in MADE:
        path = marked(rows=60)
        put(
            site(path),
            [
                {**r, "text": r["text"] + " the" * (20 if i < 7 else 0)}
                for i, r in enumerate(rows_of(site(path)))
            ],
        )
        put(site(path, 1), [{**r, "label": "good"} for r in rows_of(site(path, 1))])
        start(load_federation(path), path.parent / "run", True)
        MADE["finished"] = path, path.parent / "run"
    path, run = MADE["finished"]
    return path, Path(shutil.copytree(run, tmp_path / "copy"))


@pytest.fixture
def halted(marked: Any, tmp_path: Path) -> tuple[Path, Path]:
    """(federation.toml, run) of a run that was stopped after its first round."""
    if "halted" not in MADE:
        path = marked(rows=40)

        def stop(stage: str, what: str, done: int, of: int) -> None:
            if stage == "rounds" and what == "round 1 of 2":
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            start(load_federation(path), path.parent / "run", False, watch=stop)
        MADE["halted"] = path, path.parent / "run"
    path, run = MADE["halted"]
    return path, Path(shutil.copytree(run, tmp_path / "copy"))


def test_one_class_and_long_texts_are_legal_and_in_the_record(finished: tuple[Path, Path]) -> None:
    _, run = finished
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        header = ledger.last("run")
        assert header is not None
        assert ledger.last("end") is not None
    site0, site1 = header.body["participants"]
    assert site0["data"]["cut"] == 7  # 7 texts with 20 words more; max_tokens = 16
    assert site1["data"]["cut"] == 0
    assert site1["data"]["warnings"] == [{"code": "one-class", "facts": {}}]
    assert site0["data"]["warnings"] == []
    assert verify_run(run)["ok"]
    nothing_leaks(run)


def test_a_second_run_does_not_touch_the_first(finished: tuple[Path, Path]) -> None:
    path, run = finished
    with refused(RunError, "run-exists") as caught:
        start(load_federation(path), run, False)
    assert "name another folder" in said(caught.value)
    assert verify_run(run)["ok"]


def flip_in_record(run: Path, seq: int) -> None:
    """Another digit in the body of one record, as a bad disk or an editor would leave it."""
    with closing(sqlite3.connect(run / "ledger.sqlite")) as raw:
        body = raw.execute("SELECT body FROM record WHERE seq = ?", (seq,)).fetchone()[0]
    data = (run / "ledger.sqlite").read_bytes()
    where = data.index(body[:200].encode()) + body.index(":") + 2
    changed = bytes([data[where] ^ 1])
    (run / "ledger.sqlite").write_bytes(data[:where] + changed + data[where + 1 :])


@pytest.mark.parametrize("seq", [0, 1])
def test_a_damaged_ledger_is_noticed_and_not_built_upon(
    halted: tuple[Path, Path], seq: int
) -> None:
    _, run = halted
    flip_in_record(run, seq)
    with pytest.raises(LedgerCorrupt, match=f"ledger.sqlite, record {seq}: ") as caught:
        resume(run)
    assert caught.value.reason is not None
    assert caught.value.reason.code == "records-damaged"
    assert MARKER not in said(caught.value)
    checked = CliRunner().invoke(app, ["verify", str(run)])
    assert checked.exit_code == 10
    assert "PROBLEM" in checked.output
    assert MARKER not in checked.output


def test_a_ledger_that_is_no_database(halted: tuple[Path, Path]) -> None:
    _, run = halted
    (run / "ledger.sqlite").write_bytes(b"x" * 5000)
    assert CliRunner().invoke(app, ["verify", str(run), "--json"]).exit_code == 10
    with refused(TequioError, "records-damaged"):
        resume(run)


@pytest.mark.parametrize("damage", ["a byte", "the end", "all", "gone"])
def test_a_damaged_model_file_is_named_and_not_used(
    finished: tuple[Path, Path], damage: str
) -> None:
    _, run = finished
    victim = run / "participants" / "site0" / "personal.safetensors"
    raw = victim.read_bytes()
    changed = {"a byte": raw[:-1] + bytes([raw[-1] ^ 1]), "the end": raw[:-40], "all": b"x" * 40}
    victim.unlink()
    if damage in changed:
        victim.write_bytes(changed[damage])
    problems = verify_run(run)["problems"]
    assert len(problems) == 1
    assert str(victim) in problems[0]
    uses: list[Callable[[], object]] = [
        lambda: predict_texts(run, "site0", ["the pump"], 4),
        lambda: export_models(run, "site0", run / "export", False),
    ]
    for use in uses:
        with pytest.raises(UpdateError) as caught:
            use()
        assert str(victim) in said(caught.value)
        assert "estore it from a copy" in caught.value.fix
    assert not (run / "export").exists()


@contextmanager
def changed(file: Path, content: bytes) -> Iterator[None]:
    before = file.read_bytes()
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


def test_data_that_changed_since_the_run_began(halted: tuple[Path, Path]) -> None:
    path, run = halted
    rows = rows_of(site(path, 1))
    rows[0] = {
        **rows[0],
        "text": rows[0]["text"].replace(MARKER, f"other {MARKER}"),
    }  # the counts stay
    swapped = "".join(json.dumps(r) + "\n" for r in rows).encode()
    with changed(site(path, 1), swapped), pytest.raises(RunError) as caught:
        resume(run)
    assert "the data of participant site1" in said(caught.value)
    assert "site0" not in str(caught.value)
    public = path.parent / "public" / "slice.jsonl"
    with (
        changed(public, public.read_bytes().replace(b"the", b"my")),
        pytest.raises(RunError) as caught,
    ):
        resume(run)
    assert "the public data of slice public" in said(caught.value)
    centre = path.parent / "public" / "centre.jsonl"
    with (
        changed(centre, centre.read_bytes().replace(b"the", b"my")),
        pytest.raises(RunError) as caught,
    ):
        resume(run)
    assert "the public data of centre" in said(caught.value)


def test_resume_needs_the_participants_files_but_not_the_federations(
    halted: tuple[Path, Path],
) -> None:
    path, run = halted
    own = path.parent / "participants" / "site1.toml"
    text = path.read_text()
    path.unlink()
    own.rename(own.with_suffix(".away"))
    try:
        with refused(ConfigError, "config-missing") as caught:
            resume(run)
        assert str(own) in said(caught.value)
        own.with_suffix(".away").rename(own)
        assert resume(run).end["rounds"] == 2
    finally:
        path.write_text(text)
    nothing_leaks(run)
