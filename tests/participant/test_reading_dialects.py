"""Known rows, written in each dialect, read back equal."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import refused
from tequio.core.errors import DataError
from tequio.participant.data import Columns, Example, Options, Reading

LABELS = ("pos", "neg")
PACK: dict[str, Callable[[bytes], bytes]] = {
    "": lambda b: b,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252")
SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Dialect:
    """How a table is written."""

    separator: str = ","
    quoting: str = "minimal"  # minimal, all, backslash, none
    encoding: str = "utf-8"
    end: str = "\n"
    packed: str = ""
    header: bool = True
    blanks: int = 0
    sep_line: bool = False
    unnamed: int = 0


def field(text: str, dialect: Dialect) -> str:
    if dialect.quoting == "none":
        return text
    if dialect.quoting == "backslash":
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    needs = any(c in text for c in (dialect.separator, '"', "\n", "\r")) or dialect.quoting == "all"
    return '"' + text.replace('"', '""') + '"' if needs else text


def table(rows: list[tuple[str, str]], dialect: Dialect) -> bytes:
    lines = [""] * dialect.blanks
    if dialect.sep_line:
        lines.append(f"sep={dialect.separator}")
    extra = dialect.separator * dialect.unnamed
    for a, b in ([("text", "label")] if dialect.header else []) + rows:
        lines.append(field(a, dialect) + dialect.separator + field(b, dialect) + extra)
    content = (dialect.end.join(lines) + dialect.end).encode(dialect.encoding)
    return PACK[dialect.packed](content)


def read(
    content: bytes, name: str, options: Options | None = None
) -> tuple[list[Example], Reading]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        reading = Reading(path, Columns(), "classification", LABELS, "ana", options)
        return list(reading), reading


DIALECTS = st.builds(
    Dialect,
    separator=st.sampled_from(SEPARATORS),
    quoting=st.sampled_from(("minimal", "all", "backslash", "none")),
    encoding=st.sampled_from(ENCODINGS),
    end=st.sampled_from(("\n", "\r\n")),
    packed=st.sampled_from(tuple(PACK)),
    header=st.booleans(),
    blanks=st.integers(0, 3),
    sep_line=st.booleans(),
    unnamed=st.integers(0, 2),
)
WORDS = (
    "tren", "late again", "café", "«niño»", "l’été", "10 €", 'she said "no"', '"quoted" start', 'end '
        '"quoted"',
    "a, b, c", "a; b", "tab\there", "x | y", "line\nbreak", "back\\slash", "O'Brien", "{brace}", "#1", "-", "a" * 300, '"open', 'close"',
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=4).map(" ".join)
ROWS = st.lists(st.tuples(TEXTS, st.sampled_from(LABELS)), min_size=3, max_size=25)


def writable(text: str, dialect: Dialect) -> str:
    """The text with what this dialect cannot write replaced."""
    if dialect.quoting == "none":
        for sign in ("\n", *SEPARATORS):
            text = text.replace(sign, "/")
    return text


def texts_for(rows: list[tuple[str, str]], dialect: Dialect) -> list[tuple[str, str]]:
    """The rows, each text unlike the others and with nothing that this dialect cannot write."""
    out = []
    for i, (text, label) in enumerate(rows):
        own = writable(text, dialect)
        out.append((f"{i} {own}" if i % 2 else f"{own} {i}", label))
    if dialect.quoting == "backslash":
        # Without such a row nothing shows that a backslash is more than itself.
        out.append(('the \\ and the "quote"', "pos"))
    return out


@settings(max_examples=400, deadline=None)
@given(DIALECTS, ROWS)
def test_rows_in_any_dialect_of_a_table_read_back_equal(
    dialect: Dialect, rows: list[tuple[str, str]]
) -> None:
    rows = texts_for(rows, dialect)
    name = "a.tsv" if dialect.separator == "\t" else "a.csv"
    found, reading = read(table(rows, dialect), name + dialect.packed)
    assert found == [Example(text, label=label) for text, label in rows]
    assert reading.report.rows == len(rows)
    assert reading.report.files[0].form.header is dialect.header


@settings(max_examples=60, deadline=None)
@given(ROWS, st.sampled_from(ENCODINGS), st.sampled_from(tuple(PACK)), st.booleans())
def test_rows_of_json_in_any_layout_read_back_equal(
    rows: list[tuple[str, str]], encoding: str, packed: str, ascii_only: bool
) -> None:
    objects = [{"text": f"{text} ] }} \\", "label": label} for text, label in rows]
    expected = [Example(str(o["text"]), label=o["label"]) for o in objects]

    def dump(value: object, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=ascii_only, indent=indent)

    layouts = {
        "lines": "".join(dump(o) + "\n" for o in objects),
        "spread": "\n\n".join(dump(o, 2) for o in objects),
        "array": dump(objects),
        "spread array": "\n" + dump(objects, 1) + "\n",
    }
    for text in layouts.values():
        assert read(PACK[packed](text.encode(encoding)), "a.json" + packed)[0] == expected


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("header", [True, False])
def test_what_is_given_overrides_what_is_detected(separator: str, header: bool) -> None:
    rows = [("uno", "pos"), ("dos, tres; cuatro", "neg")]
    lines = [
        f"{a}{separator}{b}" if separator not in a else f'"{a}"{separator}{b}' for a, b in rows
    ]
    content = "\n".join(["text" + separator + "label"] * header + lines).encode("cp037")
    found, _ = read(content, "a.csv", Options(separator, "cp037", header))
    assert found == [Example(a, label=b) for a, b in rows]


def test_elements_that_cross_the_pieces_in_which_a_file_is_read() -> None:
    objects = [{"text": '\\"[{' * (7_000 + i) + "ñ", "label": "pos"} for i in range(12)]
    found, _ = read(json.dumps(objects, ensure_ascii=False).encode(), "a.json")
    assert [e.text for e in found] == [o["text"] for o in objects]


def test_a_late_stray_quote_is_found_beyond_the_sample() -> None:
    rows = [f"text {i}\tpos" for i in range(3_000)]
    rows[2_000] = '"begins here\tneg'
    rows[2_500] = 'ends here"\tneg'
    found, reading = read(("text\tlabel\n" + "\n".join(rows)).encode(), "a.tsv")
    assert len(found) == 3_000
    assert found[2_000].text == '"begins here'
    assert reading.report.files[0].form.quoting == "none"


def test_a_truncated_or_damaged_archive_is_an_error_that_says_so() -> None:
    content = table([(f"text {i}", "pos") for i in range(2_000)], Dialect())
    for suffix, pack in PACK.items():
        if suffix:
            packed: bytes = pack(content)
            with refused(DataError, "file-cut-off"):
                read(packed[: len(packed) // 2], "a.csv" + suffix)


def test_other_encodings_are_not_read_as_windows_1252() -> None:
    words = "привет мир, это хороший поезд"
    mac = "El niño comió mamá más según él" * 3
    for text, encoding in (
        (words, "cp1251"),
        (words, "koi8-r"),
        (mac, "cp850"),
        ("日本語の文", "shift-jis"),
    ):
        with refused(DataError, "not-utf-8"):
            read(f"text,label\n{text},pos\n".encode(encoding), "a.csv")
        lines = f'text,label\n"{text}",pos\n'.encode(encoding)
        assert read(lines, "a.csv", Options(encoding=encoding))[0] == [Example(text, label="pos")]


def test_marks_of_every_unicode_encoding() -> None:
    for encoding in ("utf-32", "utf-16", "utf-8-sig"):
        assert read("text,label\ncafé,pos\n".encode(encoding), "a.csv")[0] == [
            Example("café", label="pos")
        ]
    assert read(codecs.BOM_UTF8 + b'{"text": "x", "label": "pos"}', "a.jsonl")[0] == [
        Example("x", label="pos")
    ]
