"""Tequio: fine-tune one open transformer together, each with the hardware they have.

Layers, from the top: cli, report, app, runtimes | config, coordinator | participant, ledger | measure | planning, algorithms | trust, core.
"""

__version__ = "0.1.0"
