"""Splitting by content hash: the same everywhere, in any order, with every row accounted for."""

from __future__ import annotations

import hashlib
import json
import math
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from builders import refused
from tequio.core.errors import ConfigError, DataError
from tequio.participant.data import Columns, Example, Kind
from tequio.participant.splits import (
    NAMES,
    DataFiles,
    SplitRule,
    Splits,
    content_hash,
    enough,
    load_splits,
)

LABELS = ("pos", "neg")
Row = tuple[str, str]


def save(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text(
        "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows), encoding="utf-8"
    )
    return path


def split(
    files: DataFiles, rule: SplitRule | None = None, kind: Kind = "classification", minimum: int = 1
) -> Splits:
    return load_splits(files, Columns(), rule or SplitRule(), kind, LABELS, "ana", minimum)


def split_rows(rows: Sequence[Row], rule: SplitRule | None = None) -> Splits:
    with tempfile.TemporaryDirectory() as folder:
        return split(DataFiles(data=save(Path(folder) / "a.jsonl", rows)), rule)


def texts(part: Sequence[Example]) -> list[str]:
    return [e.text for e in part]


BASE = [(f"text number {i}", LABELS[i % 2]) for i in range(60)]
ROWS = st.lists(
    st.tuples(st.text(st.sampled_from("aAbß é\u0301\u0130"), max_size=4), st.sampled_from(LABELS)),
    max_size=30,
)


def test_the_hash_is_sha256_of_the_normalised_text() -> None:
    # NFC turns e + combining acute into é; then lower case, one space, none at the ends.
    assert (
        content_hash(Example(" Cafe\u0301 \n SOLO "))
        == hashlib.sha256("café solo".encode()).hexdigest()
    )


def test_prompt_and_response_are_retained_separate_in_the_hash() -> None:
    assert content_hash(Example("a b", response="c")) != content_hash(Example("a", response="b c"))
    assert content_hash(Example("a  B", response="c ")) == content_hash(
        Example("A b", response="C")
    )


def test_a_text_lands_where_its_hash_says() -> None:
    found = split_rows(BASE, SplitRule(validation=0.3, test=0.2))
    for name in NAMES:
        for text in texts(getattr(found, name)):
            place = int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) / 2**64
            assert name == ("test" if place < 0.2 else "validation" if place < 0.5 else "train")
        ranks = [
            hashlib.sha256(text.encode()).hexdigest()[32:] for text in texts(getattr(found, name))
        ]
        assert ranks == sorted(ranks)  # a cap keeps the lowest second halves
    assert sum(len(getattr(found, name)) for name in NAMES) == 60


@settings(max_examples=60, deadline=None)
@given(ROWS, st.randoms(use_true_random=False))
def test_splits_and_facts_do_not_depend_on_the_order(
    rows: list[Row], chance: random.Random
) -> None:
    rows = BASE + rows
    shuffled = rows.copy()
    chance.shuffle(shuffled)
    one, two = split_rows(rows), split_rows(shuffled)
    assert one == two
    assert one.facts() == two.facts()
    assert one.digest() == two.digest()


@settings(max_examples=60, deadline=None)
@given(ROWS, ROWS, ROWS, st.integers(1, 40))
def test_no_content_in_two_splits_and_every_row_accounted_for(
    train: list[Row], validation: list[Row], test: list[Row], cap: int
) -> None:
    validation, test = [("only validation", "pos"), *validation], [("only test", "neg"), *test]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {
            n: save(folder / f"{n}.jsonl", r)
            for n, r in zip(NAMES, (BASE + train, validation, test), strict=True)
        }
        rule = SplitRule(max_train=cap)
        whole = split(
            DataFiles(data=save(folder / "all.jsonl", BASE + train + validation + test)), rule
        )
        found = [
            (whole, 62 + len(train) + len(validation) - 1 + len(test) - 1),
            (split(DataFiles(**paths), rule), 60 + len(train) + len(validation) + len(test)),
            (
                split(DataFiles(train=paths["train"], test=paths["test"]), rule),
                60 + len(train) + len(test),
            ),
        ]
    for splits, rows in found:
        hashes = [content_hash(e) for n in NAMES for e in getattr(splits, n)]
        assert len(hashes) == len(set(hashes))
        assert len(hashes) + sum(splits.dropped.values()) == splits.rows == rows


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), ROWS)
def test_a_larger_cap_only_adds(a: int, b: int, rows: list[Row]) -> None:
    low, high = sorted((a, b))
    caps = [SplitRule(max_train=n, max_validation=n, max_test=n) for n in (low, high)]
    small, large = (split_rows(BASE + rows, rule) for rule in caps)
    for name in NAMES:
        few, many = getattr(small, name), getattr(large, name)
        assert len(few) <= low
        assert many[: len(few)] == few


def test_a_longer_file_only_adds() -> None:
    small, large = split_rows(BASE[:40]), split_rows(BASE)
    for name in NAMES:
        assert set(getattr(small, name)) <= set(getattr(large, name))


@settings(max_examples=40, deadline=None)
@given(ROWS, ROWS)
def test_adding_rows_never_moves_a_text_to_another_split(first: list[Row], more: list[Row]) -> None:
    small, large = split_rows(BASE + first), split_rows(BASE + first + more)
    before, after = (
        {content_hash(e): n for n in NAMES for e in getattr(s, n)} for s in (small, large)
    )
    assert all(after.get(key, name) == name for key, name in before.items())
    contradicted = {
        key for key in before if key not in after
    }  # the new rows give these another label
    added: dict[str, set[str]] = {}
    for text, label in first + more:
        added.setdefault(content_hash(Example(text)), set()).add(label)
    assert contradicted <= {key for key, labels in added.items() if len(labels) == 2}


def test_the_same_rows_in_each_format_split_alike(tmp_path: Path) -> None:
    table = tmp_path / "a.tsv"
    table.write_text("label\ttext\n" + "".join(f"{y}\t{t}\n" for t, y in reversed(BASE)))
    binary = tmp_path / "a.parquet"
    parquet.write_table(
        pyarrow.table({"text": [t for t, _ in BASE], "label": [y for _, y in BASE]}), binary
    )
    found = [
        split(DataFiles(data=path)) for path in (save(tmp_path / "a.jsonl", BASE), table, binary)
    ]
    assert found[0] == found[1] == found[2]


def test_each_kind_of_drop_is_counted() -> None:
    extra = [
        ("", "pos"),
        (" \n", "neg"),  # 2 empty
        (" TEXT  number 0", "pos"),  # 1 repeated: text number 0 is pos
        ("text number 1", "pos"),  # contradicts text number 1, which is neg: both go
    ]
    found = split_rows(BASE + extra)
    retained = texts(found.train + found.validation + found.test)
    assert found.rows == 64
    assert found.dropped == {
        "empty": 2, "duplicates": 1, "conflicting_labels": 2, "in_two_splits": 0, "over_cap": 0,
        "no_prompt": 0, "no_response": 0, "unlabelled": 0
    }  # fmt: skip
    assert len(retained) == 59
    assert "text number 1" not in retained


def test_of_texts_equal_but_for_case_the_first_in_code_points_is_retained() -> None:
    for rows in ([("SAME", "pos"), ("same", "pos")], [("same", "pos"), ("SAME", "pos")]):
        found = split_rows(BASE + rows)
        retained = texts(found.train + found.validation + found.test)
        assert "SAME" in retained  # "S" is U+0053, "s" is U+0073
        assert "same" not in retained


def test_three_rows_of_one_text_with_two_labels_all_go_in_any_order() -> None:
    for labels in (("pos", "pos", "neg"), ("neg", "pos", "pos"), ("pos", "neg", "pos")):
        found = split_rows(BASE + [("same", y) for y in labels])
        assert found.dropped["conflicting_labels"] == 3
        assert found.dropped["duplicates"] == 0


def test_explicit_files_lose_what_a_later_split_holds(tmp_path: Path) -> None:
    files = DataFiles(
        train=save(tmp_path / "train.jsonl", [("a", "pos"), ("B", "pos"), ("c", "neg")]),
        validation=save(tmp_path / "validation.jsonl", [("b", "pos"), ("d", "neg"), ("e", "neg")]),
        test=save(tmp_path / "test.jsonl", [("c", "neg"), ("d", "neg"), ("f", "pos")]),
    )
    found = split(files)
    assert sorted(texts(found.train)) == ["a"]  # without B (in validation) and c (in test)
    assert sorted(texts(found.validation)) == ["b", "e"]  # without d (in test)
    assert sorted(texts(found.test)) == ["c", "d", "f"]
    assert found.dropped["in_two_splits"] == 3


def test_what_has_no_file_is_split_off_train(tmp_path: Path) -> None:
    train, test = (
        save(tmp_path / "train.jsonl", BASE),
        save(tmp_path / "test.jsonl", [("only test", "pos")]),
    )
    found = split(DataFiles(train=train, test=test), SplitRule(validation=0.25, test=0.9))
    assert texts(found.test) == ["only test"]
    places = [int(content_hash(e)[:16], 16) / 2**64 for e in found.validation]
    assert places
    assert max(places) < 0.25
    assert len(found.train) + len(found.validation) == 60
    assert split(DataFiles(train=train)) == split(DataFiles(data=train))


def test_facts_are_json_without_content_and_count_long_texts(tmp_path: Path) -> None:
    rows = [*BASE, ("z" * 100_001, "pos"), ("y" * 100_000, "neg")]
    facts = split(DataFiles(data=save(tmp_path / "a.jsonl", rows))).facts()
    written = json.dumps(facts, allow_nan=False)
    assert "text number" not in written
    assert "zzz" not in written
    assert facts["long_texts"] == 1
    assert facts["warnings"] == []
    assert facts["rows"] == 62
    balance = {y: sum(facts["balance"][n].get(y, 0) for n in NAMES) for y in LABELS}
    assert balance == {"pos": 31, "neg": 31}


def test_a_long_response_counts_as_long(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"prompt": f"p{i}", "response": "r"} for i in range(60)] + [
        {"prompt": "q", "response": "r" * 100_001}
    ]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    facts = split(DataFiles(data=path), kind="causal").facts()
    assert facts["long_texts"] == 1
    assert facts["warnings"] == []
    assert facts["balance"] == {"train": {}, "validation": {}, "test": {}}


def test_one_class_is_legal_with_a_warning() -> None:
    facts = split_rows([(text, "pos") for text, _ in BASE]).facts()
    assert facts["warnings"] == [{"code": "one-class", "facts": {}}]


def test_the_digest_changes_with_a_text_a_label_and_a_split() -> None:
    a, b = Example("a", "pos"), Example("b", "pos")
    all_four = [
        Splits((a,), (b,), ()), Splits((b,), (a,), ()), Splits((a,), (Example("b", "neg"),), ()), Splits((a,), (), ())
    ]  # fmt: skip
    assert len({s.digest() for s in all_four}) == 4
    assert (
        "digest" not in all_four[0].facts()
    )  # private: a guess of the contents could be confirmed with it


@pytest.mark.parametrize("rows", [[], [("", "pos")], [("same", "pos"), ("same", "neg")]])
def test_a_participant_without_a_usable_example(tmp_path: Path, rows: list[Row]) -> None:
    path = save(tmp_path / "a.jsonl", rows)
    with refused(DataError, "no-usable-example") as caught:
        split(DataFiles(data=path))
    assert f"Participant ana, {path}" in str(caught.value)
    assert f"{len(rows)} rows were read" in str(caught.value)
    assert "same" not in str(caught.value)


def test_too_few_examples_says_how_many_are_needed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jsonl", BASE[:2])
    with pytest.raises(DataError) as caught:
        split(DataFiles(data=path), minimum=5)
    message = str(caught.value)
    assert f"Participant ana, {path}: too few examples for train." in message
    assert "needed are 5: 2 rows were read, 2 are usable" in message
    assert "21 different texts are enough" in message  # (5 + 2.5 √5 + 2) / 0.6 = 20.98
    assert "text number" not in message


def test_too_few_in_a_file_of_its_own_names_that_file(tmp_path: Path) -> None:
    validation = save(tmp_path / "validation.jsonl", [("text number 3", "neg"), ("", "pos")])
    test = save(tmp_path / "test.jsonl", BASE[:5])
    with refused(DataError, "no-usable-example", split="validation") as caught:
        split(
            DataFiles(train=save(tmp_path / "train.jsonl", BASE), validation=validation, test=test)
        )
    assert str(validation) in str(caught.value)
    assert "2 rows were read" in str(caught.value)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.6, 0.9])
@pytest.mark.parametrize("minimum", [1, 2, 5, 20, 100])
def test_enough_falls_short_less_than_once_in_a_hundred(minimum: int, share: float) -> None:
    n = enough(minimum, share)
    short = math.fsum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(minimum))
    assert short < 0.01  # the binomial probability of fewer than `minimum` out of n


@pytest.mark.parametrize(
    ("given_files", "rule"),
    [
        ({}, SplitRule()),
        ({"data", "train"}, SplitRule()),
        ({"data", "validation"}, SplitRule()),
        ({"validation", "test"}, SplitRule()),
        ({"data"}, SplitRule(validation=0.5, test=0.5)),
        ({"data"}, SplitRule(validation=0.0)),
        ({"data"}, SplitRule(test=-0.1)),
        ({"data"}, SplitRule(test=math.nan)),
        ({"data"}, SplitRule(max_test=0)),
    ],
)
def test_files_shares_and_caps_that_contradict_each_other(
    tmp_path: Path, given_files: set[str], rule: SplitRule
) -> None:
    path = save(tmp_path / "a.jsonl", BASE)
    with pytest.raises(ConfigError, match="Participant ana"):
        split(DataFiles(**dict.fromkeys(given_files, path)), rule)


def test_shares_are_not_evaluated_at_where_every_split_has_a_file(tmp_path: Path) -> None:
    paths = {n: save(tmp_path / f"{n}.jsonl", [(n, "pos")]) for n in NAMES}
    found = split(DataFiles(**paths), SplitRule(validation=0.0, test=0.0))
    assert [texts(getattr(found, n)) for n in NAMES] == [["train"], ["validation"], ["test"]]
