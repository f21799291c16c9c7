"""One answer per row, with the row's number: files, standard input, the participant's own column
names.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from builders import refused
from tequio.app.models.predict import predict_rows, read_prediction_texts, text_columns
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.core.errors import DataError


@pytest.fixture
def run(make_federation: Callable[..., Path], tmp_path: Path) -> Path:
    federation = make_federation(centre=False, train={"rounds": 1})
    own = federation.parent / "participants" / "site0.toml"
    data = federation.parent / "data" / "site0.jsonl"
    data.write_text(data.read_text().replace('"text"', '"message"'))
    own.write_text(own.read_text().replace("[data]", '[data]\ntext = "message"'))
    start(load_federation(federation), tmp_path / "run", False)
    return tmp_path / "run"


def test_each_row_has_its_answer(run: Path, tmp_path: Path) -> None:
    (tmp_path / "ask.csv").write_text(
        'id,message\n1,the nurse was kind\n2,\n3,"the line\nwas rude"\n4,  \n'
    )
    columns = text_columns(run, "site0")
    assert columns[0] == "message"
    assert "text" in columns
    texts = read_prediction_texts(tmp_path / "ask.csv", columns)
    answers = predict_rows(run, "site0", texts, 4)
    assert [answer["row"] for answer in answers] == [1, 2, 3, 4]
    assert [answer["label"] is None for answer in answers] == [False, True, False, True]
    assert answers[1] == {"row": 2, "label": None, "probabilities": None}
    (alone,) = predict_rows(run, "site0", [texts[2]], 4)
    assert alone["label"] == answers[2]["label"]


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        (b"one\n\n two \n", ["one", None, "two"]),
        (b"\xef\xbb\xbfone\r\ntwo", ["one", "two"]),
        (b'{"text": "one"}\n{"text": null}\n{"text": "two"}\n', ["one", None, "two"]),
        (b"id,text\n1,one\n2,\n", ["one", None]),
        ('"a", she said\nñ\n'.encode(), ['"a", she said', "ñ"]),
    ],
)
def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, given: bytes, texts: list[str | None]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    assert read_prediction_texts(Path("-")) == texts


@pytest.mark.parametrize("given", [b"", b"\n\n", b'{"text": ""}\n'])
def test_no_text_at_all(monkeypatch: pytest.MonkeyPatch, given: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
    with refused(DataError, "no-text-to-predict", file="Standard input"):
        read_prediction_texts(Path("-"))


def test_a_missing_column_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "ask.csv").write_text("id,words\n1,x\n")
    with refused(DataError, "no-text-column", names=["message", "text"]) as caught:
        read_prediction_texts(tmp_path / "ask.csv", ["message", "text"])
    assert "--column NAME" in str(caught.value)
    assert read_prediction_texts(tmp_path / "ask.csv", ["words"]) == ["x"]
