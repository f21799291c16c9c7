"""How far is a participant's budget overrun, and what is left of its model?

    python -m benchmarks.budget_overrun [--participants 2] [--shares .1,.3,.6,.9]

The demo of airlines on one thread: once without budgets, then with a limit on energy of so large a
share of what each one took. Printed
are ratios: what was spent over the limit, and of the limit a look at the validation data and a step
    of the first run; beside them the loss
on the own test data. Target: overrun by one step at most.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common.command import tequio
from tequio.ledger.record import Ledger
from tequio.participant.accounts import read_account_books


def spent(run: Path) -> dict[str, dict[str, float]]:
    """Joules by kind of work, and the dearest look, of each participant."""
    out: dict[str, dict[str, float]] = {}
    for name, lines in read_account_books(run).items():
        row = out.setdefault(name, {"all": 0.0, "train": 0.0, "look": 0.0})
        for line in lines:
            row["all"] += line["joules"]
            row["train"] += line["joules"] if line["work"] == "train" else 0.0
            row["look"] = max(row["look"], line["joules"] if line["work"] == "evaluate" else 0.0)
    return out


def made(run: Path) -> tuple[dict[str, int], dict[str, Any]]:
    """Steps in the rounds, and the record of the personal model, of each."""
    with Ledger.open(run / "ledger.sqlite", read_only=True) as ledger:
        rows = [row for entry in ledger.entries("round") for row in entry.body["train"]]
        personal = {entry.body["name"]: entry.body for entry in ledger.entries("personal")}
    return {
        name: sum(row["steps"] for row in rows if row["name"] == name) for name in personal
    }, personal


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--participants", type=int, default=2)
    options.add_argument("--shares", default=".1,.3,.6,.9")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "fed"
        size = str(chosen.participants)
        tequio(
            "demo",
            "sentiment",
            "--prepare",
            "--participants",
            size,
            "--out",
            home,
            "--threads",
            "1",
        )

        def run(name: str) -> Path:
            tequio(
                "run",
                home / "federation.toml",
                "--out",
                home / name,
                "--threads",
                "1",
                "--workers",
                "1",
                "--no-counterfactuals",
            )
            return home / name

        whole, (steps, models) = spent(first := run("whole")), made(first)
        for name, body in models.items():
            print(
                f"without: {name:12} {steps[name]:4} steps, test loss "
                f"{body['test']['personal']['loss']:.4f}, {body['chosen']}"
            )
        files = {name: home / "participants" / f"{name}.toml" for name in models}
        texts = {name: file.read_text() for name, file in files.items()}
        for share in map(float, chosen.shares.split(",")):
            for name, file in files.items():
                file.write_text(
                    f"{texts[name]}\n[budget]\nkwh = {share * whole[name]['all'] / 3.6e6:.9g}\n"
                )
            took, (now, bodies) = spent(ran := run(f"share {share}")), made(ran)
            for name, body in bodies.items():
                limit = share * whole[name]["all"]
                step = whole[name]["train"] / max(1, steps[name])
                print(
                    f"{share:7.2f}: {name:12} {now[name]:4} steps, test loss "
                    f"{body['test']['personal']['loss']:.4f}, {body['chosen']}; spent ÷ limit "
                    f"{took[name]['all'] / limit:.3f}, a look {whole[name]['look'] / limit:.3f}, "
                    f"a step {step / limit:.3f}"
                )
                print(f"         {json.dumps(body.get('cut', 'whole'))}")


if __name__ == "__main__":
    main()
