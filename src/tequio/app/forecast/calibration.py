"""Forecast beside outcome: what a plan said, what the run of it measured, and the factor by which
the next plan is corrected.

Factors lie in Tequio's cache folder, one a machine and base. A new one is the old times the median
over participants of measured over predicted.
"""

import json
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tequio.config.cache import cache_folder
from tequio.core.errors import ConfigError, RunError
from tequio.core.grouping import grouped
from tequio.core.texts.words import refusal
from tequio.ledger.folder import RunFolder, resume_command
from tequio.ledger.record import Ledger

FILE = "calibration.json"
HERE = "this machine"
PHASES = ("train", "evaluate", "personal")


def known_factors(plan_of: str) -> dict[str, float]:
    """Factors by machine for a base (its digest and the threads), from earlier runs; empty where
    there were none.
    """
    path = cache_folder() / FILE
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {str(k): float(v["factor"]) for k, v in rows.get(plan_of, {}).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise refusal(ConfigError, "factors-damaged", path=path) from None


def calibration_key(digest: str, threads: int, card: str | None = None) -> str:
    """What a factor belongs to, beside its machine. card: the graphics card's name, where one
    computes.
    """
    return f"{digest[:16]}, {threads} threads" + (f", {card}" if card else "")


def compare(plan: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """Predicted beside measured, of each participant, and in all of those that are `alike`:
    computed where it was forecast.

    Raises RunError where the run is another's, or not finished.
    """
    with Ledger.open(RunFolder.open(run).ledger_path, read_only=True) as ledger:
        entries = [(entry.kind, entry.body) for entry in ledger.entries()]
    header = next(body for kind, body in entries if kind == "run")
    end = next((body for kind, body in entries if kind == "end"), None)
    if "facts" in header:
        raise refusal(RunError, "record-of-participant", run=str(run))
    if end is None:
        raise refusal(RunError, "run-unfinished", run=run, command=resume_command(run))
    if header["base"]["digest"] != plan["base"]["digest"] or header["name"] != plan["federation"]:
        facts = {"run": str(run), "name": header["name"], "planned": plan["federation"]}
        raise refusal(RunError, "run-of-other-plan", **facts)
    measured, cut = _measured(entries), _cut(entries)
    planned, alone = plan.get("rounds", [None, 0])  # of which the centre trains so many alone
    rows = []
    for row in plan["participants"]:
        found = measured.get(row["name"])
        if found is None or row["rounds"] == 0:
            continue
        made, of = max(0, end["rounds"] - alone), (planned or row["rounds"]) - alone
        share = {"train": made / of, "evaluate": (made + 1) / (of + 1)}
        said = {phase: row["seconds"][phase] * share.get(phase, 1.0) for phase in PHASES}
        work, was = sum(said.values()), sum(found[phase] for phase in PHASES)
        joules = row["joules"] * work / row["seconds"]["work"]
        rows.append(
            {
                "name": row["name"],
                "machine": row["machine"],
                "predicted": said | {"work": work, "joules": joules},
                "measured": {phase: found[phase] for phase in PHASES}
                | {"work": was, "joules": found["joules"]},
                "ratio": was / work,
                "joules_ratio": found["joules"] / joules if joules else None,
                "cut": row["name"] in cut,
            }
        )
    if not rows:
        raise refusal(RunError, "run-of-other-participants", run=run)
    simulation = header.get("simulation") is not False
    memory = _beside(plan["process_memory"], end.get("peak_bytes"))
    alike = [row for row in rows if _alike(row, simulation)]
    return {
        "simulation": simulation,
        "participants": [{**row, "alike": row in alike} for row in rows],
        "ratio": _over(alike, "work"),
        "joules_ratio": _over(alike, "joules"),
        "memory": memory,
        "memory_ratio": memory["ratio"],
        "card": _beside(plan.get("card_memory"), end.get("card_peak_bytes")),
    }


def _beside(predicted: int | None, measured: int | None) -> dict[str, float | None]:
    """Bytes, and measured over predicted; None what is not known."""
    return {
        "predicted": predicted,
        "measured": measured,
        "ratio": measured / predicted if predicted and measured else None,
    }


def _alike(row: Mapping[str, Any], simulation: bool) -> bool:
    """Whether it was computed on the machine that was forecast (a simulation on this one, whatever
    device a participant names; across a
    network each on its own), and no budget cut it."""
    return bool((row["machine"] == HERE) == simulation and not row["cut"])


def _over(rows: list[dict[str, Any]], what: str) -> float | None:
    """All measured over all predicted; None where there is nothing to compare."""
    said = sum(row["predicted"][what] for row in rows)
    return sum(row["measured"][what] for row in rows) / said if said else None


def teachers(compared: Mapping[str, Any]) -> dict[str, list[float]]:
    """Measured over predicted, by machine, of those of whom the run says something."""
    rows = (
        row
        for row in compared["participants"]
        if _alike(row, compared["simulation"]) and row["ratio"] > 0
    )
    return grouped((row["machine"], row["ratio"]) for row in rows)


def not_learnt(compared: Mapping[str, Any]) -> list[str]:
    """The machines of the plan of which the run says nothing, or nothing that a budget did not
    cut.
    """
    return sorted({row["machine"] for row in compared["participants"]} - set(teachers(compared)))


def recalibrate(plan: Mapping[str, Any], compared: Mapping[str, Any]) -> dict[str, float]:
    """Store and return the new factor of each machine of which the run says something
    (`teachers`).
    """
    key = calibration_key(plan["base"]["digest"], plan["threads"], plan.get("card"))
    path = cache_folder() / FILE
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    mine = rows.setdefault(key, {})
    new: dict[str, float] = {}
    for machine, ratios in teachers(compared).items():
        new[machine] = plan["factors"].get(machine, 1.0) * statistics.median(ratios)
        mine[machine] = {
            "factor": new[machine],
            "runs": int(mine.get(machine, {}).get("runs", 0)) + 1,
        }
    RunFolder(cache_folder()).write_atomic(
        FILE, json.dumps(rows, indent=1, sort_keys=True).encode()
    )
    return new


def _cut(entries: list[tuple[str, Mapping[str, Any]]]) -> set[str]:
    """Who made less than was asked for, for a budget."""
    rounds = {
        row["name"]
        for kind, body in entries
        if kind == "round"
        for row in body["train"]
        if row.get("note")
    }
    withheld = {
        a["name"]
        for _, body in entries
        for a in body.get("admissions", ())
        if a["status"] == "withheld"
    }
    return (
        rounds
        | withheld
        | {body["name"] for kind, body in entries if kind == "personal" and body.get("cut")}
    )


def _measured(entries: list[tuple[str, Mapping[str, Any]]]) -> dict[str, dict[str, float]]:
    """Seconds by phase, and joules, of each participant."""
    out: dict[str, dict[str, float]] = {}

    def add(name: str, phase: str, seconds: float | None, joules: float | None) -> None:
        row = out.setdefault(name, dict.fromkeys((*PHASES, "joules"), 0.0))
        row[phase] += seconds or 0.0
        row["joules"] += joules or 0.0

    for kind, body in entries:
        for row in body.get("train", []) if kind == "round" else []:
            add(row["name"], "train", row["seconds"], row["joules"])
        for row in body.get("evaluation", []):
            add(row["name"], "evaluate", row["seconds"], row["joules"])
        if kind == "personal":
            add(body["name"], "personal", body["seconds"], body["energy"]["joules"])
    return out
