"""A release can be installed: the wheel that is built here holds every module and every file of
data, and runs without the sources.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import tequio

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "tequio"
SKIPPED = {"__pycache__"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built without a network."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel: pip install 'tequio[dev]'")
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl")
    return made


def sources() -> set[str]:
    """Every file of the package, as a wheel names it."""
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and not SKIPPED & {*path.parts}]
    return {str(path.relative_to(PACKAGE.parent)) for path in files}


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["project"]["dynamic"] == ["version"]
    assert ROOT / project["tool"]["hatch"]["version"]["path"] == PACKAGE / "__init__.py"


def test_the_wheel_has_every_module_and_all_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {
            name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")
        }
        (metadata,) = (
            archive.read(n).decode()
            for n in archive.namelist()
            if n.endswith(".dist-info/METADATA")
        )
    assert names == sources()
    ends = {Path(name).suffix for name in names}
    assert {".py", ".toml", ".csv", ".css", ".typed", ".LICENSE"} <= ends
    assert f"\nVersion: {tequio.__version__}\n" in metadata
    assert wheel.name == f"tequio-{tequio.__version__}-py3-none-any.whl"


def test_the_wheel_is_installed_and_runs_without_the_sources(wheel: Path, tmp_path: Path) -> None:
    """In an empty folder, with this environment's dependencies and nothing of the repository on the
    path.
    """
    place = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(place),
        str(wheel),
    ]
    done = subprocess.run(pip, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    clean = {**os.environ, "PYTHONPATH": str(place)}

    def run(*words: str) -> str:
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=True
        ).stdout

    assert run("-c", "import tequio; print(tequio.__file__)").strip() == str(
        place / "tequio" / "__init__.py"
    )
    assert run("-m", "tequio", "--version").strip() == tequio.__version__
    made = run("-m", "tequio", "init", "new", "--algorithm", "fedprox")  # reads presets.toml
    assert "federation.toml" in made
    assert (tmp_path / "new" / "federation.toml").is_file()
    countries = "from tequio.measure import countries, currencies; print(countries.__file__)"
    assert run("-c", countries).strip().startswith(str(place))
    style = (
        "from importlib.resources import files; "
        "print(len(files('tequio.report.html').joinpath('style.css').read_text()))"
    )
    assert int(run("-c", style)) > 1000
