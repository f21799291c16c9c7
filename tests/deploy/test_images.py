"""The images: each target exists, starts a command that there is, asks the port that the command
opens, and has the version.

Nothing is built here: no daemon runs where the tests do.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

import tequio
from tequio.cli.log import parse_address
from tequio.cli.main import app

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SCRIPT = DEPLOY / "build.sh"
INSTRUCTIONS = {
    *(
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "RUN",
        "USER",
        "VOLUME",
        "WORKDIR",
    )
}


def instructions() -> list[tuple[str, str]]:
    """(instruction, what follows it) of each line of the Dockerfile, continued lines joined."""
    text = (DEPLOY / "docker/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1].strip()) for line in lines]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage by its name; the base image stands at the head of each."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, rest in instructions():
        if name == "FROM":
            base, _, stage = rest.partition(" AS ")
            found[stage] = [("FROM", base)]
        else:
            found[stage].append((name, rest))
    return found


def last(stage: str, name: str) -> str:
    return next(rest for found, rest in reversed(stages()[stage]) if found == name)


def parse(words: list[str]) -> Any:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    return command.make_context("tequio", list(words))


def test_every_instruction_is_one() -> None:
    assert {name for name, _ in instructions()} == INSTRUCTIONS


def test_the_script_builds_the_targets_that_there_are() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    (targets,) = re.findall(r"^for target in (.+); do$", text, re.MULTILINE)
    assert sorted(targets.split()) == sorted({*stages()} - {"build"})
    assert subprocess.run(["sh", "-n", SCRIPT], capture_output=True, check=False).returncode == 0
    (version,) = re.findall(r"^version=\$\((sed .+)\)$", text, re.MULTILINE)
    said = subprocess.run(
        ["sh", "-c", version], cwd=DEPLOY.parent, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == tequio.__version__


@pytest.mark.parametrize("target", ["coordinator", "participant"])
def test_an_image_runs_as_nobody_and_asks_its_own_port(target: str) -> None:
    assert last(target, "FROM") == "tequio", (
        "user, entry point and volume are those of the stage before"
    )
    assert last("tequio", "USER") == "10001:10001"
    assert json.loads(last("tequio", "ENTRYPOINT")) == ["tequio"]
    assert last("tequio", "VOLUME") == "/data"
    context = parse(json.loads(last(target, "CMD")))
    address = parse_address(context.params["metrics"])
    assert address is not None
    check = last(target, "HEALTHCHECK").partition(" CMD ")[2]
    assert f"http://127.0.0.1:{address[1]}/health" in json.loads(check)[2]


def test_the_coordinator_listens_outside_its_container() -> None:
    context = parse(json.loads(last("coordinator", "CMD")))
    assert context.params["host"] == "0.0.0.0"
    assert last("coordinator", "EXPOSE") == "9443"
