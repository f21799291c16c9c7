"""Runs that fail on the way: folders and disks that cannot be written, and training that
diverges.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from marked_runs import MARKER, nothing_leaks, put, rows_of, said, site

from builders import build_setup, refused
from tequio.app.simulation.run import resume, start
from tequio.app.stages import speed_free
from tequio.config import load_federation
from tequio.coordinator.round import open_state, run_round
from tequio.core.errors import ResourceError, RunError
from tequio.ledger.record import Ledger
from tequio.runtimes.embedded import Embedded

# folders and disks


@pytest.mark.parametrize("where", ["proc", "file"])
def test_a_folder_that_cannot_be_written(marked: Any, where: str) -> None:
    path = marked()
    (path.parent / "file").write_text("")
    out = Path("/proc/run") if where == "proc" else path.parent / "file" / "run"
    with refused(ResourceError, "write-failed") as caught:
        start(load_federation(path), out, False)
    assert str(out) in said(caught.value)


@contextmanager
def largest_file(size: int) -> Iterator[Callable[[], None]]:
    """A real limit of the system on the size of files, from the call of what it yields to the end
    of the block.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("stage", "size", "name"),
    [
        ("rounds", 4096, "ledger.sqlite"),
        ("general", 100, "ledger.sqlite"),
        ("personal", 100, "accounts.jsonl"),
    ],
)
def test_a_full_disk_names_the_file_and_the_run_goes_on_later(
    marked: Any, stage: str, size: int, name: str
) -> None:
    path = marked(rows=40)
    out, unbroken = path.parent / "run", path.parent / "unbroken"
    expected = start(load_federation(path), unbroken, False).end
    with (
        largest_file(size) as full,
        pytest.raises(ResourceError, match=r"The disk (or quota )?is full") as caught,
    ):
        start(load_federation(path), out, False, watch=lambda s, *_: full() if s == stage else None)
    text = said(caught.value)
    assert name in text
    assert str(out) in text
    assert "tequio run --resume" in text
    assert speed_free(resume(out).end) == speed_free(expected)
    nothing_leaks(out)


# training


def test_all_diverge_names_each(marked: Any) -> None:
    path = marked(train={"learning_rate": 1e3})
    with refused(RunError, "no-update-usable", round=1) as caught:
        start(load_federation(path), path.parent / "run", False)
    text = said(caught.value)
    for name in ("site0", "site1"):
        assert f"{name}: training diverged" in text
    assert "Lower [train] learning_rate" in text
    nothing_leaks(path.parent / "run")


def test_a_personal_rate_that_diverges_is_given_up_and_named(marked: Any) -> None:
    rates = {"local_rates": [1e3, 5e-3], "private_rates": [1e3], "private_epochs": 8.0}
    path = marked(
        rows=40, train={"rounds": 1, "local_epochs": 8.0, "max_steps": 20}, personal=rates
    )
    out = path.parent / "run"
    start(load_federation(path), out, False)
    with Ledger.open(out / "ledger.sqlite", read_only=True) as ledger:
        fits = [dict(e.body["fits"]) for e in ledger.entries("personal")]
    assert len(fits) == 2
    for fit in fits:
        assert fit["local"]["diverged"] == [1e3]
        assert fit["local"]["learning_rate"] in (0.0, 5e-3)
        assert fit["private"] == {"learning_rate": 0.0, "step": 0, "diverged": [1e3]}
    nothing_leaks(out)


def test_one_participant_with_nan_fails_and_the_others_go_on(marked: Any) -> None:
    """One word of the base has NaN, and only site0 uses it."""
    path = marked(participants=3)
    put(site(path), [{**r, "text": f"seat {r['text']}"} for r in rows_of(site(path))])
    for other in (site(path, 1), site(path, 2), *(path.parent / "public").glob("*.jsonl")):
        put(other, [{**r, "text": r["text"].replace("seat", "pump")} for r in rows_of(other)])
    w = build_setup(path)
    word = w.adapted.base.tokenizer.convert_tokens_to_ids("seat")
    model: Any = w.adapted.model
    with torch.no_grad():
        model.embeddings.word_embeddings.weight[word] = float("nan")
    state, opening = open_state(w.run_spec, Embedded(w.nodes))
    assert list(opening["validation"]) == ["site1", "site2"]
    assert opening["not_evaluated"]["site0"] == {
        "code": "loss-not-finite",
        "facts": {"loss": "nan"},
    }
    after, body = run_round(state, w.run_spec, Embedded(w.nodes))
    failed = [a for a in body["admissions"] if a["status"] != "admitted"]
    assert [(a["name"], a["status"]) for a in failed] == [("site0", "failed")]
    assert failed[0]["reason"] == {"code": "diverged", "facts": {"loss": "nan", "step": 1}}
    assert body["accepted"]
    assert after.shared.is_finite()
    assert MARKER not in json.dumps([opening, body], allow_nan=False)
    without = replace(w.run_spec, members=tuple(m for m in w.run_spec.members if m.name != "site0"))
    alone, _ = run_round(open_state(without, Embedded(w.nodes))[0], without, Embedded(w.nodes))
    assert alone.shared.minus(after.shared).norm() == 0.0
