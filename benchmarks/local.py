"""What does each local term or method cost, and what does it do?

The sentiment demo, one seed, the same rounds for every arm.

For every arm: processor time of a round's training, and after the last round the mean validation
loss of the participants and the share of wrong answers on the public slices. No arm is tuned: a
look, not a comparison of methods. Run: python benchmarks/local.py [--rounds 3] [--steps 8] [--seed
0] [--arms plain kl:0.1 …]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tequio.cli.environment import prepare_process

prepare_process()

import torch

from tequio.app.assembly.algorithm import build_local
from tequio.app.assembly.build import build
from tequio.app.demos.catalogue import write_demo
from tequio.config import LocalSection, load_federation
from tequio.coordinator.round import open_state, run_round
from tequio.runtimes.embedded import Embedded

ARMS = ["plain", "fedprox:0.1", "kl:0.1", "kl:0.5", "replay:0.1", "transfer:0.3", "fomaml:0.1"]


def section(arm: str) -> LocalSection:
    """`plain`, `TERM:STRENGTH` or `fomaml:INNER_RATE` as a configuration."""
    name, _, number = arm.partition(":")
    if name == "plain":
        return LocalSection()
    if name == "fomaml":
        return LocalSection(method=name, method_settings={"inner_rate": float(number)})
    return LocalSection(terms={name: float(number)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", default=ARMS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path, _ = write_demo(
        "sentiment", Path(tempfile.mkdtemp(prefix="tequio-bench-")), arguments.seed
    )
    config = load_federation(path)
    train = config.train.model_copy(
        update={"rounds": arguments.rounds, "max_steps": arguments.steps}
    )
    everything = LocalSection(
        terms={"kl": 0.1, "transfer": 0.1}
    )  # public text is read; each arm chooses its own
    setup = build(config.model_copy(update={"train": train, "local": everything}))
    print(
        "| arm | processor s a round | validation loss | wrong on public slices "
        "|\n|---|---|---|---|",
        flush=True,
    )
    for arm in arguments.arms:
        chosen = section(arm)
        run_spec = replace(
            setup.run_spec, local=build_local(chosen.terms, chosen.method, chosen.method_settings)
        )
        state, opening = open_state(run_spec, Embedded(setup.nodes))
        begin = time.process_time()
        for _ in range(run_spec.rounds):
            state, body = run_round(state, run_spec, Embedded(setup.nodes))
        seconds = (time.process_time() - begin) / run_spec.rounds
        wrong = statistics.fmean(gate["candidate"] for gate in body["gate"].values())
        if arm == arguments.arms[0]:
            base = statistics.fmean(slice_["loss"] for slice_ in opening["slices"].values())
            print(f"| (base) | | {opening['mean_validation_loss']:.4f} | {base:.3f} |", flush=True)
        print(
            f"| {arm} | {seconds:.1f} | {body['mean_validation_loss']:.4f} | {wrong:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
