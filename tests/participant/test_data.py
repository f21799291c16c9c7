"""Reading rows: what is accepted, and errors that name file, participant and line but never the
content.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from builders import refused
from tequio.core.errors import DataError
from tequio.participant.data import Columns, Example, Kind, read_examples, read_texts

LABELS = ("pos", "neg")
SECRET = "marisol-has-asthma"  # stands in every faulty row below, and may be in no message


def write(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(
    path: Path, kind: Kind = "classification", columns: Columns | None = None
) -> list[Example]:
    return read_examples(path, columns or Columns(), kind, LABELS, "ana")


def error_of(path: Path, kind: Kind = "classification") -> str:
    """The message, after checking that it names participant and file and holds nothing of the
    content.
    """
    with pytest.raises(DataError) as caught:
        read(path, kind)
    message = str(caught.value)
    assert "articipant ana" in message
    assert str(path) in message
    assert SECRET not in message
    assert caught.value.reason is not None
    return f"{caught.value.reason.code}: {message}"


TWO = [Example("hola, mundo", label="pos"), Example("adiós", label="neg")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "a.jsonl",
            '{"text": "hola, mundo", "label": "pos"}\n\n{"text": "adiós", "label": " neg "}\n',
        ),
        (
            "a.ndjson",
            '{"text": "hola, mundo", "label": "pos"}\r\n{"text": "adiós", "label": "neg"}',
        ),
        ("a.csv", 'text,label\n"hola, mundo",pos\nadiós, neg\n'),
        ("a.CSV", 'id, label ,text\r\n1,pos,"hola, mundo"\r\n\r\n2,neg,adiós\r\n'),
        ("a.tsv", "label\ttext\npos\thola, mundo\nneg\tadiós\n"),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_same_two_rows_in_each_format_with_and_without_bom(
    tmp_path: Path, name: str, content: str, mark: bytes
) -> None:
    assert read(write(tmp_path, name, mark + content.encode())) == TWO


def test_parquet_gives_the_same_rows_over_several_batches(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pyarrow.table({"text": ["hola, mundo", "adiós"] * 1500, "label": ["pos", "neg"] * 1500})
    parquet.write_table(table, path)
    assert read(path) == TWO * 1500


def test_integer_labels_are_their_strings(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "x", "label": 1}\n{"text": "y", "label": "0"}\n')
    found = read_examples(path, Columns(), "classification", ("0", "1"), "ana")
    assert [e.label for e in found] == ["1", "0"]


def test_a_truth_value_is_the_label_of_its_word(tmp_path: Path) -> None:
    path = write(
        tmp_path, "a.jsonl", '{"text": "x", "label": true}\n{"text": "y", "label": false}\n'
    )
    found = read_examples(path, Columns(), "classification", ("True", "False"), "ana")
    assert [e.label for e in found] == ["True", "False"]


def test_own_column_names(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "review,stars\nx,pos\n")
    assert read(path, columns=Columns(text="review", label="stars")) == [Example("x", label="pos")]


def test_causal_takes_text_or_prompt_and_response(tmp_path: Path) -> None:
    rows = '{"text": "x"}\n{"prompt": "p", "response": "r"}\n{"prompt": "p", "response": " "}\n'
    path = write(tmp_path, "a.jsonl", rows)
    assert read(path, "causal") == [Example("x"), Example("p", response="r")]


def test_a_row_with_an_empty_text_needs_no_label(tmp_path: Path) -> None:
    rows = '{"text": " "}\n{"text": null, "label": "?"}\n{"text": "", "label": "pos"}\n'
    assert read(write(tmp_path, "a.jsonl", rows)) == []


def test_a_text_longer_than_the_csv_module_allows_by_default(tmp_path: Path) -> None:
    text = "a" * 200_000  # csv's own limit is 131,072
    assert read(write(tmp_path, "a.csv", f"text,label\n{text},pos\n")) == [
        Example(text, label="pos")
    ]


def test_missing_folder_and_unknown_ending(tmp_path: Path) -> None:
    assert error_of(tmp_path / "none.jsonl").startswith("data-file-missing: ")
    assert error_of(tmp_path).startswith("folder-without-data: ")
    message = error_of(write(tmp_path, "a.docx", SECRET))
    assert "ending-unknown: " in message
    assert ".docx" in message
    assert ".jsonl, .ndjson, .json, .csv, .tsv, .parquet, .xlsx" in message
    assert "file-cut-off: " in error_of(write(tmp_path, "a.xlsx", SECRET))


def test_a_name_too_long_for_the_system_is_a_data_error(tmp_path: Path) -> None:
    error_of(tmp_path / ("n" * 300 + ".csv"))


GOOD = f'{{"text": "{SECRET}", "label": "pos"}}\n'
FAULTS = [
    ("a.jsonl", GOOD.encode() + b'{"text": "' + SECRET.encode() + b' \x81"}\n', "Line 2, byte 30 "),
    ("a.jsonl", b"\xef\xbb\xbf\xe9" + SECRET.encode(), "Line 1, byte 4 "),
    ("a.jsonl", GOOD + f'{{"text": "{SECRET}\0"}}\n', "line 2 contains a NUL byte"),
    ("a.csv", f"text,label\n{SECRET}\0,pos\n", "line 2 contains a NUL byte"),
    (
        "a.jsonl",
        f'{{"text": "{SECRET}\\u0000", "label": "pos"}}',
        "line 1: a text in column 'text' holds a NUL",
    ),
    ("a.jsonl", f'{{"text": "{SECRET}\\ud800", "label": "pos"}}', "text-with-flaw: "),
    ("a.jsonl", GOOD + f'{{"text": "{SECRET}" "label"}}\n', "line 2: not valid JSON (at column"),
    ("a.jsonl", "[" * 200_000, "row 1: not a JSON object"),
    ("a.jsonl", '{"a":' * 200_000, "line 1: not valid JSON"),
    ("a.jsonl", GOOD + f'["{SECRET}"]\n', "line 2: not a JSON object"),
    ("a.jsonl", f'{{"text": ["{SECRET}"], "label": "pos"}}', "line 1: column 'text' holds list"),
    ("a.csv", "", "table-empty: "),
    ("a.csv", f"text,text,label\n{SECRET},b,pos\n", "line 1: two columns have the same name"),
    (
        "a.csv",
        f'text,label\n"x\ny",pos\n{SECRET},pos,pos\n',
        "line 4: wrong number of fields. It has 3",
    ),
    ("a.csv", f"text,label\nx,pos\n{SECRET}\n", "line 3: wrong number of fields. It has 1"),
    ("a.csv", f'text,label\n"x\ny",pos\n"{SECRET},pos\nx,neg\n', "line 4: not valid CSV"),
    ("a.parquet", f"PAR1{SECRET}", "file-cut-off: "),
]


@pytest.mark.parametrize(("name", "content", "expected"), FAULTS, ids=[f[2][:40] for f in FAULTS])
def test_a_faulty_file_is_refused_with_its_line(
    tmp_path: Path, name: str, content: bytes | str, expected: str
) -> None:
    assert expected in error_of(write(tmp_path, name, content))


def test_not_utf8_says_how_to_convert(tmp_path: Path) -> None:
    message = error_of(write(tmp_path, "a.csv", b"text,label\n\xe9\x8d,pos\n"))
    assert "iconv -f WINDOWS-1252 -t UTF-8" in message
    assert 'encoding = "cp1252"' in message


@pytest.mark.parametrize("value", [f'"{SECRET}"', "true", "1.0", "2"])
def test_no_label_is_shown_where_one_is_unknown(tmp_path: Path, value: str) -> None:
    rows = f'{GOOD}{{"text": "{SECRET}", "label": {value}}}\n'
    message = error_of(write(tmp_path, "a.jsonl", rows))
    assert message.startswith("label-unknown: ")
    assert "a.jsonl, line 2: the label in column 'label'" in message
    assert "neg" not in message


@pytest.mark.parametrize("value", ["POS", "Neg", "pos "])
def test_a_label_in_another_case_is_the_label(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, "a.csv", f"text,label\n{SECRET},{value}\n")
    assert [e.label for e in read(path)] == [value.strip().lower()]


def test_a_label_that_differs_in_spaces_is_named_as_a_slip(tmp_path: Path) -> None:
    message = error_of(write(tmp_path, "a.csv", f"text,label\n{SECRET},p os\n"))
    assert message.startswith("label-nearly: ")
    assert "p os" not in message


def test_a_missing_column_lists_those_found_and_the_nearest(tmp_path: Path) -> None:
    message = error_of(write(tmp_path, "a.csv", f"txet,label,id\n{SECRET},pos,{SECRET}\n"))
    assert message.startswith("data-column-missing: ")
    assert (
        "there is no column called text. Columns found: txet, label, id. Nearest name: txet."
        in message
    )
    message = error_of(
        write(tmp_path, "a.jsonl", GOOD + f'{{"text": "{SECRET}", "lable": "pos"}}\n')
    )
    assert "line 2: there is no column called label." in message
    assert "Nearest name: lable." in message


def test_causal_with_a_prompt_alone_says_what_is_needed(tmp_path: Path) -> None:
    message = error_of(write(tmp_path, "a.jsonl", f'{{"prompt": "{SECRET}"}}\n'), "causal")
    assert "there is no column called text, 'prompt' and 'response', or 'messages'" in message


@pytest.mark.parametrize(
    "first", [f"{SECRET},other", f"{SECRET} and more,other", f"{SECRET}@x.org,3"]
)
def test_a_table_without_header_does_not_show_its_first_sample(tmp_path: Path, first: str) -> None:
    message = error_of(write(tmp_path, "a.csv", f"{first}\n{SECRET},none\n"))
    assert "may be data and are not shown" in message
    assert "other" not in message


def test_parquet_with_a_wrong_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"txet": [SECRET], "label": ["pos"], "n": [SECRET]}), path)
    assert "Nearest name: txet." in error_of(path)


def test_parquet_labels_may_be_whole_numbers_and_texts_must_be_text(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": ["x", None], "label": [1, None]}), path)
    assert read_examples(path, Columns(), "classification", ("0", "1"), "ana") == [
        Example("x", label="1")
    ]
    parquet.write_table(pyarrow.table({"text": [SECRET.encode()], "label": ["pos"]}), path)
    assert "row 1: column 'text' holds bytes. Expected text." in error_of(path)


def test_a_json_number_of_too_many_digits(tmp_path: Path) -> None:
    # Python reads integers of at most 4,300 digits from text.
    text = f'{GOOD}{{"text": "{SECRET}", "label": {"9" * 5000}}}'
    assert error_of(write(tmp_path, "a.jsonl", text)).startswith("json-malformed: ")


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path) -> None:
    broken = tmp_path / "site" / "pyarrow"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('not installed')\n")
    path = write(tmp_path, "a.parquet", b"PAR1")
    code = (
        "import sys; from pathlib import Path\n"
        "from tequio.core.errors import DataError\n"
        "from tequio.participant.data import Columns, read_examples\n"
        "try: read_examples(Path(sys.argv[1]), Columns(), 'causal', (), 'ana')\n"
        "except DataError as error: print(error)\n"
    )
    search = os.pathsep.join([str(tmp_path / "site"), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Participant ana" in done.stdout
    assert 'pip install "tequio[parquet]"' in done.stdout


def test_texts_to_predict_come_from_lines_or_tables(tmp_path: Path) -> None:
    assert read_texts(write(tmp_path, "a.txt", "\ufeffone\n\n two \n")) == ["one", None, "two"]
    assert read_texts(write(tmp_path, "a.csv", "text\none\n\n two \n")) == ["one", " two "]
    assert read_texts(write(tmp_path, "a.jsonl", '{"prompt": "one"}\n{"text": " "}\n')) == [
        "one",
        None,
    ]
    with refused(DataError, "no-text-column", names=["text", "prompt"]) as caught:
        read_texts(write(tmp_path, "b.csv", f"{SECRET} x,pos\n1,2\n"))
    assert SECRET not in str(caught.value)
