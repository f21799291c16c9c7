"""`tequio doctor`: what this machine has, and what to do about what is missing."""

from __future__ import annotations

from pathlib import Path

import typer

from tequio.cli import output
from tequio.cli.options import Json

FAILED = 5  # as ResourceError


def doctor(json: Json = False) -> None:
    """Check this machine: Python, torch, cores, memory, disk, proxy, clock, ports, cache, GPU. Exit code 5 if a check fails."""
    from tequio.app.start.doctor import examine

    checks = []
    for check in examine(Path.cwd()):
        checks.append(check)
        if not json:
            output.out.print(f"{check.status:<8} {check.name:<9} {check.found}", markup=False)
            if check.remedy:
                output.out.print(f"{'':<18} {check.remedy}", markup=False)
    failed = [check.name for check in checks if check.status == "fail"]

    def words() -> None:
        warned = sum(check.status == "warning" for check in checks)
        output.out.print(f"Checks: {len(checks)}; warnings: {warned}; failed: {len(failed)}.")

    output.emit({"ok": not failed, "checks": [check.facts() for check in checks]}, json, words)
    if failed:
        raise typer.Exit(FAILED)
