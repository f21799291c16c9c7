"""Damaged files of every format: a DataError or rows, never a traceback, never a field in a
message.

TEQUIO_FUZZ=100000 makes that many files instead of a thousand.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow
import zstandard
from pyarrow import parquet

from tequio.core.errors import DataError
from tequio.participant.data import Columns, Kind, Reading, read_asked

FILES = int(os.environ.get("TEQUIO_FUZZ", "1000"))
SECRET = re.compile("[QXZ]{4,}")
SIGNS = [
    b'"',
    b"'",
    b"\\",
    b",",
    b";",
    b"\t",
    b"|",
    b"\n",
    b"\r",
    b"\0",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"\xff",
    b"\xe9",
]
SIGNS += [
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\xc3",
    b"\xe2\x80",
    b"sep=;\n",
    b"NaN",
    b"null",
    b"\\u0000",
    b"\\ud800",
]
NAMES = ("text", "label", "prompt", "response", "messages", "id", "note", "QXZQXZ")


def secret(chance: random.Random) -> str:
    """A field: words of three letters only, so that any piece of one can be seen in a message."""
    words = [
        "".join(chance.choices("QXZ", k=chance.randint(4, 9))) for _ in range(chance.randint(1, 5))
    ]
    return chance.choice((" ", ", ", ' "', "\n", "; ", "\t")).join(words)


def rows(chance: random.Random) -> list[dict[str, object]]:
    def turns() -> list[dict[str, str]]:
        who = (
            ("QXZQX", "user")
            if chance.random() < 0.02
            else chance.choice((("user", "assistant"), ("human", "gpt")))
        )
        keys = chance.choice((("role", "content"), ("from", "value")))
        return [{keys[0]: who[i % 2], keys[1]: secret(chance)} for i in range(chance.randint(0, 4))]

    labels = ("pos", "neg", 1, 1.5, True, None, "", ["pos", "QXZQX"], "QXZQXZ", {"QXZQ": "QXZQXZ"})
    makers: dict[str, Callable[[], object]] = {
        "text": lambda: secret(chance),
        "label": lambda: chance.choice(labels[: 10 if chance.random() < 0.02 else 2]),
        "prompt": lambda: chance.choice((secret(chance), "", None)),
        "response": lambda: secret(chance),
        "messages": turns,
        "id": lambda: chance.randint(0, 99),
        "note": lambda: chance.choice((secret(chance), None)),
        "QXZQXZ": lambda: secret(chance),
    }
    # A name that may be data is never beside a usual one in a header: then it would be a name.
    usual = chance.choice(
        (["text", "label"], ["id", "label", "text", "note"], ["prompt", "response"], ["messages"])
    )
    odd = chance.sample(NAMES[:-1], chance.randint(1, 5)) if chance.random() < 0.7 else ["QXZQXZ"]
    names = usual if chance.random() < 0.8 else odd
    return [
        {name: makers[name]() for name in names} for _ in range(chance.choice((0, 1, 3, 8, 12)))
    ]


def write(found: list[dict[str, object]], form: str, chance: random.Random) -> bytes:
    if form in ("csv", "tsv"):
        separator = "\t" if form == "tsv" else chance.choice(",;|")
        lines = [separator.join(found[0])] if found and chance.random() < 0.9 else []
        for row in found:
            fields = [
                "" if v is None else v if isinstance(v, str) else json.dumps(v)
                for v in row.values()
            ]
            quoted = [
                '"' + f.replace('"', '""') + '"' if chance.random() < 0.99 else f for f in fields
            ]
            lines.append(separator.join(quoted))
        return "\n".join(lines).encode(chance.choice(("utf-8", "utf-8-sig", "utf-16", "utf-16-be")))
    if form == "jsonl":
        return "\n".join(json.dumps(row) for row in found).encode()
    if form == "spread":
        return "\n".join(json.dumps(row, indent=1) for row in found).encode()
    if form == "json":
        return json.dumps(found, indent=chance.choice((None, 1))).encode()
    out = io.BytesIO()
    if form == "parquet":
        # Here a name is certainly a name, so that a message may show it.
        plain = [
            {
                k.replace("QXZQXZ", "x"): v if v is None or isinstance(v, str) else json.dumps(v)
                for k, v in row.items()
            }
            for row in found
        ]
        parquet.write_table(pyarrow.Table.from_pylist(plain or [{"text": "QXZQXZ"}]), out)
    else:
        import openpyxl

        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet()
        for line in [
            list(found[0]) if found else [],
            *(list(map(str, row.values())) for row in found),
        ]:
            sheet.append(line)
        book.save(out)
    return out.getvalue()


def mutated(content: bytes, other: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.choice((0, 1, 1, 2, 3, 8))):
        a, b = sorted((chance.randint(0, len(content)), chance.randint(0, len(content))))
        b = min(b, a + chance.choice((1, 2, 10, 100)))
        content = chance.choice(
            (
                lambda a=a, b=b, c=content: c[:a] + c[b:],
                lambda a=a, c=content: c[:a],
                lambda a=a, c=content: c[:a] + chance.choice(SIGNS) + c[a:],
                lambda a=a, b=b, c=content: c[:a] + chance.choice(SIGNS) + c[b:],
                lambda a=a, b=b, c=content: c[:a] + c[a:b] * 2 + c[b:],
                lambda a=a, c=content: c[:a] + chance.randbytes(1) + c[a + 1 :],
                lambda a=a, c=content: c[:a] + other[chance.randint(0, len(other)) :],
            )
        )()
    return content


FORMS = ["csv", "tsv", "jsonl", "spread", "json", "parquet"]
if importlib.util.find_spec("openpyxl") is not None:
    FORMS.append("xlsx")
WEIGHTS = [4, 4, 4, 2, 3, 1, 0.2][: len(FORMS)]


def check(number: int, path: Path) -> str:
    """Read one damaged file in every way; returns what came of it."""
    chance = random.Random(number)
    form = chance.choices(FORMS, WEIGHTS)[0]
    content = mutated(write(rows(chance), form, chance), write(rows(chance), "csv", chance), chance)
    ending = (
        {"spread": "jsonl"}.get(form, form)
        if chance.random() < 0.9
        else chance.choice(("csv", "json", "txt"))
    )
    if (packed := chance.random()) < 0.1:
        pack, suffix = chance.choice(((gzip.compress, ".gz"), (zstandard.compress, ".zst")))
        content, ending = pack(content), ending + suffix
        if packed < 0.05:
            content = mutated(content, b"", chance)
    file = path.with_suffix(f".{ending}")
    file.write_bytes(content)
    kind: Kind = chance.choice(("classification", "causal")) if chance.random() < 0.3 else "causal"
    if b"label" in content and chance.random() < 0.8:
        kind = "classification"
    given = chance.choice((Columns(text="note"), Columns(prompt="id", response="note")))
    columns = given if chance.random() < 0.1 else Columns()
    messages: dict[int, str] = {}
    for turn in range(2):
        try:
            if turn == 0:
                list(Reading(file, columns, kind, ("pos", "neg"), "ana"))
            else:
                read_asked(file)
        except DataError as error:
            messages[turn] = str(error)
        except Exception as error:
            raise AssertionError(f"file {number}: {type(error).__name__}: {error}") from error
    for message in messages.values():
        assert str(file) in message, f"file {number}: {message}"
        assert not SECRET.search(message.replace(str(file), "")), f"file {number}: {message}"
    file.unlink()
    return "error" if 0 in messages else "rows"


def test_damaged_files_end_in_rows_or_in_an_error_that_quotes_nothing(tmp_path: Path) -> None:
    outcomes = [check(number, tmp_path / "a") for number in range(FILES)]
    assert min(outcomes.count("rows"), outcomes.count("error")) > FILES // 5
