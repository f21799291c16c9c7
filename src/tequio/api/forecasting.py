"""What a federation will take before it runs; `tequio plan` comes here too."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tequio.api.federation import Federation, as_federation
from tequio.api.rows import Rows


def forecast(
    federation: Federation | str | Path | Mapping[str, object],
    *,
    machine: str | None = None,
    devices: str | Path | None = None,
    tariff: float | None = None,
    own: bool = False,
    pilot: bool = False,
) -> Rows:
    """Forecast time, memory, energy, carbon and money. Nothing is written.

    Args:
        federation: as `tequio.run` takes it.
        machine: a device of the catalogue for everybody. None: as each says, else this machine,
            measured.
        devices: TOML with devices of your own.
        tariff: US dollars per kWh, for machines that are bought.
        own: with participants' private money, carbon and budgets.
        pilot: also try one round, and foretell for each participant whether joining will pay.

    Returns:
        One row per participant, and one for the centre where it trains. `facts` is the whole plan,
        as `tequio plan --json` prints it.
    """
    found = as_federation(federation)
    if not found.inputs:
        return Rows(*_rows(_plan(found.settings, machine, devices, tariff, own, pilot)))
    from tequio.config import load_federation

    with tempfile.TemporaryDirectory(prefix="tequio-forecast-") as folder:
        settings = load_federation(found.write(Path(folder)))
        return Rows(*_rows(_plan(settings, machine, devices, tariff, own, pilot)))


def _plan(
    config: Any,
    machine: str | None,
    devices: str | Path | None,
    tariff: float | None,
    own: bool,
    pilot: bool,
) -> dict[str, Any]:
    import torch

    from tequio.app.assembly.build import build, read_participants
    from tequio.app.assembly.checks import check_pieces
    from tequio.app.forecast.calibration import calibration_key, known_factors
    from tequio.app.forecast.forecast import make_plan
    from tequio.planning.devices import catalogue, find_device
    from tequio.planning.gpu_memory import card_name

    known = catalogue(None if devices is None else Path(devices))
    if machine is not None:
        find_device(machine, known)
    algorithm, roster = check_pieces(config), read_participants(config)
    setup = build(config, participants=roster, algorithm=algorithm)
    factors = known_factors(
        calibration_key(setup.adapted.base.digest, torch.get_num_threads(), card_name())
    )
    plan = make_plan(config, setup, roster, known, machine, factors, tariff, own)
    if pilot:
        from tequio.app.simulation.pilot import run_pilot

        plan |= {"pilot": run_pilot(config)}
    return plan


def _rows(plan: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    people = [
        *plan["participants"],
        *([{**plan["centre"], "name": "centre"}] if plan["centre"] else []),
    ]
    keys = ("machine", "rank", "steps", "joules", "grams", "money", "bytes_up", "bytes_down")
    rows = [
        {"participant": row["name"], "seconds": row["seconds"]["total"]}
        | {key: row[key] for key in keys}
        for row in people
    ]
    return rows, plan
