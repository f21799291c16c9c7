"""After a plain `pip install tequio`, commands across a network say what to install; an unknown
package is still a traceback.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

START = (
    "import sys; sys.modules[{package!r}] = None; sys.argv = {words!r}; from tequio.cli.main "
    "import main; main()"
)


def without(package: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command in a process in which the import of one package fails, as where it is not
    installed.
    """
    start = START.format(package=package, words=["tequio", *words])
    return subprocess.run(
        [sys.executable, "-c", start], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("package", "words"),
    [
        (
            "cryptography",
            ["coordinator", "init", "hub", "federation.toml", "--address", "127.0.0.1:9443"],
        ),
        ("cryptography", ["backup", "hub", "copy"]),
        ("flwr", ["coordinator", "start", "hub"]),
    ],
)
def test_a_missing_package_of_the_network_is_named(
    package: str, words: list[str], tmp_path: Path
) -> None:
    done = without(package, tmp_path, *words, "--json")
    assert done.returncode == 12, done.stderr
    said = json.loads(done.stdout)
    assert said["reason"]["code"] == "network-package"
    assert said["reason"]["facts"] == {"package": package}
    assert "tequio[flower]" in said["fix"]
    assert "Traceback" not in done.stderr


def test_another_missing_module_is_an_error_of_ours(tmp_path: Path) -> None:
    done = without("tequio.app.start.doctor", tmp_path, "doctor")
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr
