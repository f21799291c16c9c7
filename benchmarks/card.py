"""The meter on a graphics card: against the card's own counter, k times the work, short intervals,
what is idle, and what measuring costs.

    python -m benchmarks.meter --gpu [--seconds 2]

Two loads, each with all its work waiting on the card: products of 8192 × 8192 matrices in bfloat16,
and Tequio's own training loop on a random Llama in the shape of SmolLM2-135M. A second account
beside NVML's counter of energy: NVML's power, read every 20 ms, added up. Printed last are short
tables, with the targets. Without a card, or without its counter, it says which tier is taken, and
why.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common.made import SHAPES, make_base, words
from tequio.measure.energy import Meter, open_meter
from tequio.measure.sensors import Sensor, cards, settle
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.base import best_device, best_dtype, load_base
from tequio.participant.data import Example
from tequio.participant.loop import adamw, train
from tequio.participant.text_tasks import Causal

Load = Callable[[int], None]


def products() -> Load:
    """So many products on the card."""
    device = best_device()
    size = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=device).to(best_dtype()) for _ in range(2))
    out = torch.empty_like(a)

    def work(count: int) -> None:
        for _ in range(count):
            torch.mm(a, b, out=out)
        settle()

    return work


def steps(folder: Path) -> Load:
    """So many steps of Tequio's loop: 8 × 256 tokens."""
    shape = "smollm2" if best_device().type == "cuda" else "tiny"
    base = load_base(str(make_base(shape, folder)), "causal", best_dtype(), folder)
    adapted, task = AdaptedModel(base, SHAPES[shape].modules, 2.0), Causal(base.tokenizer, 256)
    items, _ = task.encode([Example(words(30_000, 0))], "x")
    full = [item for item in items if len(item.ids) == 256]
    parameters = adapted.attach(16, 0)
    optimizer = adamw(parameters)

    def work(count: int) -> None:
        stream = iter([full[8 * k % 48 : 8 * k % 48 + 8] for k in range(count)])
        train(adapted, task, parameters, stream, [1e-4] * count, "x", optimizer)

    return work


def calibrated(load: Load, seconds: float) -> int:
    """How many units take so long; the load is warm then."""
    load(2)
    count, took = 1, 0.0
    while took < 0.3 * seconds:
        count *= 2
        begin = time.perf_counter()
        load(count)
        took = time.perf_counter() - begin
    return max(1, round(count * seconds / took))


class Power:
    """NVML's power of the card at the moment, in watts, every 20 ms, added up;

    None where it has none.
    """

    def __init__(self) -> None:
        self.joules: float | None = 0.0
        self.readings = 0

    @contextmanager
    def watching(self) -> Iterator[None]:
        done = threading.Event()
        thread = threading.Thread(target=self._watch, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _watch(self, done: threading.Event) -> None:
        try:
            watts, last = power_now(), time.perf_counter()
            while not done.wait(0.02):
                now, at = power_now(), time.perf_counter()
                self.joules = (self.joules or 0.0) + (watts + now) / 2 * (at - last)
                watts, last, self.readings = now, at, self.readings + 1
        except Exception as error:
            print("no power by NVML:", type(error).__name__, error)
            self.joules = None


def power_now() -> float:
    """Watts."""
    import pynvml

    handle = getattr((cards() or (None,))[0], "handle", None)
    found = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_POWER_INSTANT])[
        0
    ]  # the other one is a mean of a second
    if found.nvmlReturn == 0:
        return float(found.value.uiVal) / 1000
    return float(pynvml.nvmlDeviceGetPowerUsage(handle)) / 1000


def counter() -> Sensor:
    found = cards()
    assert found, "the card has no counter that can be read"
    return found[0]


def of_card(meter: Meter) -> Meter:
    """The same meter, to which the processor draws nothing."""
    return replace(meter, watts=0.0, domains=())


def tier() -> bool:
    """Print what is counted and why; whether a card's counter is."""
    torch.zeros(2**20, device=best_device()).add_(1)
    with open_meter().measure() as reading:
        pass
    energy = reading.energy
    print(f"device {best_device()}, tier taken: {energy.method} ({energy.boundary})")
    if best_device().type != "cuda":
        return False
    print(
        f"torch {torch.__version__}: {torch.cuda.get_device_name()}, uuid "
        f"{torch.cuda.get_device_properties(0).uuid}"
    )
    try:
        import pynvml

        pynvml.nvmlInit()
        for i in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(i)
            parts = [pynvml.nvmlDeviceGetName(handle), pynvml.nvmlDeviceGetUUID(handle)]
            parts.append(f"counter {pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)} mJ")
            parts.append(f"{pynvml.nvmlDeviceGetPowerUsage(handle)} mW")
            parts.append(f"limit {pynvml.nvmlDeviceGetEnforcedPowerLimit(handle)} mW")
            print(f"NVML {i}, driver {pynvml.nvmlSystemGetDriverVersion()}:", *parts)
    except Exception as error:
        print("NVML:", type(error).__name__, error)
    return bool(cards())


def ticks(load: Load, unit: int) -> None:
    """How often the counter moves under load, and by how much."""
    sensor, seen = counter(), []
    thread = threading.Thread(target=load, args=(2 * unit,))
    thread.start()
    begin = last_at = time.perf_counter()
    last = sensor.read()
    reads = 0
    while time.perf_counter() - begin < 1.5:
        now, at = sensor.read(), time.perf_counter()
        reads += 1
        if now != last:
            seen.append((at - last_at, (now - last) / 1e6))
            last, last_at = now, at
        time.sleep(0.0005)
    thread.join()
    gaps, joules = [g for g, _ in seen[1:]], [j for _, j in seen[1:]]
    if gaps:
        print(
            f"the counter moves every {1000 * statistics.median(gaps):.1f} ms "
            f"({1000 * min(gaps):.1f} to {1000 * max(gaps):.1f}), by "
            f"{statistics.median(joules):.2f} J; {reads} reads, "
            f"{1000 * 1.5 / max(reads, 1) - 0.5:.2f} ms each"
        )


def longer(name: str, load: Load, unit: int, meter: Meter) -> list[str]:
    """Rows for 1, 2 and 4 times the work: metered and counted beside each other, and energy over k
    times the first.
    """
    rows, first, sensor = [], 0.0, counter()
    load(unit)
    for k in (1, 2, 4):
        power = Power()
        with power.watching():
            settle()
            before = sensor.read()
            with of_card(meter).measure() as card, meter.measure() as reading:
                load(k * unit)
            counted = (sensor.read() - before) / 1e6
        metered, energy = card.energy.joules, reading.energy
        first = first or energy.joules
        beside = float("nan") if power.joules is None else power.joules / counted
        rows.append(
            f"| {name} | {k} | {energy.seconds:.2f} | {energy.joules:.1f} | {metered:.1f} | "
            f"{counted:.1f} | {metered / counted:.4f} | {energy.joules / first / k:.3f} | "
            f"{counted / energy.seconds:.0f} | {beside:.3f} | {energy.uncertainty:.3f} |"
        )
    return rows


def short(load: Load, unit: int, seconds: float, each: float, meter: Meter) -> str:
    """Many short intervals, one after the other, against the counter over all of them."""
    few, count = max(1, round(unit * each / seconds)), max(10, round(seconds / each))
    sensor, parts = counter(), []
    before, begin = sensor.read(), time.perf_counter()
    for _ in range(count):
        with of_card(meter).measure() as reading:
            load(few)
        parts.append((reading.energy.joules, reading.energy.seconds))
    whole, took = (sensor.read() - before) / 1e6, time.perf_counter() - begin
    own, inside = sum(j for j, _ in parts), sum(s for _, s in parts)
    none = sum(j == 0 for j, _ in parts) / count
    return (
        f"{count} intervals of {1000 * inside / count:.0f} ms, back to back: {own:.1f} J metered, "
        f"{whole:.1f} J counted over all, ratio {own / whole:.3f} in {inside / took:.3f} of the "
        f"time; {none:.0%} of them saw no step of the counter"
    )


def idle(meter: Meter, seconds: float) -> str:
    """What an open interval takes while nothing is computed; and what a closed one does not
    take.
    """
    time.sleep(1.0)  # the clocks come down
    with of_card(meter).measure() as card, meter.measure() as reading:
        time.sleep(seconds)
    own, energy = card.energy.joules, reading.energy
    return (
        f"idle, interval open: card {own / energy.seconds:.1f} W charged, processor "
        f"{(energy.joules - own) / energy.seconds:.2f} W; between intervals nothing is charged"
    )


def cost(load: Load, unit: int, seconds: float, meter: Meter) -> list[str]:
    """Seconds of a measurement around nothing; and the load with a measurement every half second,
    in turns with the load alone.
    """
    alone = replace(meter, cards=lambda: ())
    times, own = [], time.process_time()
    for _ in range(200):
        begin = time.perf_counter()
        with meter.measure():
            pass
        times.append(time.perf_counter() - begin)
    own = (time.process_time() - own) / 200
    each = statistics.median(times)
    out = [
        f"a measurement around nothing: {1000 * each:.2f} ms of wall time, {1000 * own:.2f} ms of "
        f"CPU: {100 * each / 0.5:.3f} % of half a second, (target < 0.5 %)"
    ]
    part, ratios = max(1, round(unit * 0.5 / seconds)), []
    for _ in range(6):
        took = []
        for one in (alone, meter):
            begin = time.perf_counter()
            with one.measure():
                load(part)
            took.append(time.perf_counter() - begin)
        ratios.append(took[1] / took[0] - 1)
    out.append(
        "half a second of work, with the card's counter over without: "
        f"{100 * statistics.median(ratios):+.3f} % ({100 * min(ratios):+.2f} to "
        f"{100 * max(ratios):+.2f})"
    )
    return out


def measure(seconds: float) -> None:
    """All of it; `seconds` of the shortest run."""
    if not tier():
        return
    meter, rows, notes = open_meter(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, made in (("products", products), ("LoRA steps", lambda: steps(Path(folder)))):
            try:
                load = made()
                unit = calibrated(load, seconds)
                print(f"{name}: {unit} units in {seconds} s", flush=True)
                if name == "products":
                    ticks(load, unit)
                rows += longer(name, load, unit, meter)
                notes.append(f"{name}: {short(load, unit, seconds, 0.03, meter)}")
                notes.append(f"{name}: {idle(meter, seconds)}")
                notes += [f"{name}: {line}" for line in cost(load, unit, seconds, meter)]
                print(*notes[-4:], sep="\n", flush=True)
            except Exception:
                traceback.print_exc()
    print(
        "\nTargets: metered ÷ counted 0.98 to 1.02; energy ÷ (k × first) 0.9 to 1.1; cost < 0.5 %"
    )
    print(
        "| load | k | s | J in all | J card, metered | J counted | metered ÷ counted | energy ÷ (k "
        "× first) | W | power ÷ counter | ± |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|", *rows, sep="\n")
    print(*notes, sep="\n")
