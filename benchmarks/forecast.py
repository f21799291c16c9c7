"""How near is `tequio plan` to what a run then measures? Both demo models, three sizes each.

    python -m benchmarks.forecast [--models sentiment,manuals] [--participants 2]

Each size is planned (the probe's 10 to 20 real steps) and then run, in processes of their own, on
one thread, one participant at a time. Printed are ratios, measured over forecast: time at work of
all participants (wall), their CPU time (energy over watts, so that other work on the machine counts
less), and the peak of resident memory. Targets: time within 20 %, memory within 15 %. --random:
bases with random weights in known shapes instead (`benchmarks.common.made`), on a graphics card if
there is one: minilm, smollm2, llama1b. Plan and run are then in one process, the base loaded for
each again, so that a card has got going before the run (`start`, the seconds that the probe gave it
for that); --separate: in processes of their own there too. On a card, memory is that of its
tensors. --until: no size is begun after so many seconds.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tequio.cli.environment import prepare_process

prepare_process()

import torch

from benchmarks.common.command import tequio
from benchmarks.common.made import SHAPES, make_base, words
from tequio.app.assembly.algorithm import resolve_algorithm
from tequio.app.assembly.build import build, read_participants
from tequio.app.assembly.memory import load_model_shape, process_memory
from tequio.app.forecast.calibration import compare
from tequio.app.forecast.forecast import make_plan
from tequio.app.simulation.run import start
from tequio.config import load_federation
from tequio.config.templates import write_federation
from tequio.participant.base import best_device
from tequio.planning.devices import catalogue
from tequio.planning.flops import training
from tequio.planning.gpu_memory import card_name, forget_card_peak, on_card

SIZES = {  # batch, tokens, examples, steps a round
    "sentiment": {"small": (2, 48, 30, 12), "medium": (4, 96, 60, 12), "large": (8, 128, 120, 12)},
    "manuals": {"small": (1, 48, 8, 4), "medium": (2, 96, 12, 4), "large": (4, 128, 16, 4)},
}
CARD = {  # batch, tokens, steps a round
    "minilm": {"small": (8, 64, 60), "medium": (32, 128, 30), "large": (64, 256, 24)},
    "smollm2": {"small": (4, 128, 30), "medium": (8, 256, 30), "large": (16, 512, 24)},
    "llama1b": {"small": (2, 256, 24), "medium": (4, 512, 20), "large": (8, 1024, 12)},
    "tiny": {"small": (2, 32, 8), "medium": (4, 64, 8), "large": (8, 128, 8)},
    "tinybert": {"small": (2, 32, 8), "medium": (4, 64, 8), "large": (8, 128, 8)},
}
CPU = CARD | {
    "minilm": {"small": (2, 48, 12), "medium": (4, 96, 12), "large": (8, 128, 12)},
    "smollm2": {"small": (1, 48, 4), "medium": (2, 96, 4), "large": (4, 128, 4)},
    "llama1b": {"small": (1, 32, 2), "medium": (1, 64, 2), "large": (2, 64, 2)},
}
SAME = {"NVIDIA H100 80GB HBM3": "H100 SXM", "NVIDIA H100 PCIe": "H100 PCIe", "NVIDIA H200": "H200"}
HEAD = (
    "| model | size | batch × tokens | forecast s | time | train | evaluate | personal | energy | "
    "memory GiB | memory | by the sum | process | by the catalogue, time | speed | ms a step | µs "
    "a layer | start s |"
)


def sized(path: Path, model: str, size: str) -> None:
    """Write a size into the demo's files."""
    batch, tokens, examples, steps = SIZES[model][size]
    lines = path.read_text().splitlines()
    new = {
        "rounds": "2",
        "batch_size": str(batch),
        "max_tokens": str(tokens),
        "max_steps": str(steps),
    }
    out = []
    for line in lines:
        key = line.split(" = ")[0]
        out.append(f"{key} = {new[key]}" if key in new else line)
    path.write_text("\n".join(out) + "\n")
    for file in (path.parent / "participants").glob("*.toml"):
        retained = [
            line
            for line in file.read_text().splitlines()
            if not line.startswith(("max_train", "max_rank"))
        ]
        at = retained.index("[data]") + 1
        file.write_text(
            "\n".join([*retained[:at], f"max_train = {examples}", *retained[at:]]) + "\n"
        )


def one(model: str, size: str, participants: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "fed"
        tequio(
            "demo",
            model,
            "--prepare",
            "--participants",
            str(participants),
            "--out",
            home,
            "--threads",
            "1",
        )
        path = home / "federation.toml"
        sized(path, model, size)
        tequio("plan", path, "--threads", "1")
        factor = json.loads((home / "plan.json").read_text())["factors"]["this machine"]
        tequio(
            "run",
            path,
            "--out",
            home / "run",
            "--threads",
            "1",
            "--workers",
            "1",
            "--no-counterfactuals",
        )
        found = compare(json.loads((home / "plan.json").read_text()), home / "run")
    said = sum(r["predicted"]["work"] for r in found["participants"]) / factor
    return {
        "seconds": said,
        "time": found["ratio"] * factor,
        "cpu": found["joules_ratio"] * factor,
        "memory": found["memory_ratio"],
    } | {
        phase: sum(r["measured"][phase] for r in found["participants"])
        / max(sum(r["predicted"][phase] for r in found["participants"]), 1e-9)
        * factor
        for phase in ("train", "evaluate", "personal")
    }


def write(model: str, size: str, bases: Path, home: Path) -> Path:
    """A federation of two on made-up texts; returns federation.toml."""
    batch, tokens, steps = (CARD if best_device().type == "cuda" else CPU)[model][size]
    shape, rows = SHAPES[model], batch * steps
    (home / "data").mkdir(parents=True)
    people = []
    for i in range(2):
        lines, labelled = [], shape.kind == "classification"
        for k in range(max(48, rows + rows // 4)):  # a fifth is kept for validation and test
            share = (
                0.3 + 0.7 * (k % 16) / 15 if labelled else 1.0
            )  # causal texts are joined, others are of unequal length
            text = words(max(4, int(tokens / 1.7 * share)), 10**6 * i + k)
            lines.append(json.dumps({"text": text} | ({"label": "ab"[k % 2]} if labelled else {})))
        path = home / "data" / f"site{i}.jsonl"
        path.write_text("\n".join(lines) + "\n")
        people.append(
            {"name": f"site{i}", "data": {"path": str(path)}, "hardware": {"max_rank": 16}}
        )
    federation = {
        "name": f"{model}-{size}",
        "seed": 1,
        "base": {"model": str(make_base(model, bases)), "licence": "none"},
        "task": {"kind": shape.kind, "max_tokens": tokens}
        | ({"labels": ["a", "b"]} if labelled else {}),
        "adapter": {"modules": shape.modules, "ranks": [8, 16]},
        "train": {
            "rounds": 2,
            "batch_size": batch,
            "learning_rate": 1e-4,
            "max_steps": steps,
            "local_epochs": 2.0,
        },
        "personal": {
            "local_rates": [1e-4],
            "private_rates": [1e-4],
            "private_epochs": 0.5,
            "checks": 2,
        },
    }
    return write_federation(home, federation, people)


def cleared() -> None:
    """Nothing of the last base is left on the card."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        forget_card_peak()


def together(path: Path, run: Path) -> dict[str, Any]:
    """The plan; the run is in this process.

    With it, where the catalogue has this card, seconds at work by that: `by_catalogue`.
    """
    config = load_federation(path)
    roster = read_participants(config)
    cleared()
    setup, device = build(config, participants=roster), SAME.get(card_name() or "")
    plan = make_plan(config, setup, roster, catalogue())
    if device is not None:
        rows = make_plan(config, setup, roster, catalogue(), machine=device)["participants"]
        plan["by_catalogue"] = sum(row["seconds"]["work"] for row in rows)
    del setup
    cleared()
    start(config, run, False)
    cleared()
    return plan


def separate(path: Path, run: Path) -> dict[str, Any]:
    """The plan; each is a process."""
    for parts in (
        ("plan", path),
        ("run", path, "--out", run, "--no-counterfactuals", "--workers", "1"),
    ):
        tequio(*parts)
    plan: dict[str, Any] = json.loads((path.parent / "plan.json").read_text())
    return plan


def random_row(model: str, size: str, bases: Path, in_processes: bool) -> str:
    """A row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        path, run = write(model, size, bases, Path(folder) / "fed"), Path(folder) / "run"
        plan = (separate if in_processes else together)(path, run)
        found = compare(plan, run)
        config = load_federation(path)
        batch, tokens = config.train.batch_size, config.task.max_tokens
        said, was = ([row[k] for row in found["participants"]] for k in ("predicted", "measured"))
        whole = {
            k: sum(row[k] for row in was) / max(sum(row[k] for row in said), 1e-9) for k in said[0]
        }
        card = found["card"] if found["card"]["ratio"] else found["memory"]
        algorithm = resolve_algorithm(config)
        needed = process_memory(config, algorithm, 2)
        parts = on_card(needed).total if found["card"]["ratio"] else needed.total
        shape = load_model_shape(config, algorithm)
        rows = plan["participants"]
        flops = sum(
            r["rounds"] * r["steps"] * batch * tokens * training(shape, tokens, r["rank"])
            for r in rows
        )
        factor, trained = plan["factors"]["this machine"], sum(r["train"] for r in was)
        a_step = trained / sum(r["rounds"] * r["steps"] for r in rows)
        return (
            f"| {model} | {size} | {batch} × {tokens} | "
            f"{sum(r['work'] for r in said) / factor:.2f} | **{whole['work'] * factor:.3f}** | "
            f"{whole['train'] * factor:.3f} | {whole['evaluate'] * factor:.3f} | "
            f"{whole['personal'] * factor:.3f} | {whole['joules'] * factor:.3f} | "
            f"{card['measured'] / 2**30:.3f} | **{card['ratio']:.3f}** | "
            f"{card['measured'] / parts:.3f} | "
            f"{found['memory']['ratio'] if in_processes else math.nan:.3f} | "
            f"{by_catalogue(plan, was)} | {flops / trained / 1e12:.1f} TFLOP/s | "
            f"{1e3 * a_step:.1f} | {1e6 * a_step / shape.layers:.0f} | "
            f"{plan['machine']['start']:.2f} |"
        )


def by_catalogue(plan: Mapping[str, Any], was: list[Mapping[str, float]]) -> str:
    """Measured over what the catalogue's row of this card says."""
    said = plan.get("by_catalogue")
    if said is None:
        return "–"
    return (
        f"{sum(row['train'] + row['evaluate'] + row['personal'] for row in was) / said:.2f} of "
        f"{said:.2f} s"
    )


def workspace() -> str:
    """What a card keeps for products in the thread that computes, and with that of the backward
    pass.
    """
    if not torch.cuda.is_available():
        return ""
    x, found = torch.randn(64, 64, device="cuda", requires_grad=True), []
    y = (x @ x).sum()
    found.append(torch.cuda.memory_allocated() / 2**20)
    y.backward()  # type: ignore[no-untyped-call]
    found.append(torch.cuda.memory_allocated() / 2**20)
    free, whole = torch.cuda.mem_get_info()
    return (
        f"; kept for products {found[0]:.0f} MiB ahead, {found[1]:.0f} with backward; "
        f"{free / 2**30:.1f} of {whole / 2**30:.1f} GiB are free, so the context takes "
        f"{(whole - free - torch.cuda.memory_reserved()) / 2**20:.0f} MiB"
    )


def measure(models: list[str], sizes: list[str], in_processes: bool, until: float) -> None:
    """All of them, the small ones first; none is begun after `until` seconds."""
    begun, rows = time.perf_counter(), [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    name = card_name() or "processor"
    print(
        f"{name}, torch {torch.__version__}, {torch.get_num_threads()} threads; measured ÷ "
        f"forecast{workspace()}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as bases:
        for size in sizes:
            for model in models:
                at = time.perf_counter()
                if at - begun > until:
                    print(f"{model} {size}: left out, {at - begun:.0f} s are over", flush=True)
                    continue
                try:
                    rows.append(random_row(model, size, Path(bases), in_processes))
                    print(rows[-1], f"took {time.perf_counter() - at:.0f} s", flush=True)
                except (Exception, SystemExit):
                    print(f"{model} {size} FAILED", flush=True)
                    traceback.print_exc()
                    cleared()
    print("\nTargets: time 0.8 to 1.2, memory 0.85 to 1.15")
    print(*rows, sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models")
    parser.add_argument("--sizes", default="small,medium,large")
    parser.add_argument("--participants", type=int, default=2)
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--separate", action="store_true")
    parser.add_argument("--until", type=float, default=3600.0)
    given = parser.parse_args()
    if given.random:
        models = (given.models or "minilm,smollm2,llama1b").split(",")
        measure(models, given.sizes.split(","), given.separate, given.until)
        return
    print(
        "| model | size | forecast s | time | CPU time | memory | train | evaluate | personal "
        "|\n|---|---|---|---|---|---|---|---|---|"
    )
    for model in (given.models or "sentiment,manuals").split(","):
        for size in given.sizes.split(","):
            r = one(model, size, given.participants)
            print(
                f"| {model} | {size} | {r['seconds']:.1f} | {r['time']:.2f} | {r['cpu']:.2f} | "
                f"{r['memory']:.2f} | {r['train']:.2f} | {r['evaluate']:.2f} | "
                f"{r['personal']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
