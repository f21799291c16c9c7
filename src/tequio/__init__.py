"""Tequio: fine-tune one open transformer together, each with the hardware they have.

Layers, from the top: cli, web, recipes, runtimes, coordinator | participant, ledger | measure | planning, algorithms, core.
"""

__version__ = "0.1.0"
