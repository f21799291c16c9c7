"""A mistake in a file or a path is reported before torch is imported, whatever the command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CODE = """import json, sys
from tequio.cli.main import main
sys.argv = ["tequio", *json.loads(sys.argv[1])]
try:
    main()
    code = 0
except SystemExit as end:
    code = end.code
print(json.dumps([code, [m for m in ("torch", "transformers") if m in sys.modules]]))
"""
PARTICIPANT = 'name = "site0"\n[data]\npath = "missing.csv"\n'


def reported(*words: str | Path) -> tuple[int, list[str], str]:
    command = [sys.executable, "-c", CODE, json.dumps([str(word) for word in words])]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    code, loaded = json.loads(shown.stdout.splitlines()[-1])
    return code, loaded, shown.stderr


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("file", "old", "new", "words", "code"),
    [
        ("federation.toml", "rounds = ", "rounds = 0,", "Decimals are written with a point", 2),
        ("federation.toml", "[train]", "[train]\nlr = 1", "here it is called 'learning_rate'", 2),
        ("federation.toml", 'name = "site1"', 'name = "site9"', "Make the two names the same", 2),
        ("participants/site1.toml", "path = ", "pat = ", "unknown key 'data.pat'", 2),
        ("data/site1.jsonl", None, None, "there is no such file", 3),
        ("public/slice.jsonl", None, None, "there is no such file", 3),
    ],
)
def test_a_federation(
    make_federation: Callable[..., Path],
    command: str,
    file: str,
    old: str | None,
    new: str | None,
    words: str,
    code: int,
) -> None:
    federation = make_federation()
    path = federation.parent / file
    if old is None or new is None:
        path.unlink()
    else:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
    found, loaded, said = reported(command, federation)
    assert words in said
    assert (found, loaded) == (code, [])


def test_a_base_that_is_not_there(make_federation: Callable[..., Path], tmp_path: Path) -> None:
    federation = make_federation(base={"model": str(tmp_path / "none")})
    found, loaded, said = reported("run", federation)
    assert "[base] model: there is no folder" in said
    assert (found, loaded) == (4, [])


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["run", "none.toml"], "There is no file none.toml", 2),
        (["run", "--resume", "none"], "none is not a run", 8),
        (["predict", "none", "site0", "a text"], "none is not a run", 8),
        (["adapt", "none", "site0.toml"], "none is not a run", 8),
        (["join", "none.json", "site0.toml"], "There is no file none.json", 2),
        (["participate", "none"], "none has not joined a federation", 2),
    ],
)
def test_what_is_not_there(
    words: list[str], said: str, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    found, loaded, shown = reported(*words)
    assert said in shown
    assert (found, loaded) == (code, [])


@pytest.mark.parametrize("command", ["join", "participate", "adapt", "predict"])
def test_data_that_are_not_there(command: str, tmp_path: Path) -> None:
    own = tmp_path / "site0.toml"
    own.write_text(PARTICIPANT)
    (tmp_path / "ledger.sqlite").touch()
    (tmp_path / "invitation.json").touch()
    (tmp_path / "identity.json").write_text(json.dumps({"name": "site0", "participant": str(own)}))
    words: dict[str, list[str | Path]] = {
        "join": [tmp_path / "invitation.json", own],
        "participate": [tmp_path],
        "adapt": [tmp_path, own],
        "predict": [tmp_path, "site0", "--file", tmp_path / "missing.csv"],
    }
    found, loaded, said = reported(command, *words[command])
    assert "missing.csv" in said
    assert found == (2 if command == "predict" else 3)
    assert loaded == []
