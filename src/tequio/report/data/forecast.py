"""Rows and names of a forecast, as its page and the terminal show them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tequio.app.forecast.calibration import HERE
from tequio.core.texts.words import Words


def plan_rows(plan: Mapping[str, Any], w: Words) -> list[Mapping[str, Any]]:
    """Participants, and the centre where it trains too."""
    return [
        *plan["participants"],
        *([{**plan["centre"], "name": w("centre")}] if plan["centre"] else []),
    ]


def machines(names: Iterable[str], w: Words) -> str:
    """Devices by their names, and this machine."""
    return ", ".join(w("plan.machine.here") if name == HERE else name for name in names)


def corrected(factors: Mapping[str, float], w: Words, shown: Callable[[float], str]) -> str:
    """Machines with their factors; empty where there are none."""
    return ", ".join(
        f"{machines([machine], w)} × {shown(factor)}" for machine, factor in factors.items()
    )


def unchecked(fields: Iterable[str], w: Words) -> str:
    """Figures of a device that nobody has checked."""
    return ", ".join(w.name("plan.unsure", field) for field in fields)


def not_learnt(after: Mapping[str, Any], w: Words) -> str | None:
    """Of which machines the run says nothing, and why; None where there are none."""
    key = "plan.after.not.simulation" if after.get("simulation", True) else "plan.after.not.network"
    untaught = after.get("not_learnt", [])
    return w(key, machines=machines(untaught, w)) if untaught else None
