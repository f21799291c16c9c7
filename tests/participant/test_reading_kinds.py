"""Each kind of file that people have, with inputs of our own: what is read, what is left out, what
is said.
"""

from __future__ import annotations

import datetime
import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

import builders
from tequio.core.errors import DataError
from tequio.participant.data import Columns, Example, FileReport, Kind, Options, Reading, read_asked

SECRET = "ximena-is-ill"
LABELS = ("ham", "spam")


def read(
    path: Path,
    kind: Kind = "classification",
    columns: Columns | None = None,
    labels: tuple[str, ...] = LABELS,
    options: Options | None = None,
) -> tuple[list[Example], FileReport]:
    reading = Reading(path, columns or Columns(), kind, labels, "ana", options)
    return list(reading), reading.report.files[0]


def save(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refused(path: Path, kind: Kind = "classification", columns: Columns | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read(path, kind, columns)
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.reason is not None
    return f"{caught.value.reason.code}: {caught.value}"


@dataclass(frozen=True)
class Case:
    name: str
    content: str
    rows: tuple[tuple[str, str], ...]
    file: str = "a.csv"
    columns: dict[str, str] = field(default_factory=lambda: {"text": "text", "label": "label"})
    labels: tuple[str, ...] = LABELS
    left_out: dict[str, int] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


TWO = (("win a prize", "spam"), ("see you at six", "ham"))
TABLES = [
    Case("excel in Spanish", "\ufefftexto;etiqueta\r\nwin a prize;spam\r\nsee you at six;ham\r\n", TWO,
         columns={"text": "texto", "label": "etiqueta"}),
    Case("spam collection, no header", "spam\twin a prize\nham\tsee you at six\n", TWO, "a.txt",
         {"text": "2", "label": "1"}),
    Case("kaggle spam", "v1,v2,,,\nspam,win a prize,,,\nham,see you at six,,,\n", TWO,
         columns={"text": "v2", "label": "v1"}),
    Case("sep line", "sep=|\ntext|label\nwin a prize|spam\nsee you at six|ham\n", TWO),
    Case("an index of pandas", ",sentence,category\n0,win a prize,spam\n1,see you at six,ham\n", TWO,
         columns={"text": "sentence", "label": "category"}),
    Case("empty rows of a sheet", ";;\n\n;;\ntext;label;\nwin a prize;spam;\n;;\nsee you at "
        "six;ham;\n", TWO),
    Case("spaces before quotes", 'text, label\n"win, a prize", "spam"\n"see you at six", "ham"\n',
         (("win, a prize", "spam"), ("see you at six", "ham"))),
    Case("upper case names", "ID,TEXT,LABEL\n7,win a prize,SPAM\n8,see you at six,Ham\n", TWO,
         columns={"text": "TEXT", "label": "LABEL"}, unused=("ID",)),
    Case("a JSON file called csv", '{"text": "win a prize", "label": "spam"}\n{"text": "see you at '
        'six", "label": "ham"}', TWO),
    Case("a CSV called jsonl", "text,label\nwin a prize,spam\nsee you at six,ham\n", TWO, "a.jsonl"),
    Case("class numbers with decimals", "text,label\nwin a prize,1.0\nsee you at "
        "six,0.0\n,1\nlater,\n",
         (("win a prize", "1"), ("see you at six", "0")), labels=("0", "1"), left_out={"empty": 1, "unlabelled": 1}),
    Case("yes and no as truth values", '[{"text": "win a prize", "label": true}, {"text": "see you '
        'at six", "label": false}]',
         (("win a prize", "1"), ("see you at six", "0")), "a.json", labels=("0", "1")),
    Case("NaN of pandas", '{"text": "win a prize", "label": "spam"}\n{"text": "x", "label": '
        'NaN}\n{"text": NaN, "label": "ham"}\n',
         TWO[:1], "a.jsonl", left_out={"empty": 1, "unlabelled": 1}),
    Case("a label that is not there", '{"text": "win a prize", "label": "spam"}\n{"text": '
        '"later"}\n', TWO[:1], "a.jsonl",
         left_out={"unlabelled": 1}),
    Case("Unicode forms of a label", "text,label\nx y,cafe\u0301\nz,CAFÉ\n", (("x y", "café"), ("z", "café")), labels=("café", "té")),
    Case("labels unlike only in case", "text,label\nx,A\ny,a\n", (("x", "A"), ("y", "a")), labels=("A", "a")),
    Case("old Mac line ends", "text,label\rwin a prize,spam\rsee you at six,ham\r", TWO),
    Case("one object over lines after one on a line",
         '{"text": "win a prize", "label": "spam"}\n{\n "text": "see you at six",\n "label": "ham" '
         '}\n', TWO, "a.ndjson"),
]  # fmt: skip


@pytest.mark.parametrize("case", TABLES, ids=lambda case: case.name)
def test_classification(tmp_path: Path, case: Case) -> None:
    found, report = read(save(tmp_path, case.file, case.content), labels=case.labels)
    assert tuple((e.text, e.label) for e in found) == case.rows
    assert report.columns == case.columns
    assert report.left_out == case.left_out
    assert report.rows == len(case.rows) + sum(case.left_out.values())
    assert report.unused == case.unused


def pair(prompt: str, response: str) -> Example:
    return Example(prompt, response=response)


SEVERAL = (
    ("system", "be brief"),
    ("user", "hi"),
    ("assistant", "hello"),
    ("user", "bye"),
    ("assistant", "so long"),
)
LONGER = Example(
    "system: be brief\nuser: hi\nassistant: hello\nuser: bye", response="so long", turns=SEVERAL
)
CHATS: list[tuple[str, object, list[Example], dict[str, int]]] = [
    ("alpaca", {"instruction": "sum", "input": "1 2", "output": "3"}, [pair("sum\n\n1 2", "3")], {}),
    ("alpaca without input", {"instruction": "sum", "input": "", "output": "3"}, [pair("sum", "3")], {}),
    ("dolly", {"instruction": "who?", "context": "she", "response": "her", "category": "qa"}, [pair("who?\n\nshe", "her")], {}),
    ("question and answer", {"question": "why?", "answer": "so"}, [pair("why?", "so")], {}),
    ("input and output", {"input": "why?", "output": "so"}, [pair("why?", "so")], {}),
    ("no prompt", {"prompt": None, "response": "so"}, [], {"no_prompt": 1}),
    ("no response", {"prompt": "why?", "response": ""}, [], {"no_response": 1}),
    ("a document", {"content": "all of it"}, [Example("all of it")], {}),
    ("messages", {"messages": [{"role": r, "content": c} for r, c in SEVERAL]}, [LONGER], {}),
    ("sharegpt", {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}, [pair("hi", "hello")], {}),
    ("an answer first", {"conversations": [{"from": "gpt", "value": "hello"}, {"from": "human", "value": "hi"}]}, [], {"no_prompt": 1}),
    ("a question last", {"messages": [*({"role": r, "content": c} for r, c in SEVERAL), {"role": "user", "content": "?"}]}, [LONGER], {}),
    ("messages as text", {"messages": json.dumps([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}])},
     [pair("hi", "yo")], {}),
    ("parts of text", {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}, {"role": "assistant", "content": "yo"}]},
     [pair("hi", "yo")], {}),
    ("no turns", {"messages": []}, [], {"empty": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "expected", "left_out"), CHATS, ids=[c[0] for c in CHATS])
def test_causal_shapes(
    tmp_path: Path, name: str, row: object, expected: list[Example], left_out: dict[str, int]
) -> None:
    found, report = read(save(tmp_path, "a.json", json.dumps([row])), "causal")
    assert found == expected
    assert report.left_out == left_out


def test_a_chat_is_its_turns() -> None:
    assert LONGER.chat() == SEVERAL
    assert pair("a", "b").chat() == (("user", "a"), ("assistant", "b"))
    assert Example("a").chat() == ()


def test_a_name_that_is_given_wins_over_standard_and_guessed_ones(tmp_path: Path) -> None:
    row = {
        "text": "t",
        "prompt": "p",
        "response": "r",
        "question": "q",
        "answer": "a",
        "input": "i",
    }
    path = save(tmp_path, "a.json", json.dumps([row]))
    assert read(path, "causal")[0] == [Example("t")]
    assert read(path, "causal", Columns(prompt="question", response="answer", input=""))[0] == [
        pair("q", "a")
    ]
    assert read(path, "causal", Columns(prompt="question", input="text"))[0] == [
        pair("q\n\nt", "r")
    ]
    assert read(path, "causal", Columns(text="answer"))[0] == [Example("a")]
    assert "there is no column called texto." in refused(path, "causal", Columns(text="texto"))


def test_what_is_guessed_and_not_used_is_said_without_values(tmp_path: Path) -> None:
    content = f"sentence,intent,nota,Ana Ruiz,empty\n{SECRET},spam,{SECRET},{SECRET},\n"
    _, report = read(save(tmp_path, "a.csv", content))
    assert report.guessed == ("text", "label")
    assert (report.unused, report.unused_hidden) == (("nota",), 1)
    words = " ".join(report.sentences())
    assert "text = 'sentence', label = 'intent'" in words
    assert "nota and 1 without a plain name" in words
    assert SECRET not in json.dumps(report.facts())


REFUSED: list[tuple[str, str, str, Kind, str]] = [
    ("preferences", "a.json", json.dumps([{"prompt": "p", "chosen": SECRET, "rejected": "no"}]), "causal", "preference-pairs: "
        ""),
    ("two labels", "a.json", json.dumps([{"text": SECRET, "label": ["ham"]}]), "classification", "several-labels: "
        ""),
    ("two labels in a field", "a.csv", f'text,label\n{SECRET},"ham;spam"\n', "classification", "several-labels: "
        ""),
    ("an unknown label", "a.csv", f"text,label\nx,ham\ny,{SECRET}\n", "classification", "line 3: "
        "the label in column 'label' is unknown"),
    ("columns in place of rows", "a.json", json.dumps({"text": {"0": SECRET}, "label": {"0": "ham"}}), "classification",
     'orient="records"'),
    ("rows inside an object", "a.json", json.dumps({"version": 1, "data": [{"text": SECRET, "label": "ham"}]}), "classification",
     "jq -c '.data[]'"),
    ("nothing but separators", "a.csv", "sep=;\n;;\n;;;\n", "causal", "table-empty: "),
    ("a role of their own", "a.json", json.dumps([{"messages": [{"role": SECRET, "content": "x"}]}]), "causal", "chat-role-unknown: "
        ""),
    ("an image", "a.json", json.dumps([{"messages": [{"role": "user", "content": [{"image": SECRET}]}]}]), "causal", "chat-turn-unfit: "
        ""),
    ("an array cut off", "a.json", '[{"text": "x", "label": "ham"}, {"text": "' + SECRET, "classification", "not "
        "closed"),
    ("an object cut off", "a.jsonl", '{"text": "x", "label": "ham"}\n{\n"text": "' + SECRET + '"\n', "classification",
     "line 2: not valid JSON"),
    ("no header, no label", "a.csv", f"Ximena,{SECRET}\nRosa,flu\n", "classification", "Columns "
        "found: 2; none has a usual name"),
    ("a plain text called jsonl", "a.jsonl", f"{SECRET}\n{SECRET}\n", "classification", "does not "
        "begin with { or ["),
    ("an archive", "a.csv", "PK\x03\x04" + SECRET, "classification", "file-is-an-archive: "),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "file", "content", "kind", "expected"), REFUSED, ids=[r[0] for r in REFUSED]
)
def test_what_cannot_be_used_is_said(
    tmp_path: Path, name: str, file: str, content: str, kind: Kind, expected: str
) -> None:
    message = refused(save(tmp_path, file, content), kind)
    assert expected in message
    assert "Ximena" not in message


def test_a_table_without_header_by_position(tmp_path: Path) -> None:
    path = save(tmp_path, "a.csv", "why?,so\nhow?,thus\n")
    options = Options(header=False)
    assert "which are called 1 to 2" in _error(path, Columns(), options)
    named = Columns(prompt="1", response="2")
    assert read(path, "causal", named, options=options)[0] == [
        pair("why?", "so"),
        pair("how?", "thus"),
    ]


def _error(path: Path, columns: Columns, options: Options) -> str:
    with pytest.raises(DataError) as caught:
        read(path, "causal", columns, options=options)
    return str(caught.value)


def test_files_folders_and_patterns(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    one = save(tmp_path, "1.csv", "text,label\na,ham\n")
    two = save(tmp_path, "2.jsonl", '{"text": "b", "label": "spam"}\n')
    save(tmp_path, ".hidden.csv", "x")
    save(tmp_path, "notes.docx", "x")
    three = save(tmp_path / "more", "3.tsv", "text\tlabel\nc\tham\n")
    for paths in (tmp_path, tmp_path / "[12].*", [one, two], [tmp_path, one]):
        reading = Reading(paths, Columns(), "classification", LABELS, "ana")
        assert [e.text for e in reading] == ["a", "b"]
        assert [file.file for file in reading.report.files] == [str(one), str(two)]
        assert (reading.report.rows, [e.text for e in reading]) == (2, ["a", "b"])
    deep = Reading([tmp_path / "**" / "*.tsv"], Columns(), "classification", LABELS, "ana")
    assert [e.text for e in deep] == ["c"]
    assert three.exists()
    odd = save(tmp_path, "odd[1].csv", "text,label\nd,ham\n")  # a name that is there is no pattern
    assert [e.text for e in read(odd)[0]] == ["d"]
    assert refused(tmp_path / "*.none").startswith("data-file-missing: ")
    assert "similar name in that folder: 1.csv" in refused(tmp_path / "1.jsonl")


def test_parquet_reads_only_what_it_uses(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    moment = pyarrow.array([1, 2, 3], pyarrow.timestamp("ns"))
    labels = pyarrow.array([1, 0, -1])
    features = {
        "label": {"names": ["ham", "spam"], "_type": "ClassLabel"},
        "text": {"dtype": "string", "_type": "Value"},
    }
    table = pyarrow.table(
        {
            "when": moment,
            "text": pyarrow.array(["a", "b", "c"]).dictionary_encode(),
            "label": labels,
        }
    )
    table = table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    parquet.write_table(table, path)
    found, report = read(path)
    assert [(e.text, e.label) for e in found] == [("a", "spam"), ("b", "ham")]
    assert report.left_out == {"unlabelled": 1}
    assert report.unused == ("when",)
    with builders.refused(DataError, "label-of-a-class", column="label"):
        read(path, labels=("good", "bad"))


@pytest.mark.skipif(importlib.util.find_spec("openpyxl") is None, reason="openpyxl is an extra")
def test_the_first_sheet_of_a_workbook(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    for row in (
        [],
        ["when", "review", "stars", None],
        [datetime.date(2026, 1, 2), "good", 1, None],
        [None, "bad", 0.0],
    ):
        sheet.append(row)
    book.create_sheet("second").append(["text", "label"])
    path = tmp_path / "a.xlsx"
    book.save(path)
    found, report = read(path, labels=("0", "1"))
    assert [(e.text, e.label) for e in found] == [("good", "1"), ("bad", "0")]
    assert "2 sheets; only the first was read" in " ".join(report.sentences())
    assert report.unused == ("when",)


def test_rows_to_predict_have_their_numbers(tmp_path: Path) -> None:
    path = save(tmp_path, "ask.csv", 'n;message\n1;"one\nmore"\n\n2;\n3;three\n')
    assert [(a.row, a.text) for a in read_asked(path)] == [
        (1, "one\nmore"),
        (2, None),
        (3, "three"),
    ]
    assert [(a.row, a.text) for a in read_asked(path, ["n"])] == [(1, "1"), (2, "2"), (3, "3")]
