"""The commands as a user types them, in real processes, on a tiny real model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

COMMANDS = ["init", "run", "demo", "report", "verify", "predict", "export", "adapt", "version"]


def tequio(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tequio.cli.main", *map(str, arguments)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "200"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd=cwd, env=environment
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shop")


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    shown = tequio("--help")
    assert shown.returncode == 0
    for command in COMMANDS:
        assert command in shown.stdout
    code = (
        "import sys, tequio.cli.main; print([m for m in ('torch','transformers','numpy') if m "
        "in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert loaded.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_json(command: str) -> None:
    assert "--json" in tequio(command, "--help").stdout


def test_version_is_the_packages() -> None:
    import tequio as package

    assert json.loads(tequio("version", "--json").stdout) == {"version": package.__version__}


@pytest.mark.parametrize(
    "words", [("run",), ("predict", "run", "shared"), ("run", "--jsn"), ("frob",)]
)
def test_a_mistake_in_the_command_line_is_json_where_that_is_asked_for(
    words: tuple[str, ...],
) -> None:
    found = tequio(*words, "--json")
    error = json.loads(found.stdout)
    assert found.returncode == 2
    assert error["error"] == "UsageError"
    assert error["what"]
    assert "--help" in error["fix"]


def test_how_a_run_would_be_computed_is_said_without_running(
    make_federation: Any, tmp_path: Path
) -> None:
    path = make_federation(participants=2)
    said = tequio("run", path, "--explain-speed", "--threads", "1", "--json")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert (found["workers"], found["threads"]) == (1, 1)
    assert found["bases"][0]["dtype"] == "float32"
    assert "Tequio's own for bert" in found["bases"][0]["path"]
    assert not (path.parent / "runs").exists()
    assert "Tequio's own for bert" in tequio("run", path, "--explain-speed").stdout.replace(
        "\n", " "
    )
    assert tequio("run", "--resume", tmp_path, "--explain-speed").returncode == 2


def test_lock_step_is_said_in_words(make_federation: Any) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "[train] lockstep = 3: 2 participants at a time make their steps together."),
        (
            {"local": {"terms": {"fedprox": 0.1}}},
            "[train] lockstep = 3 has no effect: [local] adds",
        ),
    ]
    for keys, said in cases:
        path = make_federation(train={"lockstep": 3}, folder="local" if keys else "plain", **keys)
        assert said in " ".join(tequio("run", path, "--explain-speed").stdout.split())


@pytest.mark.slow
def test_a_whole_run_as_a_user(make_federation: Any, tmp_path: Path) -> None:
    path = make_federation(participants=2)
    out = tmp_path / "run"
    ran = tequio("run", path, "--out", out, "--counterfactuals", "--threads", "1", "--json")
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["summary"]["finished"] is True
    assert [p["name"] for p in result["summary"]["participants"]] == ["site0", "site1"]
    assert [p["rank"] for p in result["summary"]["participants"]] == [4, 2]
    page = Path(result["report"]).read_text(encoding="utf-8")
    assert "site0" in page

    checked = json.loads(tequio("verify", out, "--json").stdout)
    assert checked["ok"] is True
    assert checked["models"] == 7  # head, shared, pooled, and personal and local of two

    again = tequio("run", path, "--out", out)
    assert again.returncode == 8
    assert "holds a run already" in again.stderr

    spanish = tequio("report", out, "--lang", "es", "--json")
    assert (
        Path(json.loads(spanish.stdout)["report"]).read_text(encoding="utf-8").count('lang="es"')
        >= 1
    )

    said = json.loads(
        tequio("predict", out, "site0", "the nurse was very kind today", "--json").stdout
    )
    row = said["predictions"][0]
    assert row["label"] in ("good", "bad")
    assert sum(row["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
    texts = tmp_path / "texts.txt"
    texts.write_text("the pump was broken\n\nmy seat was clean\n", encoding="utf-8")
    assert (
        len(
            json.loads(tequio("predict", out, "shared", "--file", texts, "--json").stdout)[
                "predictions"
            ]
        )
        == 3
    )
    assert "the text is empty" in tequio("predict", out, "site0", " ").stderr
    nobody = tequio("predict", out, "site9", "text")
    assert nobody.returncode == 8
    assert "It has models of: site0, site1, shared" in nobody.stderr

    exported = json.loads(tequio("export", out, "site1", "--merged", "--json").stdout)["exported"]
    assert (Path(exported[0]["adapter"]) / "adapter_config.json").is_file()
    assert (Path(exported[0]["merged"]) / "model.safetensors").is_file()

    # a changed model file is noticed, by name
    victim = out / "participants" / "site0" / "personal.safetensors"
    raw = bytearray(victim.read_bytes())
    raw[-1] ^= 1
    victim.write_bytes(raw)
    broken = tequio("verify", out)
    assert broken.returncode == 10
    assert str(victim) in broken.stdout
    assert "was changed or damaged" in tequio("predict", out, "site0", "text").stderr


@pytest.mark.slow
def test_ctrl_c_leaves_a_resumable_run_and_says_so(make_federation: Any, tmp_path: Path) -> None:
    path = make_federation(participants=2, train={"rounds": 60, "max_steps": 20, "patience": 60})
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "tequio.cli.main",
        "run",
        str(path),
        "--out",
        str(out),
        "--threads",
        "1",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a background job is born deaf to Ctrl-C
    )
    deadline = time.monotonic() + 400
    while not (out / "ledger.sqlite").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert f"tequio run --resume {out}" in stderr.replace("\n", "")
    assert json.loads(tequio("verify", out, "--json").stdout)["ok"] is True
    shown = tequio("report", out, "--json")
    assert json.loads(shown.stdout)["summary"]["finished"] is False


@pytest.mark.slow
def test_init_writes_what_run_reads_and_the_first_error_says_what_to_do(tmp_path: Path) -> None:
    wrote = tequio("init", tmp_path / "new")
    assert wrote.returncode == 0
    path = tmp_path / "new" / "federation.toml"
    text = path.read_text(encoding="utf-8")
    assert text.count("#") >= 6
    assert len(list((tmp_path / "new" / "participants").glob("*.toml"))) == 2
    ran = tequio("run", path)
    assert ran.returncode == 3
    assert "north" in ran.stderr
    assert "there is no such file" in ran.stderr
    twice = tequio("init", tmp_path / "new")
    assert twice.returncode == 2
    assert "exists already" in twice.stderr


def test_errors_are_json_too(tmp_path: Path) -> None:
    failed = tequio("run", tmp_path / "missing.toml", "--json")
    assert failed.returncode == 2
    assert json.loads(failed.stdout)["error"] == "ConfigError"
