"""What `import tequio` costs and offers: no torch, at most fifteen names, each typed and found when
it is first used.
"""

from __future__ import annotations

import inspect
import subprocess
import sys

import tequio

HEAVY = ("torch", "transformers", "numpy", "pydantic", "pandas", "typer", "sqlite3")


def imported(code: str) -> list[str]:
    """The heavy packages that a new process has loaded after this code."""
    show = f"{code}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_import_loads_nothing_heavy() -> None:
    assert imported("import tequio") == []


def test_settings_need_no_torch() -> None:
    names = (
        "load_federation, open_run, verify, export, run, sweep, start, forecast, adapt, Run, Rows"
    )
    assert "torch" not in imported(f"from tequio import {names}")


def test_a_heavy_import_is_seen() -> None:
    """So that the tests above can fail."""
    assert "numpy" in imported("import numpy")


def test_at_most_fifteen_names_that_say_what_they_do() -> None:
    assert len(tequio.__all__) == len(set(tequio.__all__)) <= 15
    for name in tequio.__all__:
        found = getattr(tequio, name)
        assert inspect.getdoc(found), name
        assert found.__module__.startswith("tequio."), name
    assert set(tequio.__all__) <= set(dir(tequio))


def test_another_name_is_an_attribute_error() -> None:
    assert not hasattr(tequio, "fine_tune")
