"""Who gets which rank and how many steps: cases worked by hand, and laws."""

import math
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import refused
from tequio.core.errors import ConfigError, TrainingError
from tequio.core.reason import Reason
from tequio.core.texts.words import ENGLISH
from tequio.planning.allocation import Hardware, Workload, allocate, probe_tokens_per_second

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
    found = allocate(Hardware(1000, 12.8), WORK)
    assert (found.rank, found.steps) == (16, 20)
    assert found.seconds == pytest.approx(22.6)
    assert (found.reason.code, found.reason.facts["why"]["code"]) == ("allotted", "rank-largest")
    assert found.reason.facts["seconds"] == found.seconds


def test_slow_line_gets_a_lower_rank() -> None:
    # at 0.5 Mbit/s a rank takes 1.6 s: rank 16 21.6 + 25.6, rank 8 20.8 + 12.8, rank 4 20.4 + 6.4 =
    # 26.8 s
    found = allocate(Hardware(1000, 0.5), WORK)
    assert (found.rank, found.steps) == (4, 20)
    assert found.seconds == pytest.approx(26.8)
    facts = {"rank": 4, "steps": 20, "seconds": found.seconds, "deadline": 30.0}
    assert found.reason == Reason("allotted", facts | {"why": Reason("rank-in-time").as_record()})


def test_slow_machine_gets_the_smallest_rank_and_fewer_steps() -> None:
    # 5 s * 1.01 a step, 1.6 Mbit at 1.6 Mbit/s = 1 s: floor(29 / 5.05) = 5 steps, 26.25 s
    found = allocate(Hardware(200, 1.6), WORK)
    assert (found.rank, found.steps) == (2, 5)
    assert found.seconds == pytest.approx(26.25)
    facts = {"rank": 2, "steps": 5, "full": 20, "seconds": found.seconds, "deadline": 30.0}
    assert found.reason == Reason("allotted-fewer", facts)


def test_very_slow_machine_gets_the_minimum_and_is_said_to_be_late() -> None:
    # 20 s * 1.01 a step: one step fits, three are the minimum: 60.6 s
    found = allocate(Hardware(50), WORK)
    assert (found.rank, found.steps) == (2, 3)
    assert found.seconds == pytest.approx(60.6)
    assert found.reason.code == "allotted-late"
    assert found.reason.facts["late"] == pytest.approx(30.6)


def test_without_deadline_or_speed_nothing_is_cut() -> None:
    slow = allocate(Hardware(1), replace(WORK, deadline_seconds=None))
    assert (slow.rank, slow.steps) == (16, 20)
    assert slow.seconds == pytest.approx(21_600)
    unknown = allocate(Hardware(), WORK)
    assert (unknown.rank, unknown.steps, unknown.seconds) == (16, 20, None)
    assert unknown.reason.code == "allotted-unknown"


def test_limits_of_rank_and_memory_are_retained_and_named() -> None:
    found = allocate(Hardware(1000, max_rank=7), WORK)
    assert found.rank == 4
    assert found.reason.facts["why"] == Reason("rank-capped", {"max_rank": 7}).as_record()
    # 1 GiB is taken, a rank takes 1/8 GiB: 2 GiB hold rank 8
    heavy = replace(WORK, memory_bytes=2**30, memory_bytes_per_rank=2**27)
    found = allocate(Hardware(1000, memory_gib=2), heavy)
    assert found.rank == 8
    assert found.reason.facts["why"] == Reason("rank-fits", {"memory_gib": 2}).as_record()
    found = allocate(Hardware(1000, memory_gib=0.5), heavy)
    assert found.rank == 2
    assert found.reason.facts["why"] == Reason("rank-may-not-fit").as_record()


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
        allocate(hardware, workload)


@given(
    workloads,
    speeds,
    st.none() | speeds,
    st.none() | st.floats(0.1, 64),
    st.none() | st.integers(1, 64),
)
def test_an_allotment_is_always_legal(
    workload: Workload, speed: float, uplink: float | None, memory: float | None, limit: int | None
) -> None:
    limit = limit if limit is None else max(limit, *workload.ranks[:1], min(workload.ranks))
    found = allocate(Hardware(speed, uplink, memory, limit), workload)
    assert found.rank in workload.ranks
    assert limit is None or found.rank <= limit
    assert workload.min_steps <= found.steps <= workload.steps
    assert found.steps == workload.steps or found.rank == min(workload.ranks)
    deadline, seconds = workload.deadline_seconds, found.seconds
    assert seconds is not None
    assert (
        found.reason.code == "allotted-late" or deadline is None or seconds <= deadline * (1 + 1e-9)
    )
    assert ENGLISH.reason(found.reason).endswith(".")


@given(workloads, speeds, speeds, speeds, speeds)
def test_a_better_machine_never_gets_less(
    workload: Workload, a: float, b: float, c: float, d: float
) -> None:
    weak = allocate(Hardware(min(a, b), min(c, d)), workload)
    strong = allocate(Hardware(max(a, b), max(c, d)), workload)
    assert strong.rank >= weak.rank
    assert strong.steps >= weak.steps
    if (strong.rank, strong.steps) == (weak.rank, weak.steps):
        assert (strong.seconds or 0) <= (weak.seconds or 0)


@given(workloads, speeds, st.floats(0.1, 1e5), st.floats(0.1, 1e5))
def test_a_later_deadline_never_gives_less(
    workload: Workload, speed: float, a: float, b: float
) -> None:
    early = allocate(Hardware(speed), replace(workload, deadline_seconds=min(a, b)))
    late = allocate(Hardware(speed), replace(workload, deadline_seconds=max(a, b)))
    assert late.rank >= early.rank
    assert late.steps >= early.steps


class Machine:
    """A clock, and steps of 100 tokens that take the given seconds on it."""

    def __init__(self, *seconds: float) -> None:
        self.left, self.now, self.steps = list(seconds), 0.0, 0

    def clock(self) -> float:
        return self.now

    def step(self) -> int:
        self.now += self.left.pop(0)
        self.steps += 1
        return 100


def test_the_probe_is_the_median_of_real_steps_without_the_first() -> None:
    machine = Machine(9.0, 0.25, 2.0, 0.5, 2.0, 0.25)  # a slow first step, and two disturbed ones
    # rates 400, 50, 200, 50, 400 tokens a second
    assert probe_tokens_per_second(machine.step, 0.0, 5, machine.clock) == 200


def test_the_probe_makes_the_minimum_of_steps_and_then_stops_at_its_time() -> None:
    few = Machine(*[9.0] * 20)
    probe_tokens_per_second(few.step, 1.0, 4, few.clock)
    assert few.steps == 5  # one untimed, and the minimum, though the first of them already took 9 s
    many = Machine(*[0.25] * 20)
    probe_tokens_per_second(many.step, 1.0, 3, many.clock)
    assert many.steps == 5  # one untimed, and four quarters of a second


def test_the_probe_times_a_real_step() -> None:
    def step() -> int:
        time.sleep(0.01)
        return 50

    assert 0 < probe_tokens_per_second(step, seconds=0.0) <= 5000  # 50 tokens in at least 0.01 s


def test_a_step_without_tokens_is_refused() -> None:
    with refused(TrainingError, "probe-without-tokens"):
        probe_tokens_per_second(lambda: 0)
