"""What is proposed: sizes of texts, caps that keep a run short, and layers of bases of several
families.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from builders import SUBJECTS, refused, sentences, write_jsonl
from tequio.app.assembly.build import read_participants
from tequio.app.start import proposal
from tequio.app.start.prepare import check, look, write
from tequio.app.start.proposal import propose
from tequio.app.start.survey import Survey
from tequio.config import load_federation
from tequio.core.errors import BaseModelError, DataError, ResourceError


def found(folder: Path, rows: int = 60) -> Survey:
    return look([write_jsonl(folder / f"{n}.jsonl", sentences(rows, n)) for n in range(2)]).found


def test_a_small_set_is_not_capped(tmp_path: Path, tiny_bert: Path) -> None:
    made = propose(found(tmp_path), "fed", (str(tiny_bert), "test"))
    assert made.caps == {}
    assert made.federation["task"]["max_tokens"] == 32
    assert made.federation["adapter"]["modules"] == "attention"
    assert all("max_train" not in person["data"] for person in made.participants)


def test_a_large_set_is_capped_and_it_is_said(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proposal, "WORK", 1.0)
    made = propose(found(tmp_path, 100), "fed", (str(tiny_bert), "test"))
    assert made.caps == {"0": (16, 60), "1": (16, 60)}
    assert made.facts()["training_texts_capped"]["0"] == {"used": 16, "of": 60}
    assert check(made, tmp_path / "fed")["0"] == {"train": 16, "validation": 16, "test": 16}


def test_texts_are_not_longer_than_the_base_allows(tmp_path: Path, tiny_llama: Path) -> None:
    long = [{"text": " ".join(f"the day was {n}" for n in range(40))} for _ in range(1)]
    rows = [{"text": row["text"]} for row in sentences(40, 0)] + long * 5
    path = write_jsonl(tmp_path / "a.jsonl", rows)
    made = propose(look([path]).found, "fed", (str(tiny_llama), "test"))
    assert made.federation["task"]["max_tokens"] == 64  # the positions that it has
    assert made.federation["adapter"]["modules"] == "attention"
    assert made.cut == {"a": 0.0}  # a plain text is split, it loses nothing


def test_texts_that_lose_their_end_are_counted(tmp_path: Path, tiny_bert: Path) -> None:
    rows = sentences(30, 0)
    rows += [
        {"text": f"{row['text']} {'very ' * 80}", "label": row["label"]} for row in sentences(10, 1)
    ]
    made = propose(
        look([write_jsonl(tmp_path / "a.jsonl", rows)]).found, "fed", (str(tiny_bert), "test")
    )
    assert made.cut == {"a": 0.25}


def test_rounds_and_name_are_taken(tmp_path: Path, tiny_bert: Path) -> None:
    made = propose(found(tmp_path), "Mi año", (str(tiny_bert), "test"), rounds=2)
    assert made.federation["train"]["rounds"] == 2
    assert made.federation["name"] == "Mi-ano"


def test_too_little_memory_first_makes_the_batch_smaller(
    tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tequio.planning import memory

    monkeypatch.setattr(memory, "available_bytes", lambda declared=None: 1)
    with refused(ResourceError, "start-too-large"):
        propose(found(tmp_path), "fed", (str(tiny_bert), "test"))


def test_a_base_that_is_not_there_is_named(tmp_path: Path) -> None:
    with refused(BaseModelError, "base-folder-missing"):
        propose(found(tmp_path), "fed", (str(tmp_path / "absent"), "test"))


def test_nothing_to_learn_is_said(tmp_path: Path, tiny_llama: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": " "}) + "\n")
    with refused(DataError, "nothing-to-learn"):
        propose(look([path]).found, "fed", (str(tiny_llama), "test"))


def test_too_few_texts_are_found_before_anything_is_written(
    tmp_path: Path, tiny_bert: Path
) -> None:
    rows = [
        {"text": f"my {word} was late", "label": ["bad", "good"][n % 2]}
        for n, word in enumerate(SUBJECTS[:2])
    ]
    made = propose(
        look([write_jsonl(tmp_path / "a.jsonl", rows)]).found, "fed", (str(tiny_bert), "test")
    )
    with refused(DataError, "split-share-too-small"):
        check(made, tmp_path / "fed")


def test_rows_by_column_are_written_for_each_participant(tmp_path: Path, tiny_bert: Path) -> None:
    rows = [{**row, "site": ["a", "b"][n % 2]} for n, row in enumerate(sentences(80, 0))]
    seen = look([write_jsonl(tmp_path / "all.jsonl", rows)], by="site")
    made = propose(seen.found, "fed", (str(tiny_bert), "test"))
    path = write(made, seen, tmp_path / "fed")
    assert sorted(file.name for file in (tmp_path / "fed" / "data").iterdir()) == [
        "a.jsonl",
        "b.jsonl",
    ]
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "fed" / "data").iterdir()} == {
        0o600
    }
    people = read_participants(load_federation(path))
    assert {name: splits.rows for name, (_, splits) in people.items()} == {"a": 40, "b": 40}
