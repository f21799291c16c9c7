"""The power meter, with a powercap tree in a temporary folder as its sensor."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tequio.core.errors import ConfigError
from tequio.measure.energy import WATTS_PER_CORE, cpu_share, open_meter
from tequio.measure.sensors import AT_ONCE, Counter, cards, find_card, packages, unwrap


def package(
    root: Path, index: str = "0", name: str = "package-0", at: int = 0, span: int = 65_532_610_987
) -> Path:
    folder = root / f"intel-rapl:{index}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{span}\n")
    (folder / "energy_uj").write_text(f"{at}\n")
    return folder / "energy_uj"


def burn(cpu_seconds: float) -> float:
    start = time.process_time()
    while time.process_time() - start < cpu_seconds:
        pass
    return time.process_time() - start


def test_model_charges_watts_times_cpu_seconds(tmp_path: Path) -> None:
    # 350 W over 56 CPUs is 6.25 W: 0.2 CPU seconds are 1.25 J
    meter = open_meter(tdp_watts=350, powercap=tmp_path, cores=56)
    with meter.measure() as reading:
        used = burn(0.2)
    found = reading.energy
    assert found.joules == pytest.approx(6.25 * used, rel=0.05)
    assert (found.method, found.boundary, found.uncertainty) == ("model", "cpu package", 0.4)
    assert found.seconds >= used * 0.99


def test_default_watts_are_the_documented_ones_per_physical_core(tmp_path: Path) -> None:
    logical = psutil.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or logical
    assert open_meter(powercap=tmp_path).watts * logical == pytest.approx(WATTS_PER_CORE * physical)
    assert open_meter(tdp_watts=100, powercap=tmp_path).watts * logical == pytest.approx(100)


def test_sleep_is_not_charged_by_the_model(tmp_path: Path) -> None:
    with open_meter(tdp_watts=100, powercap=tmp_path, cores=1).measure() as reading:
        time.sleep(0.2)
    assert reading.energy.joules < 1.0  # 0.2 s at 100 W would be 20 J
    assert reading.energy.seconds >= 0.2


def test_sleep_is_not_charged_by_rapl(tmp_path: Path) -> None:
    counter = package(tmp_path)
    with open_meter(powercap=tmp_path).measure() as reading:
        time.sleep(0.2)
        counter.write_text("20000000")  # the idle package drew 20 J
    assert reading.energy.method == "rapl"
    assert reading.energy.joules < 1.0


def test_rapl_charges_the_share_of_a_busy_process(tmp_path: Path) -> None:
    counters = [package(tmp_path, "0"), package(tmp_path, "1", "package-1", at=500)]
    with open_meter(powercap=tmp_path).measure() as reading:
        burn(0.3)
        counters[0].write_text("6000000")
        counters[1].write_text("4000500")
    found = reading.energy
    # 10 J in all; this process keeps one of the machine's CPUs busy, others may be busy too
    least = 10 * 0.3 / max(found.seconds * (psutil.cpu_count() or 1) + 0.1, 0.3)
    assert least * 0.8 <= found.joules <= 10.0
    assert (found.method, found.boundary) == ("rapl", "cpu package")


def test_rapl_counts_packages_only_once(tmp_path: Path) -> None:
    # part 0:0 lies in package 0, psys contains all: only the package counts
    package(tmp_path, "0")
    package(tmp_path, "0:0", "core")
    package(tmp_path, "0:1", "package-0-part")
    package(tmp_path, "1", "psys")
    (tmp_path / "intel-rapl-mmio:0").mkdir()
    assert [package.path.name for package in packages(tmp_path)] == ["intel-rapl:0"]


def test_an_unreadable_package_means_the_model(tmp_path: Path) -> None:
    package(tmp_path, "0")
    package(tmp_path, "1", "package-1").unlink()
    assert open_meter(powercap=tmp_path).method == "model"
    assert open_meter(powercap=tmp_path / "absent").method == "model"


def test_a_wrapped_counter_is_unwrapped(tmp_path: Path) -> None:
    counter = package(tmp_path, at=900, span=1000)
    total = Counter(open_meter(powercap=tmp_path).domains)
    counter.write_text("100")
    assert total.joules() == pytest.approx(200e-6)  # 900 -> 1000 and 0 -> 100
    counter.write_text("50")
    assert total.joules() == pytest.approx(1150e-6)  # and once round again: 950 more


def test_a_counter_is_read_in_between_so_that_two_wraps_are_seen(tmp_path: Path) -> None:
    counter = package(tmp_path, at=0, span=10_000_000)
    meter = replace(open_meter(powercap=tmp_path), resample_seconds=0.01)
    with meter.measure() as reading:
        for value in (9_000_000, 8_000_000, 7_000_000):  # 9 J, 18 J, 27 J
            counter.with_suffix(".new").write_text(str(value))
            counter.with_suffix(".new").replace(counter)
            burn(0.1)
    assert reading._cpu is not None
    assert reading._cpu.joules() == pytest.approx(27.0)


@pytest.mark.parametrize("damage", ["gone", "garbage"])
def test_a_sensor_lost_at_once_leaves_the_model(tmp_path: Path, damage: str) -> None:
    counter = package(tmp_path)
    with open_meter(tdp_watts=10, powercap=tmp_path, cores=1).measure() as reading:
        used = burn(0.1)
        counter.unlink() if damage == "gone" else counter.write_text("n/a")
    found = reading.energy
    assert found.method == "rapl, then model"
    assert found.uncertainty == pytest.approx(0.4)
    assert found.coverage < 0.05
    assert found.joules == pytest.approx(10 * used, rel=0.2)


def test_a_sensor_that_vanishes_counts_up_to_then_and_the_model_from_there(tmp_path: Path) -> None:
    counter = package(tmp_path)
    with open_meter(tdp_watts=100, powercap=tmp_path, cores=1).measure() as reading:
        burn(0.2)
        counter.write_text("50000000")  # 50 J
        first = reading.energy  # the last read that succeeds
        counter.unlink()
        burn(0.2)
    found = reading.energy
    assert first.method == "rapl"
    assert found.method == "rapl, then model"
    assert 0.2 < found.coverage < 0.8
    assert 0.15 < found.uncertainty < 0.4
    assert found.joules == pytest.approx(
        first.joules + 100 * 0.2, rel=0.25
    )  # 20 J more by the model


def test_a_sensor_that_comes_back_stays_lost(tmp_path: Path) -> None:
    counter = package(tmp_path)
    with open_meter(powercap=tmp_path).measure() as reading:
        counter.unlink()
        assert reading.energy.method == "rapl, then model"
        counter.write_text("5")
    assert reading.energy.method == "rapl, then model"


class Board:
    """A card's counter that is told what it shows."""

    span = 2**63

    def __init__(self) -> None:
        self.joules = 1000.0
        self.gone = False

    def read(self) -> int:
        if self.gone:
            raise OSError("GPU is lost")
        return int(1e6 * self.joules)


def test_a_card_is_added_whole_to_the_processors_part(tmp_path: Path) -> None:
    board = Board()
    meter = replace(open_meter(tdp_watts=10, powercap=tmp_path, cores=1), cards=lambda: (board,))
    with meter.measure() as reading:
        used = burn(0.1)
        board.joules += 200.0
    found = reading.energy
    assert found.joules == pytest.approx(200 + 10 * used, rel=0.01)
    assert (found.method, found.boundary) == ("nvml + model", "gpu board + cpu package")
    known = (0.05 * 200 + 0.4 * 10 * used) / found.joules
    assert found.uncertainty == pytest.approx(min(1.0, known + 0.1 / found.seconds), rel=0.01)


def test_an_interval_much_longer_than_a_step_of_the_counter_is_known_well(tmp_path: Path) -> None:
    board, widths = Board(), []
    meter = replace(open_meter(tdp_watts=0.001, powercap=tmp_path, cores=1), cards=lambda: (board,))
    with meter.measure() as reading:
        for _ in range(2):
            time.sleep(0.25)
            board.joules += 50.0
            widths.append(reading.energy.uncertainty - 0.1 / reading.energy.seconds)
    assert widths == [pytest.approx(0.05, abs=2e-3)] * 2  # what is left is the counter's own


def test_a_lost_card_is_taken_to_draw_on(tmp_path: Path) -> None:
    board = Board()
    meter = replace(open_meter(tdp_watts=0.001, powercap=tmp_path, cores=1), cards=lambda: (board,))
    with meter.measure() as reading:
        burn(0.2)
        board.joules += 20.0
        assert reading.energy.joules == pytest.approx(20.0, rel=0.01)
        board.gone = True
        burn(0.2)
    found = reading.energy
    assert 0.3 < found.coverage < 0.7
    assert found.joules == pytest.approx(20.0 / found.coverage, rel=0.01)
    assert 0.05 < found.uncertainty - 0.1 / found.seconds < 0.4


def test_a_card_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with replace(open_meter(powercap=tmp_path), cards=lambda: None).measure() as reading:
        pass
    assert reading.energy.boundary == "cpu package, gpu not counted"


class Library:
    """NVML of two cards, as far as it is asked: one has a counter of millijoules, the other has
    none.
    """

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.millijoules = 7_000

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:
        if name not in ("GPU-1", "GPU-2"):
            raise self.NVMLError("Not Found")
        return name

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: str) -> int:
        if handle == "GPU-2":
            raise self.NVMLError("Not Supported")
        return self.millijoules


@pytest.mark.parametrize("uuid", ["1", "GPU-1"])
def test_a_card_is_found_by_its_identity_and_counts_millijoules(uuid: str) -> None:
    library = Library()
    found = find_card(library, uuid)
    assert found is not None
    counter = Counter((found,))
    library.millijoules += 2_500
    assert counter.joules() == 0.0  # asked at once, it answers as before
    time.sleep(2 * AT_ONCE)
    assert counter.joules() == 2.5


@pytest.mark.parametrize("uuid", ["2", "3"])
def test_a_card_without_a_counter_or_a_name_is_none(uuid: str) -> None:
    assert find_card(Library(), uuid) is None


def test_without_a_card_in_use_there_is_none_to_count() -> None:
    assert torch.cuda.is_available() or cards() == ()


@pytest.mark.parametrize("times", [2, 4])
def test_k_times_the_work_is_k_times_the_energy(tmp_path: Path, times: int) -> None:
    """By CPU seconds, so that a busy machine changes nothing."""
    meter = open_meter(tdp_watts=100, powercap=tmp_path)
    with meter.measure() as once:
        own = burn(0.15)
    with meter.measure() as often:
        longer = sum(burn(0.15) for _ in range(times))
    assert often.energy.joules / once.energy.joules == pytest.approx(longer / own, rel=0.1)
    assert often.energy.joules / once.energy.joules == pytest.approx(times, rel=0.1)


def test_a_block_that_raises_is_measured_and_the_reading_is_final(tmp_path: Path) -> None:
    meter = open_meter(tdp_watts=10, powercap=tmp_path, cores=1)
    readings = []

    def fail() -> None:
        with meter.measure() as reading:
            readings.append(reading)
            burn(0.02)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    (reading,) = readings
    before = reading.energy
    burn(0.02)
    assert reading.energy is before
    assert before.joules >= 0.2 * 0.99  # 10 W x 0.02 s


def test_measuring_costs_little(tmp_path: Path) -> None:
    package(tmp_path)
    meter = open_meter(powercap=tmp_path)
    start = time.process_time()
    for _ in range(50):
        with meter.measure():
            pass
    assert (
        time.process_time() - start
    ) / 50 < 0.005  # about 0.5 ms a measurement here, most of it one thread's start


@pytest.mark.parametrize(
    "bad", [{"tdp_watts": 0.0}, {"tdp_watts": -5.0}, {"tdp_watts": float("nan")}, {"cores": 0}]
)
def test_impossible_figures_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        open_meter(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("own", "busy", "seconds", "expected"),
    [
        (1.0, 1.0, 1.0, 1.0),  # alone, one thread, always computing
        (4.0, 4.0, 1.0, 1.0),  # alone, four threads
        (1.0, 4.0, 1.0, 0.25),  # three others as busy as this one
        (0.5, 0.5, 1.0, 0.5),  # alone, asleep half the time
        (1.0, 0.98, 1.0, 1.0),  # the machine's clock is coarser than the process's
        (0.0, 0.0, 0.0, 0.0),
    ],
)
def test_cpu_share(own: float, busy: float, seconds: float, expected: float) -> None:
    assert cpu_share(own, busy, seconds) == pytest.approx(expected)


@given(st.integers(0, 999), st.integers(0, 999))
def test_unwrap_is_addition_on_the_circle(before: int, used: int) -> None:
    assert unwrap(before, (before + used) % 1000, 1000) == used


def test_the_meter_of_a_thread_charges_what_that_thread_computed(tmp_path: Path) -> None:
    # 100 W on one CPU: 0.3 CPU seconds of the other thread are 30 J, and are not this thread's
    meter = open_meter(tdp_watts=100, powercap=tmp_path, cores=1)
    other = threading.Thread(target=burn, args=(0.3,))
    with meter.measure() as process, meter.of_thread().measure() as thread:
        other.start()
        other.join()
    assert thread.energy.joules < 5.0
    assert process.energy.joules >= 29.0
