"""Run the commands as `python -m tequio`."""

from tequio.cli.main import main

main()
