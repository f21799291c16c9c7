"""`tequio doctor`: what this machine has, and what to do about what is missing."""

from pathlib import Path

import typer

from tequio.cli import output
from tequio.cli.options import Json

FAILED = 5  # as ResourceError


def doctor(json: Json = False) -> None:
    """Check this machine: Python, torch, cores, memory, disk, proxy, clock, ports, cache, GPU.

    Exit code 5 if a check fails.
    """
    from tequio.app.start.doctor import examine

    checks = []
    for check in examine(Path.cwd()):
        checks.append(check)
        if not json:
            remedy = [f"{'':<18} {check.remedy}"] if check.remedy else []
            output.say(f"{check.status:<8} {check.name:<9} {check.found}", *remedy)
    failed = [check.name for check in checks if check.status == "fail"]

    warned = sum(check.status == "warning" for check in checks)
    words = f"Checks: {len(checks)}; warnings: {warned}; failed: {len(failed)}."
    facts = {"ok": not failed, "checks": [check.facts() for check in checks]}
    output.emit(facts, json, lambda: output.say(words))
    if failed:
        raise typer.Exit(FAILED)
