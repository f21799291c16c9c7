"""What is said of files before anything is trained: labels of all, duplicates, languages, and
no text.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import public_shapes
from builders import refused, sentences
from tequio.app.start.labels import words_of
from tequio.app.start.language import language_of
from tequio.app.start.naming import names_of, plain_name
from tequio.app.start.prepare import columns_of, look, new_folder
from tequio.core.errors import ConfigError, DataError, TequioError
from tequio.participant.data import Columns

MARKER = "Zanzibar"


def table(path: Path, rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


def labelled(
    folder: Path, name: str, labels: Sequence[Any], count: int = 30, seed: int = 0
) -> Path:
    rows = [(row["text"], labels[n % len(labels)]) for n, row in enumerate(sentences(count, seed))]
    return table(folder / name, [("text", "label"), *rows])


def test_labels_are_those_of_all_files_in_their_commonest_spelling(tmp_path: Path) -> None:
    one = labelled(tmp_path, "one.csv", ["Good", "bad"])
    two = labelled(tmp_path, "two.csv", ["good", "good", "bad", "mixed"], seed=1)
    found = look([one, two]).found
    assert found.labels == ("bad", "good", "mixed") or found.labels == ("Good", "bad", "mixed")
    assert sum(sum(p.labels.values()) for p in found.participants) == 60


def test_a_label_that_a_file_lacks_is_named_with_the_count_of_the_others(tmp_path: Path) -> None:
    one = labelled(tmp_path, "one.csv", ["yes", "no"])
    two = labelled(tmp_path, "two.csv", ["yes", "no", "maybe"], seed=1)
    remarks = look([one, two]).found.remarks()
    assert "one has 0 texts with maybe; the others have 10." in remarks


def test_numbers_truth_and_points_count_as_one_label(tmp_path: Path) -> None:
    paths = [
        labelled(tmp_path, f"{n}.csv", labels, seed=n)
        for n, labels in enumerate([["true", "false"], ["1", "0"], ["1.0", "0.0"]])
    ]
    found = look(paths).found
    assert len(found.labels) == 2
    assert [sorted(p.labels.values()) for p in found.participants] == [[15, 15]] * 3


def test_numbers_are_in_their_order(tmp_path: Path) -> None:
    assert look([labelled(tmp_path, "a.csv", [10, 9, 1])]).found.labels == ("1", "9", "10")


def test_texts_at_several_participants_and_repeated_ones_are_counted(tmp_path: Path) -> None:
    rows = [(row["text"], row["label"]) for row in sentences(30, 0)]
    one = table(tmp_path / "one.csv", [("text", "label"), *rows, rows[0]])
    two = table(
        tmp_path / "two.csv",
        [("text", "label"), *rows[:4], *((f"{t} really", k) for t, k in rows[4:])],
    )
    found = look([one, two]).found
    assert found.shared_texts == 4
    assert found.participants[0].repeated == 1
    assert "4 different texts occur at more than one participant." in found.remarks()


def test_a_text_with_two_labels_is_said(tmp_path: Path) -> None:
    rows = [(row["text"], row["label"]) for row in sentences(30, 0)]
    rows.append((rows[0][0], "bad" if rows[0][1] == "good" else "good"))
    found = look([table(tmp_path / "one.csv", [("text", "label"), *rows])]).found
    assert found.participants[0].conflicting == 1
    assert any("two different labels" in remark for remark in found.remarks())


def test_one_file_is_said_to_be_a_federation_of_one(tmp_path: Path) -> None:
    remarks = look([labelled(tmp_path, "a.csv", ["yes", "no"])]).found.remarks(starting=True)
    assert any("A federation of one is only local training" in remark for remark in remarks)


def test_files_called_like_splits_are_noticed(tmp_path: Path) -> None:
    paths = [
        labelled(tmp_path, name, ["yes", "no"], seed=n)
        for n, name in enumerate(["train.csv", "test.csv"])
    ]
    assert any("names of splits" in remark for remark in look(paths).found.remarks())


def test_a_participant_with_one_class_is_said(tmp_path: Path) -> None:
    one, two = (
        labelled(tmp_path, "one.csv", ["yes"]),
        labelled(tmp_path, "two.csv", ["yes", "no"], seed=1),
    )
    remarks = look([two, one]).found.remarks()
    assert any(remark.startswith("one: all its texts have one label") for remark in remarks)


def test_files_for_different_tasks_are_refused(tmp_path: Path) -> None:
    one = labelled(tmp_path, "one.csv", ["yes", "no"])
    two = tmp_path / "two.jsonl"
    two.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in sentences(30, 0)))
    with refused(DataError, "several-tasks", one="one", other="two"):
        look([one, two])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(f"{MARKER} {n}", f"{MARKER} {n}") for n in range(40)], "40 different values in 40 rows"),
        ([(f"{MARKER} {n}", "the same") for n in range(40)], "the same value in all 40 rows"),
        ([(f"{MARKER} {n}", f"{MARKER} " * 20) for n in range(40)], "more than 60 characters"),
    ],
)
def test_labels_that_are_no_classes_are_refused_without_quoting_them(
    tmp_path: Path, rows: list[tuple[str, str]], said: str
) -> None:
    with pytest.raises(DataError) as caught:
        look([table(tmp_path / "a.csv", [("text", "label"), *rows])])
    assert said in str(caught.value)
    assert "--column label=NAME" in str(caught.value)
    assert MARKER not in str(caught.value)


def test_several_labels_per_text_are_refused_with_the_place(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"{MARKER} {n}", "label": [1, 2]}) + "\n" for n in range(9))
    )
    with refused(DataError, "several-labels", column="'label'") as caught:
        look([path])
    assert MARKER not in str(caught.value)


def test_columns_that_are_not_clear_are_asked_for(tmp_path: Path) -> None:
    rows = [(f"{MARKER} {n} says a lot", n % 2, n % 3) for n in range(40)]
    path = table(tmp_path / "a.csv", [("text", "toxic", "severe"), *rows])
    with refused(DataError, "column-unclear", role="label", names=["toxic", "severe"]) as caught:
        look([path])
    assert MARKER not in str(caught.value)
    found = look([path], columns=columns_of(["label=severe"])).found
    assert found.labels == ("0", "1", "2")


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with refused(DataError, "data-column-missing", names=["kind"]):
        look([labelled(tmp_path, "a.csv", ["yes", "no"])], columns=Columns(label="kind"))


@pytest.mark.parametrize("pair", ["label", "label=", "size=x", "=x"])
def test_a_column_option_of_another_form_is_refused(pair: str) -> None:
    with refused(ConfigError, "option-unfit", option="--column", value=pair):
        columns_of([pair])


def test_a_text_in_the_column_of_labels_is_refused_with_its_place(tmp_path: Path) -> None:
    rows = [(row["text"], row["label"]) for row in sentences(40, 0)]
    path = table(tmp_path / "a.csv", [("text", "label"), *rows, ("again", f"my {MARKER} was lost")])
    with refused(DataError, "label-like-a-text", column="'label'") as caught:
        look([path])
    assert MARKER not in json.dumps(caught.value.as_dict())


def test_a_label_that_occurs_once_is_counted_and_not_named(tmp_path: Path) -> None:
    rows = [(row["text"], row["label"]) for row in sentences(40, 0)]
    found = look([table(tmp_path / "a.csv", [("text", "label"), *rows, ("again", MARKER)])]).found
    assert found.named == ("bad", "good")
    assert MARKER not in json.dumps(found.facts())
    assert found.facts()["labels_of_one_text"] == 1
    assert any("One further label occurs only once" in remark for remark in found.remarks())


def test_facts_hold_no_text(tmp_path: Path) -> None:
    rows = [(f"{MARKER} {n}", ["yes", "no"][n % 2]) for n in range(40)]
    found = look([table(tmp_path / "a.csv", [("text", "label"), *rows])]).found
    assert MARKER not in json.dumps(found.facts())


def test_a_column_whose_name_may_be_data_is_shown_by_its_place(tmp_path: Path) -> None:
    rows = [(f"{MARKER} was here {n}", ["yes", "no"][n % 2]) for n in range(40)]
    path = table(tmp_path / "a.csv", [(f"{MARKER} again", "label"), *rows])
    person = look([path]).found.participants[0]
    assert person.shape.shown(str(person.shape.columns.text)) == "number 1"


def test_a_folder_alone_means_each_of_its_files(tmp_path: Path) -> None:
    for n in range(3):
        labelled(tmp_path, f"site {n}.csv", ["yes", "no"], seed=n)
    assert [p.name for p in look([tmp_path]).found.participants] == ["site-0", "site-1", "site-2"]


def test_a_file_named_twice_is_refused(tmp_path: Path) -> None:
    path = labelled(tmp_path, "a.csv", ["yes", "no"])
    with refused(DataError, "named-twice"):
        look([path, path])


def test_rows_are_split_among_participants_by_a_column(tmp_path: Path) -> None:
    rows = [
        (row["text"], row["label"], ["Oaxaca", "Puebla", ""][n % 3])
        for n, row in enumerate(sentences(90, 0))
    ]
    path = table(tmp_path / "a.csv", [("text", "label", "hospital"), *rows])
    assert any("--by hospital" in remark for remark in look([path]).found.remarks())
    seen = look([path], by="hospital")
    assert [(p.name, p.usable) for p in seen.found.participants] == [("Oaxaca", 30), ("Puebla", 30)]
    assert seen.without_group == 30
    with refused(DataError, "column-missing", column="site"):
        look([path], by="site")


def test_a_site_column_is_not_taken_for_the_labels(tmp_path: Path) -> None:
    rows = [(row["text"], ["A", "B"][n % 2]) for n, row in enumerate(sentences(40, 0))]
    assert look([table(tmp_path / "a.csv", [("text", "hospital"), *rows])]).found.kind == "causal"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (
            "the train was late and it is not the first time that we have to wait for it at the "
            "station ",
            "English",
        ),
        (
            "el tren llegó tarde y no es la primera vez que lo esperamos en la estación con los "
            "niños ",
            "Spanish",
        ),
        (
            "der Zug war nicht da und ich habe den ganzen Tag mit dem Auto auf die Arbeit zu "
            "fahren ",
            "German",
        ),
        (
            "le train est en retard et nous ne sommes pas les seuls à attendre dans la gare avec "
            "une valise ",
            "French",
        ),
        (
            "lorem ipsum dolor sit amet consectetur adipiscing elit sed eiusmod tempor incididunt ",
            None,
        ),
    ],
)
def test_a_language_is_said_only_where_it_is_clear(text: str, language: str | None) -> None:
    assert language_of([text] * 10) == language
    assert language_of([text]) is None


def test_names_come_from_files(tmp_path: Path) -> None:
    files = [
        Path("Clínica Sur.csv"),
        Path("clinica-sur.csv.gz"),
        Path("***.csv"),
        Path("shared.csv"),
    ]
    assert names_of(files) == ["Clinica-Sur", "clinica-sur-2", "participant-3", "shared-2"]
    assert plain_name("x" * 80) == "x" * 64


def test_a_new_folder_is_found_and_an_old_one_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_folder(None, "fed") == Path("fed")
    (tmp_path / "fed").mkdir()
    assert new_folder(None, "fed") == Path("fed-2")
    (tmp_path / "fed" / "federation.toml").touch()
    with refused(ConfigError, "folder-written-before"):
        new_folder(Path("fed"), "fed")


def test_codes_get_no_description_and_words_do() -> None:
    assert words_of(["card_lost", "top-up failed"]) == {
        "card_lost": "card lost",
        "top-up failed": "top up failed",
    }
    assert words_of(["0", "1"]) == {}


def test_texts_over_several_lines_are_read_as_the_labels_tell(tmp_path: Path) -> None:
    rows = [
        (f"late, {n}\nand {row['text']}", row["label"]) for n, row in enumerate(sentences(40, 0))
    ]
    found = look([table(tmp_path / "a.csv", [("text", "label"), *rows])]).found
    assert found.labels == ("bad", "good")
    assert found.participants[0].usable == 40


def test_a_column_to_name_is_named_as_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"alpha": f"{MARKER} {n}", "beta": f"{n} so"}) + "\n" for n in range(9))
    )
    with refused(DataError, "data-column-missing", nearest=None) as caught:
        look([path])
    assert MARKER not in str(caught.value)


@pytest.mark.parametrize("name", sorted(public_shapes.SHAPES))
def test_damaged_files_are_read_or_refused_without_quoting_them(name: str, tmp_path: Path) -> None:
    file, _ = public_shapes.write(name, tmp_path / "made")
    content, rng = file.read_bytes(), random.Random(name)
    marked = content.replace(b"today", MARKER.encode()) if file.suffix != ".gz" else content
    for _ in range(12):
        data = bytearray(marked)
        for _ in range(rng.choice([1, 3, 30])):
            place = rng.randrange(len(data))
            data[place : place + rng.choice([0, 1, 40])] = rng.choice(
                [b"", b"\x00", b'"', b"\n", b",", b"\xff", b"{"]
            )
        file.write_bytes(bytes(data))
        assert MARKER not in _said(file)


def _said(file: Path) -> str:
    """What a program gets to see, labels and columns aside, which a damaged file may mix up."""
    try:
        facts = look([file]).found.facts()
    except TequioError as error:
        return json.dumps(error.as_dict())
    return json.dumps(
        {key: value for key, value in facts.items() if key not in ("labels", "participants")}
    )
