"""What does the meter cost, is k times the work k times the energy, and does codecarbon say the
same of the same run?

    python -m benchmarks.meter [--seconds 20] [--gpu]

Work is matrix products on one thread. Cost: CPU seconds of this process beside the work, with the
counters read as often as in a run, over those of the work. codecarbon (extra `codecarbon`) runs
beside ours, offline and in process mode; without it that part is left out. --gpu: a graphics card's
counter instead (`benchmarks.card`).
"""

from __future__ import annotations

from tequio.cli.environment import prepare_process

prepare_process()

import argparse
import tempfile
import time
from pathlib import Path

import torch

from benchmarks import card
from tequio.measure.energy import Meter, open_meter
from tequio.measure.sensors import packages


def work(cpu_seconds: float) -> float:
    """Matrix products for so many CPU seconds of this thread; returns those used."""
    a, start = torch.randn(256, 256), time.thread_time()
    while time.thread_time() - start < cpu_seconds:
        for _ in range(20):
            a = (a @ a).clamp(-1, 1)
    return time.thread_time() - start


def cost_of_sampling(meter: Meter, seconds: float, interval: float) -> float:
    """CPU seconds that the process used beside the work, over those of the work; a measurement
    every `interval` CPU seconds.
    """
    own, worked, whole = time.process_time(), 0.0, 0
    while worked < seconds:
        with meter.measure() as reading:
            worked += work(interval)
        whole += int(reading.energy.joules > 0)
    return (time.process_time() - own - worked) / worked


def made_up_rapl(folder: Path) -> tuple[object, ...]:
    """Two package counters as files, for the cost of reading them where this machine has none."""
    for i in range(2):
        place = folder / f"intel-rapl:{i}"
        place.mkdir()
        for name, text in (
            ("name", f"package-{i}"),
            ("max_energy_range_uj", "65532610987"),
            ("energy_uj", "5"),
        ):
            (place / name).write_text(text)
    return packages(folder)


def cross_check(meter: Meter, seconds: float) -> None:
    """Two meters on one interval."""
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError:
        print('codecarbon is not installed (pip install "tequio[codecarbon]"): no cross-check')
        return
    tracker = OfflineEmissionsTracker(
        country_iso_code="DEU",
        tracking_mode="process",
        output_methods=[],
        log_level="error",
        measure_power_secs=2,
    )
    tracker.start_task("work")
    with meter.measure() as reading:
        work(seconds)
    data = tracker.stop_task()
    theirs, ours = data.cpu_energy * 3.6e6, reading.energy
    low, high = ours.joules * (1 - ours.uncertainty), ours.joules * (1 + ours.uncertainty)
    band = 0.4  # of an estimate by rated power, arXiv 2509.22092
    meet = theirs * (1 - band) <= high and theirs * (1 + band) >= low
    print(
        f"ours {ours.joules:.1f} J ±{100 * ours.uncertainty:.0f} % ({ours.method}), codecarbon's "
        f"CPU {theirs:.1f} J"
    )
    print(
        f"codecarbon / ours = {theirs / ours.joules:.2f}; the bands "
        f"{'meet' if meet else 'do NOT meet'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--gpu", action="store_true")
    given = parser.parse_args()
    seconds = given.seconds
    if given.gpu:
        card.measure(seconds / 10)
        return
    torch.set_num_threads(1)
    meter = open_meter()
    work(1.0)
    with tempfile.TemporaryDirectory() as folder:
        made_up_rapl(Path(folder))
        for name, one in (
            ("this machine", meter),
            ("two RAPL counters, made up", open_meter(powercap=Path(folder))),
        ):
            for interval in (0.5, 2.0):
                share = cost_of_sampling(one, seconds, interval)
                print(
                    f"cost of measuring, {name} ({one.method}), every {interval} s: "
                    f"{100 * share:.3f} % (target < 0.5 %)"
                )
    with meter.measure() as once:
        work(seconds / 8)
    for k in (2, 4):
        with meter.measure() as often:
            work(k * seconds / 8)
        ratio = often.energy.joules / once.energy.joules / k
        print(f"{k} times the work: {ratio:.3f} of {k} times the energy (target 0.9 to 1.1)")
    cross_check(meter, seconds / 2)


if __name__ == "__main__":
    main()
