"""Who gets which rank and how many steps: cases worked by hand, and laws."""

import math
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tequio.core.errors import ConfigError, TrainingError
from tequio.planning.allotment import Allotment, Hardware, Workload, allot, probe_tokens_per_second

# 1000 tokens a step, 20 steps; a rank is 0.1 MB = 0.8 Mbit of upload
WORK = Workload(1000, 20, (2, 4, 8, 16), 100_000, deadline_seconds=30.0, min_steps=3)

speeds = st.floats(0.01, 1e7)
workloads = st.builds(
    Workload,
    tokens_per_step=st.integers(1, 10_000),
    steps=st.integers(5, 100),
    ranks=st.lists(st.integers(1, 64), min_size=1, max_size=5).map(tuple),
    bytes_per_rank=st.integers(0, 10**7),
    deadline_seconds=st.none() | st.floats(0.1, 1e5),
    min_steps=st.integers(1, 5),
    memory_bytes=st.integers(0, 2**31),
    memory_bytes_per_rank=st.integers(0, 2**27),
)


def test_fast_machine_gets_the_top_and_all_steps() -> None:
    # 20 steps * 1 s * (1 + 0.005 * 16) = 21.6 s, and 12.8 Mbit at 12.8 Mbit/s = 1 s
    found = allot(Hardware(1000, 12.8), WORK)
    assert (found.rank, found.steps, found.seconds) == (16, 20, pytest.approx(22.6))
    assert found.reason == (
        "Rank 16, the largest of the ladder, with all 20 steps: about 22.6 s, within the deadline of 30 s."
    )


def test_slow_line_gets_a_lower_rank() -> None:
    # at 0.5 Mbit/s a rank takes 1.6 s: rank 16 21.6 + 25.6, rank 8 20.8 + 12.8, rank 4 20.4 + 6.4 = 26.8 s
    found = allot(Hardware(1000, 0.5), WORK)
    assert (found.rank, found.steps) == (4, 20)
    assert found.seconds == pytest.approx(26.8)
    assert found.reason.startswith(
        "Rank 4, the largest that it can finish in time, with all 20 steps: about 26.8 s"
    )


def test_slow_machine_gets_the_smallest_rank_and_fewer_steps() -> None:
    # 5 s * 1.01 a step, 1.6 Mbit at 1.6 Mbit/s = 1 s: floor(29 / 5.05) = 5 steps, 26.25 s
    found = allot(Hardware(200, 1.6), WORK)
    assert (found.rank, found.steps) == (2, 5)
    assert found.seconds == pytest.approx(26.25)
    assert found.reason == (
        "Rank 2, the smallest, with 5 of 20 steps: about 26.2 s, as many as fit the deadline of 30 s."
    )


def test_very_slow_machine_gets_the_minimum_and_is_said_to_be_late() -> None:
    # 20 s * 1.01 a step: one step fits, three are the minimum: 60.6 s
    found = allot(Hardware(50), WORK)
    assert (found.rank, found.steps) == (2, 3)
    assert found.seconds == pytest.approx(60.6)
    assert "3 is the minimum and it will be late by about 31 s, for the deadline is 30 s" in found.reason


def test_without_deadline_or_speed_nothing_is_cut() -> None:
    slow = allot(Hardware(1), replace(WORK, deadline_seconds=None))
    assert (slow.rank, slow.steps) == (16, 20)
    assert slow.seconds == pytest.approx(21_600)
    unknown = allot(Hardware(), WORK)
    assert (unknown.rank, unknown.steps, unknown.seconds) == (16, 20, None)
    assert "no speed is declared or probed" in unknown.reason


def test_limits_of_rank_and_memory_are_kept_and_named() -> None:
    found = allot(Hardware(1000, max_rank=7), WORK)
    assert found.rank == 4
    assert "the largest within max_rank = 7" in found.reason
    # 1 GiB is taken, a rank takes 1/8 GiB: 2 GiB hold rank 8
    heavy = replace(WORK, memory_bytes=2**30, memory_bytes_per_rank=2**27)
    found = allot(Hardware(1000, memory_gib=2), heavy)
    assert found.rank == 8
    assert "the largest that fits 2 GiB" in found.reason
    found = allot(Hardware(1000, memory_gib=0.5), heavy)
    assert found.rank == 2
    assert "may not fit memory" in found.reason


@pytest.mark.parametrize(
    ("hardware", "workload", "key"),
    [
        (Hardware(max_rank=1), WORK, "max_rank = 1"),
        (Hardware(0.0), WORK, "tokens_per_second"),
        (Hardware(math.nan), WORK, "tokens_per_second"),
        (Hardware(1, -1.0), WORK, "uplink_mbit"),
        (Hardware(memory_gib=0.0), WORK, "memory_gib"),
        (Hardware(), replace(WORK, ranks=()), "ranks"),
        (Hardware(), replace(WORK, ranks=(0, 2)), "ranks"),
        (Hardware(), replace(WORK, min_steps=21), "min_steps = 21"),
        (Hardware(), replace(WORK, deadline_seconds=0.0), "deadline"),
    ],
)
def test_impossible_figures_are_refused(hardware: Hardware, workload: Workload, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        allot(hardware, workload)


@given(workloads, speeds, st.none() | speeds, st.none() | st.floats(0.1, 64), st.none() | st.integers(1, 64))
def test_an_allotment_is_always_legal(
    workload: Workload, speed: float, uplink: float | None, memory: float | None, limit: int | None
) -> None:
    limit = limit if limit is None else max(limit, *workload.ranks[:1], min(workload.ranks))
    found = allot(Hardware(speed, uplink, memory, limit), workload)
    assert found.rank in workload.ranks
    assert limit is None or found.rank <= limit
    assert workload.min_steps <= found.steps <= workload.steps
    assert found.steps == workload.steps or found.rank == min(workload.ranks)
    deadline, seconds = workload.deadline_seconds, found.seconds
    assert seconds is not None
    assert ("late" in found.reason) or deadline is None or seconds <= deadline * (1 + 1e-9)
    assert found.reason.endswith(".")


@given(workloads, speeds, speeds, speeds, speeds)
def test_a_better_machine_never_gets_less(workload: Workload, a: float, b: float, c: float, d: float) -> None:
    weak = allot(Hardware(min(a, b), min(c, d)), workload)
    strong = allot(Hardware(max(a, b), max(c, d)), workload)
    assert strong.rank >= weak.rank
    assert strong.steps >= weak.steps
    if (strong.rank, strong.steps) == (weak.rank, weak.steps):
        assert (strong.seconds or 0) <= (weak.seconds or 0)


@given(workloads, speeds, st.floats(0.1, 1e5), st.floats(0.1, 1e5))
def test_a_later_deadline_never_gives_less(workload: Workload, speed: float, a: float, b: float) -> None:
    early = allot(Hardware(speed), replace(workload, deadline_seconds=min(a, b)))
    late = allot(Hardware(speed), replace(workload, deadline_seconds=max(a, b)))
    assert late.rank >= early.rank
    assert late.steps >= early.steps


def test_the_probe_is_the_median_of_real_steps_without_the_first() -> None:
    waits = iter([0.2, 0.01, 0.01, 0.15, 0.01, 0.01])  # a slow first step, and one disturbed

    def step() -> int:
        time.sleep(next(waits))
        return 50

    # 50 tokens in a little more than 0.01 s; with the mean it would be about 1,300
    assert 2500 < probe_tokens_per_second(step, seconds=0.0, minimum=5) <= 5000


def test_the_probe_makes_the_minimum_of_steps_and_then_stops_at_its_time() -> None:
    calls: list[float] = []

    def step() -> int:
        time.sleep(0.005)
        calls.append(time.perf_counter())
        return 1

    probe_tokens_per_second(step, seconds=0.0, minimum=4)
    assert len(calls) == 5
    calls.clear()
    probe_tokens_per_second(step, seconds=0.1, minimum=1)
    assert 4 <= len(calls) <= 21  # 0.1 s of at least 5 ms each, one untimed


def test_a_step_without_tokens_is_refused() -> None:
    with pytest.raises(TrainingError, match="no token"):
        probe_tokens_per_second(lambda: 0)
