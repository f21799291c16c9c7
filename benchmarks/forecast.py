"""How near is `tequio plan` to what a run then measures? Both demo models, three sizes each.

    python -m benchmarks.forecast [--models sentiment,manuals] [--participants 2]

Each size is planned (the probe's 10 to 20 real steps) and then run, in processes of their own, on one thread, one participant at a time.
Printed are ratios, measured over forecast: time at work of all participants (wall), their CPU time (energy over watts, so that other
work on the machine counts less), and the peak of resident memory. Targets: time within 20 %, memory within 15 %.
--random: bases with random weights in known shapes instead (`benchmarks.made_forecast`), on a graphics card if there is one:
minilm, smollm2, llama1b. --apart: plan and run in processes of their own there too. --until: no size is begun after so many seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tequio.cli.environment import prepare_process

prepare_process()

SIZES = {  # batch, tokens, examples, steps a round
    "sentiment": {"small": (2, 48, 30, 12), "medium": (4, 96, 60, 12), "large": (8, 128, 120, 12)},
    "manuals": {"small": (1, 48, 8, 4), "medium": (2, 96, 12, 4), "large": (4, 128, 16, 4)},
}


def tequio(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "tequio.cli.main", *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command}\n{done.stderr}")
    return done.stdout


def sized(path: Path, model: str, size: str) -> None:
    """Write a size into the demo's files."""
    batch, tokens, examples, steps = SIZES[model][size]
    lines = path.read_text().splitlines()
    new = {"rounds": "2", "batch_size": str(batch), "max_tokens": str(tokens), "max_steps": str(steps)}
    out = []
    for line in lines:
        key = line.split(" = ")[0]
        out.append(f"{key} = {new[key]}" if key in new else line)
    path.write_text("\n".join(out) + "\n")
    for file in (path.parent / "participants").glob("*.toml"):
        retained = [line for line in file.read_text().splitlines() if not line.startswith(("max_train", "max_rank"))]
        at = retained.index("[data]") + 1
        file.write_text("\n".join([*retained[:at], f"max_train = {examples}", *retained[at:]]) + "\n")


def one(model: str, size: str, participants: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "fed"
        tequio("demo", model, "--prepare", "--participants", str(participants), "--out", home, "--threads", "1")
        path = home / "federation.toml"
        sized(path, model, size)
        tequio("plan", path, "--threads", "1")
        factor = json.loads((home / "plan.json").read_text())["factors"]["this machine"]
        tequio("run", path, "--out", home / "run", "--threads", "1", "--workers", "1", "--no-counterfactuals")
        from tequio.app.forecast.calibration import compare

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models")
    parser.add_argument("--sizes", default="small,medium,large")
    parser.add_argument("--participants", type=int, default=2)
    parser.add_argument("--random", action="store_true")
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--until", type=float, default=3600.0)
    given = parser.parse_args()
    if given.random:
        from benchmarks.made_forecast import measure

        models = (given.models or "minilm,smollm2,llama1b").split(",")
        measure(models, given.sizes.split(","), given.separate, given.until)
        return
    print(
        "| model | size | forecast s | time | CPU time | memory | train | evaluate | personal |\n|---|---|---|---|---|---|---|---|---|"
    )
    for model in (given.models or "sentiment,manuals").split(","):
        for size in given.sizes.split(","):
            r = one(model, size, given.participants)
            print(
                f"| {model} | {size} | {r['seconds']:.1f} | {r['time']:.2f} | {r['cpu']:.2f} | {r['memory']:.2f} "
                f"| {r['train']:.2f} | {r['evaluate']:.2f} | {r['personal']:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
