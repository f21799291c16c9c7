"""Tequio: fine-tune one open transformer together, each with the hardware they have.

Its names are the Python API.

Layers, from the top: cli, api, report, app, runtimes | config, coordinator | participant,
ledger | measure | planning, algorithms | trust, core.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tequio.api.federation import Federation as Federation
    from tequio.api.federation import load_federation as load_federation
    from tequio.api.forecasting import forecast as forecast
    from tequio.api.newcomers import adapt as adapt
    from tequio.api.rows import Rows as Rows
    from tequio.api.running import run as run
    from tequio.api.runs import Participant as Participant
    from tequio.api.runs import Round as Round
    from tequio.api.runs import Run as Run
    from tequio.api.runs import export as export
    from tequio.api.runs import open_run as open_run
    from tequio.api.runs import verify as verify
    from tequio.api.starting import start as start
    from tequio.api.sweeping import sweep as sweep
    from tequio.core.errors import TequioError as TequioError

__version__ = "0.1.0"

__all__ = [
    "Federation",
    "Participant",
    "Round",
    "Rows",
    "Run",
    "TequioError",
    "adapt",
    "export",
    "forecast",
    "load_federation",
    "open_run",
    "run",
    "start",
    "sweep",
    "verify",
]

_HOMES = {
    "Federation": "tequio.api.federation",
    "Participant": "tequio.api.runs",
    "Round": "tequio.api.runs",
    "Rows": "tequio.api.rows",
    "Run": "tequio.api.runs",
    "TequioError": "tequio.core.errors",
    "adapt": "tequio.api.newcomers",
    "export": "tequio.api.runs",
    "forecast": "tequio.api.forecasting",
    "load_federation": "tequio.api.federation",
    "open_run": "tequio.api.runs",
    "run": "tequio.api.running",
    "start": "tequio.api.starting",
    "sweep": "tequio.api.sweeping",
    "verify": "tequio.api.runs",
}  # name -> the module that defines it, which is imported when the name is first used


def __getattr__(name: str) -> Any:
    """Import a name of the API when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tequio' has no attribute {name!r}")
    found = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the names of the API, also those that are not imported yet."""
    return sorted({*globals(), *__all__})
