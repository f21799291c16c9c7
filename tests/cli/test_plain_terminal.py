"""A terminal or a log without UTF-8, a missing home folder, brackets in paths: nothing ends in a
traceback, and exit codes stay.
"""

from __future__ import annotations

import codecs
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from rich.cells import cell_len

from tequio.cli.terminal import NAME, PLAIN, plain
from tequio.core.texts.words import TEXTS

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
MAIN = [sys.executable, "-m", "tequio.cli.main"]


def tequio(
    *words: str | Path, variables: Mapping[str, str] = MappingProxyType({}), given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [*MAIN, *map(str, words)], input=given, capture_output=True, timeout=300, env=environment
    )


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_whatever_is_printed_can_be_shown(encoding: str) -> None:
    codecs.register_error(NAME, plain)
    for text in [
        "".join(PLAIN),
        "┏━━┓│╸",
        "日本 😀 \udcff",
        *(text for texts in TEXTS.values() for text in texts.values()),
    ]:
        shown = str(text).encode(encoding, NAME).decode(encoding)
        assert len(shown) >= len(str(text))
    assert "Cuánto…".encode("ascii", NAME) == b"Cuanto..."


@pytest.mark.parametrize(
    "variables", [ASCII, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "ascii"}]
)
def test_light_commands_in_such_a_terminal(tmp_path: Path, variables: dict[str, str]) -> None:
    for words in (
        ["--help"],
        ["run", "--help"],
        ["carbon", "countries"],
        ["version"],
        ["init", tmp_path / "ñandú €"],
    ):
        shown = tequio(*words, variables=variables)
        assert shown.returncode == 0, shown.stderr
    wrong = tequio("run", tmp_path / "niño – €.toml", variables=variables)
    assert wrong.returncode == 2
    assert b"Traceback" not in wrong.stderr
    assert b"There is no file" in wrong.stderr
    said = tequio("carbon", "countries", "niño €", "--json", variables=variables)
    assert "niño €" in json.loads(said.stdout.decode("latin-1"))[
        "what"
    ] or "ni" in said.stdout.decode("latin-1")


def test_without_a_home_folder() -> None:
    code = (
        "import os; os.getuid = lambda: 987654; os.environ.pop('HOME', None); "
        "from tequio.cli.environment import prepare_process; prepare_process(); "
        "from tequio.config.cache import cache_folder; print(cache_folder())"
    )
    environment = {
        k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "TEQUIO_CACHE")
    }
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip().endswith("tequio")


def test_brackets_and_colons_are_printed_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "[bold]a[/bold] [red :smile: [0-9]"
    shown = tequio("init", folder)
    assert shown.returncode == 0, shown.stderr
    assert f"{folder / 'federation.toml'}" in shown.stdout.decode()
    missing = tequio("run", folder / "[/x].toml")
    assert str(folder / "[/x].toml") in missing.stderr.decode()


def test_a_run_in_a_narrow_ascii_terminal_ends_well(
    tmp_path: Path, make_federation: Callable[..., Path]
) -> None:
    federation = make_federation(centre=False, folder="fed [x] ñ")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
    environment = {**os.environ, **ASCII, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    out = tmp_path / "run ñ"
    command = [*MAIN, "run", str(federation), "--out", str(out), "--threads", "1"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # the other end is closed
            pass
        assert process.stdout is not None
        summary = process.stdout.read()
    assert process.returncode == 0, shown.decode("ascii", "replace")[-2000:]
    assert b"Traceback" not in shown + summary
    drawn = [
        text
        for text in shown.decode("ascii").replace("\x1b[2K", "\r").split("\r")
        if "Personal models" in text
    ]
    assert drawn
    assert all(cell_len(text.split("\x1b")[0].strip()) < 60 for text in drawn)
    report = tequio("report", out, "--lang", "es", variables={"PYTHONIOENCODING": "latin-1"})
    assert report.returncode == 0, report.stderr
    answers = tequio(
        "predict",
        out,
        "site0",
        "-",
        "--json",
        given="el niño €\n\nhola\n".encode(),
        variables=ASCII,
    )
    assert answers.returncode == 0, answers.stderr
    rows = json.loads(answers.stdout)["predictions"]
    assert [row["row"] for row in rows] == [1, 2, 3]
    assert [row["label"] is None for row in rows] == [False, True, False]
