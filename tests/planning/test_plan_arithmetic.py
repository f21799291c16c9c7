"""The arithmetic of a plan: the catalogue, FLOPs, lines through timed steps, the work of a run, the
Pareto set.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builders import refused
from tequio.core.errors import ConfigError
from tequio.planning.devices import catalogue, find_device, middle
from tequio.planning.flops import adapters, forward, training
from tequio.planning.memory import ModelShape
from tequio.planning.pareto import Option, compared, pareto
from tequio.planning.throughput import LAUNCH_SECONDS, Line, OnDevice, Probed, line
from tequio.planning.workload import Fit, Work, times

SHAPE = ModelShape(
    1_000_000, 2.0, 2, 64, 100, ((64, 64), (64, 64)), True, products=900_000, first=10_000
)
WORK = Work(
    "a",
    3,
    10,
    4,
    256.0,
    32.0,
    1000.0,
    500.0,
    4,
    (Fit(20, 4, 2), Fit(5, 2, 1)),
    3,
    2,
    1e6,
    2e6,
    8.0,
    local_fits=1,
)


def test_the_catalogue_has_dense_peaks_with_dates_and_sources() -> None:
    known = catalogue()
    assert known["H100 SXM"].bf16 == 989  # dense; the sparse figure is 1979
    assert (known["H100 SXM"].embodied, known["B200"].embodied) == (164, 284)
    assert all(
        d.source and d.as_of and 0 < d.bf16 < 3000 and d.bandwidth > 0 and d.watts > 0
        for d in known.values()
    )
    assert middle(known["H100 SXM"].rent) == pytest.approx((2.69 * 12.29) ** 0.5)
    assert "buy" in known["L4"].unsure


def test_an_unknown_device_is_answered_with_the_nearest_and_own_rows_count(tmp_path: Path) -> None:
    with refused(ConfigError, "device-unknown", device="h100") as caught:
        find_device("h100", catalogue())  # and not H200, which looks nearer
    assert caught.value.as_reason().facts["nearest"].startswith("H100")
    with refused(ConfigError, "device-unknown", nearest="H100 SXM"):
        find_device("h100 smx", catalogue())
    assert find_device(" h100 sxm ", catalogue()).name == "H100 SXM"
    own = tmp_path / "own.toml"
    own.write_text(
        'as_of = "2027-01"\n[devices."Ours"]\nbf16 = 10.0\nbandwidth = 100.0\nwatts = 50.0\nrent = '
        "[0.0, 0.0]\n"
    )
    found = catalogue(own)["Ours"]
    assert (found.bf16, found.rent, found.as_of) == (10.0, (0.0, 0.0), "2027-01")
    assert len(catalogue(own)) == len(catalogue()) + 1
    where = f'{own}, [devices."Ours"]'
    for text, code, facts in (
        ("bf17 = 1.0", "device-key-unknown", {"key": "bf17", "nearest": "bf16"}),
        (
            "bf16 = -1.0\nbandwidth = 1.0\nwatts = 1.0",
            "not-above-zero",
            {"key": f"{where}: bf16", "value": "-1.0"},
        ),
        (
            "bf16 = 1.0\nbandwidth = 1.0\nwatts = 1.0\nrent = [2.0, 1.0]",
            "out-of-range",
            {"key": f"{where}: rent"},
        ),
        ("bf16 = 1.0", "device-key-missing", {"place": where, "key": "bandwidth"}),
    ):
        own.write_text(f'[devices."Ours"]\n{text}\n')
        with refused(ConfigError, code, **facts):
            catalogue(own)


def test_flops_by_hand() -> None:
    # N = 900,000; rank 4: 4·(64 + 64)·2 = 1,024 adapters; attention 4·2·64·32 = 16,384 forward; the
    # first A takes 4·64
    assert adapters(SHAPE, 4) == 1024
    assert forward(SHAPE, 32, 4) == 2 * (900_000 + 1024) + 16_384
    assert training(SHAPE, 32, 4) == 4 * 900_000 + 6 * 1024 + 3 * 16_384 - 2 * (10_000 + 256)
    assert training(SHAPE, 32, 4, full=True) == 6 * 900_000 + 3 * 16_384


def test_a_line_through_points_and_where_there_is_none() -> None:
    found = line([10, 20, 30, 40], [0.3, 0.5, 0.7, 0.9])
    assert found.fixed == pytest.approx(0.1)
    assert found.slope == pytest.approx(0.02)
    assert line([10, 20, 30], [0.1, 0.3, 0.5]).fixed == 0.0  # a negative start: through the origin
    assert line([10, 20, 30], [0.3, 0.2, 0.1]).slope == 0.0  # falling: flat
    assert line([10, 10.1], [1.0, 1.0]).slope == pytest.approx(
        0.0995, rel=0.01
    )  # lengths too alike: the origin
    with pytest.raises(ValueError, match="no step"):
        line([], [])


def test_the_work_of_a_run_by_hand() -> None:
    # a step at rank 4 is 0.1 + 0.001·256 = 0.356 s, an evaluation 1 ms a token of a batch of 500
    rates = Probed(Line(0.1, 0.001), Line(0.0, 0.001), 0.5, 5.0, 4, 500.0)
    spent = times(WORK, rates)
    assert spent.train == pytest.approx(3 * (10 * 0.356 + 0.5))
    assert spent.evaluate == pytest.approx(4 * 1.0)
    two = 0.356 * (1 + 0.005 * 2) / (1 + 0.005 * 4)
    fits = 20 * 0.356 + 2 * 1.0 + 0.5 + 5 * two + 1.0 + 0.5
    assert spent.personal == pytest.approx(fits + 3 * 1.0 + 2 * 0.5)
    assert spent.network == pytest.approx(3 * 1e6 * 8 / 8e6)
    assert spent.total == pytest.approx(spent.work + 3.0)
    alone = times(WORK.alone(), rates)
    assert (alone.train, alone.evaluate, alone.network) == (0.0, 0.0, 0.0)
    assert alone.personal == pytest.approx(20 * 0.356 + 2 * 1.0 + 0.5 + 0.5)
    assert times(WORK.in_rounds(), rates).personal == 0.0
    assert WORK.trained_tokens == 256 * (30 + 25)


def test_a_device_is_bound_by_its_peak_its_bandwidth_or_its_kernels() -> None:
    big = ModelShape(10**9, 2.0, 10, 1000, 100, ((64, 64),), True, products=10**9, first=0)
    h100 = catalogue()["H100 SXM"]
    work = Work("a", 1, 1, 4, 1e5, 100.0, 0.0, 0.0, 0)
    computed = training(big, 100, 4) * 1e5 / (989e12 * 0.28)
    assert OnDevice(h100, big).step(work, 4) == pytest.approx(computed)
    few = Work("a", 1, 1, 4, 8.0, 8.0, 0.0, 0.0, 0)
    assert OnDevice(h100, big).step(few, 4) == pytest.approx(
        max(10 * LAUNCH_SECONDS, 3 * 2e9 / 3350e9)
    )
    assert OnDevice(h100, SHAPE).step(few, 4) == pytest.approx(2 * LAUNCH_SECONDS)
    assert OnDevice(h100, big, factor=2.0).step(work, 4) == pytest.approx(2 * computed)


def option(key: str, quality: float, seconds: float, joules: float, **more: object) -> Option:
    return Option(key, "", quality, seconds, joules, more.get("grams"), more.get("money"))  # type: ignore[arg-type]


def test_the_pareto_set() -> None:
    ways = [
        option("a", 10, 5, 5),
        option("b", 10, 6, 5),
        option("c", 1, 1, 1),
        option("d", 10, 5, 5),
    ]
    assert pareto(ways, ("quality", "seconds", "joules")) == [
        True,
        False,
        True,
        True,
    ]  # equals do not beat each other


def test_axes_are_those_known_for_all() -> None:
    both = [
        option("a", 1, 1, 1, grams=1.0, money={"EUR": 1.0}),
        option("b", 1, 1, 1, grams=2.0, money={"EUR": 2.0}),
    ]
    assert compared(both) == ("quality", "seconds", "grams", "money")
    assert compared([*both, option("c", 1, 1, 1, grams=1.0, money={"USD": 1.0})]) == (
        "quality",
        "seconds",
        "grams",
    )
    assert compared([*both, option("c", 1, 1, 1)]) == ("quality", "seconds", "joules")
    part = replace(both[0], priced=False)  # the money of some only
    assert compared([part, both[1]]) == ("quality", "seconds", "grams")
    assert pareto(both, compared(both)) == [True, False]
