"""What does Tequio cost over a plain loop?

Wall time of the embedded run ÷ a hand-written loop with the same maths (target ≤ 1.05), and
peak memory with 200 participants ÷ with 2 (target ≤ 1.1). MiniLM, classification, ranks 2 to 16;
medians of paired runs in one process.

Run: python -m benchmarks.overhead [--pairs 5]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tequio.cli.environment import prepare_process

prepare_process()

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.common.memory import peak_bytes
from tequio.app.assembly.build import build
from tequio.app.assembly.setup import RunSetup
from tequio.app.demos.fetch import minilm
from tequio.config import load_federation
from tequio.config.cache import cache_folder
from tequio.config.templates import write_federation
from tequio.coordinator.federate import federate, star
from tequio.core.seeds import derive
from tequio.core.update import plain, zero
from tequio.ledger.record import Ledger
from tequio.runtimes.embedded import Embedded

WORDS = (
    "the",
    "flight",
    "was",
    "late",
    "crew",
    "kind",
    "bag",
    "came",
    "first",
    "today",
    "thank",
    "you",
    "very",
    "much",
)


def federation(folder: Path, participants: int, rows: int, rounds: int, max_steps: int) -> Path:
    """A federation on made-up sentences (the cost does not depend on what they say) with the real
    MiniLM.
    """
    rng = torch.Generator().manual_seed(0)
    people: list[dict[str, Any]] = []
    for i in range(participants):
        lines = []
        for k in range(rows):
            pick = torch.randint(0, len(WORDS), (20,), generator=rng).tolist()
            lines.append(
                json.dumps(
                    {"text": f"{i} {k} " + " ".join(WORDS[j] for j in pick), "label": "ab"[k % 2]}
                )
            )
        path = folder / "data" / f"p{i}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines))
        people.append(
            {
                "name": f"p{i}",
                "data": {"path": str(path)},
                "hardware": {"max_rank": (16, 2, 4, 8)[i % 4]},
            }
        )
    sections: dict[str, Any] = {
        "name": "overhead",
        "base": {"model": str(minilm(cache_folder()))},
        "task": {"kind": "classification", "max_tokens": 32, "labels": {"a": "good", "b": "bad"}},
        "adapter": {"modules": ["query", "value"]},
        "train": {
            "rounds": rounds,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "max_steps": max_steps,
            "patience": 99,
        },
        "algorithm": {"weights": "uniform", "broadcast_rank": 64},
    }
    return write_federation(folder, sections, people)


class PlainLora(nn.Module):
    """What one writes by hand: y = Wx + b + s·B(Ax)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.start, self.weight, self.bias = weight, weight, bias
        self.a: nn.Parameter | None = None
        self.b: nn.Parameter | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        if self.a is None or self.b is None:
            return y
        return y + F.linear(F.linear(x, self.a.to(x.dtype)), (self.b * 2.0).to(x.dtype))


def plain_loop(w: RunSetup) -> dict[str, Tensor]:
    """Rounds, participants, steps; the mean of B·A folded into the weights; validation after each
    round.

    Nothing else.
    """
    model, run_spec = w.adapted.model, w.run_spec
    layers = {}
    for name, old in w.adapted.layers.items():
        parent, _, leaf = name.rpartition(".")
        layers[name] = PlainLora(old.original, old.bias)
        setattr(model.get_submodule(parent), leaf, layers[name])
    totals = {name: torch.zeros(shape) for name, shape in run_spec.shapes.items()}
    head = {name: t.clone() for name, t in w.adapted.head_start.items()}
    tokenizer: Any = w.adapted.base.tokenizer

    def logits(items: list[Any], held: dict[str, Any]) -> tuple[Tensor, Tensor]:
        longest = max(len(i.ids) for i in items)
        ids = torch.tensor(
            [list(i.ids) + [tokenizer.pad_token_id] * (longest - len(i.ids)) for i in items]
        )
        mask = torch.tensor([[1] * len(i.ids) + [0] * (longest - len(i.ids)) for i in items])
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weight = mask.unsqueeze(-1).float()
        pooled = F.normalize((hidden * weight).sum(1) / weight.sum(1), dim=-1)
        return F.linear(pooled * 10.0, held["head.weight"], held["head.bias"]), torch.tensor(
            [i.target[0] for i in items]
        )

    from tequio.participant.text_tasks import (
        batches,
        by_length,
    )  # the order of batches is part of the maths

    def evaluate() -> None:
        with torch.inference_mode():
            for member in run_spec.members:
                items = w.nodes[member.index].data.validation
                for where in by_length(items, 2048):
                    out, truth = logits([items[i] for i in where], head)
                    F.cross_entropy(out, truth, reduction="none").double().numpy()

    evaluate()
    for round_ in range(1, run_spec.rounds + 1):
        change = {name: torch.zeros_like(t) for name, t in totals.items()}
        heads = {name: torch.zeros_like(t) for name, t in head.items()}
        for member in run_spec.members:
            seed = derive(run_spec.seed, "train", round_, member.index)
            generator = torch.Generator().manual_seed(seed)
            own = {name: nn.Parameter(t.clone()) for name, t in head.items()}
            for layer in layers.values():
                m, n = layer.weight.shape
                layer.a = nn.Parameter(
                    (torch.rand(member.rank, n, generator=generator) * 2 - 1) / n**0.5
                )
                layer.b = nn.Parameter(torch.zeros(m, member.rank))
            parameters = [
                p for layer in layers.values() for p in (layer.a, layer.b) if p is not None
            ] + list(own.values())
            optimizer = torch.optim.AdamW(
                parameters, lr=run_spec.rate(round_), weight_decay=0.0, foreach=True
            )
            stream = batches(w.nodes[member.index].data.train, 8, seed)
            for _ in range(member.steps):
                with sdpa_kernel(
                    [SDPBackend.MATH]
                ):  # the faster kernel here, as in ours: only the framework is measured
                    out, truth = logits(next(stream), own)
                loss = F.cross_entropy(out, truth)
                if not torch.isfinite(loss):
                    raise ValueError("NaN")
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            for name, layer in layers.items():
                if layer.a is not None and layer.b is not None:
                    change[name] += (layer.b.detach() * 2.0) @ layer.a.detach()
                layer.a = layer.b = None
            for name, parameter in own.items():
                heads[name] += parameter.detach() - head[name]
        for name, layer in layers.items():
            totals[name] += change[name] / len(run_spec.members)
            layer.weight = (layer.start.float() + totals[name]).to(layer.start.dtype)
        head = {name: t + heads[name] / len(run_spec.members) for name, t in head.items()}
        evaluate()
    for name, old in w.adapted.layers.items():
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, old)
    return totals


def embedded(w: RunSetup, folder: Path) -> dict[str, Tensor]:
    """The same through Tequio: tasks, admission, streaming reduce, checkpoint and ledger of every
    round.
    """
    with Ledger.create(folder / "ledger.sqlite", dict(w.header)) as ledger:
        shared = zero(w.run_spec.spec)
        for state, _body in federate(star(w.run_spec, Embedded(w.nodes)), ledger, w.meter):
            shared = state.shared
    return {name: plain(entry) for name, entry in shared.entries.items()}


def time_ratio(pairs: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        w = build(load_federation(federation(Path(name), 6, 160, 3, 12)))
        ratios, cpu, gap = [], [], 0.0
        for pair in range(pairs + 1):
            folder = Path(name) / f"run{pair}"
            folder.mkdir()
            begin, begin_cpu = time.perf_counter(), time.process_time()
            by_hand = plain_loop(w)
            middle, middle_cpu = time.perf_counter(), time.process_time()
            ours = embedded(w, folder)
            end, end_cpu = time.perf_counter(), time.process_time()
            if pair:  # the first pair warms up
                ratios.append((end - middle) / (middle - begin))
                cpu.append((end_cpu - middle_cpu) / (middle_cpu - begin_cpu))
                print(
                    f"pair {pair}: plain {middle - begin:.2f} s, embedded {end - middle:.2f} s, "
                    f"ratio {ratios[-1]:.3f}",
                    flush=True,
                )
            gap = max(float((by_hand[n] - ours[n]).norm() / by_hand[n].norm()) for n in by_hand)
        print(
            f"wall time embedded ÷ plain: median {statistics.median(ratios):.3f} (target ≤ 1.05), "
            f"of {pairs} pairs"
        )
        print(f"CPU time embedded ÷ plain: median {statistics.median(cpu):.3f}")
        print(f"same maths: the two shared updates differ by {gap:.1e} of their norm")


def peak(participants: int, rounds: int) -> float:
    """Peak resident memory in MiB of a run of its own process."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.overhead",
        "--memory-of",
        str(participants),
        "--rounds",
        str(rounds),
    ]
    return float(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]
    )


def memory_of(participants: int, rounds: int) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        w = build(load_federation(federation(Path(name), participants, 40, rounds, 2)))
        embedded(w, Path(name))
    print(peak_bytes() / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--memory-of", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.memory_of:
        memory_of(arguments.memory_of, arguments.rounds)
        return
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    time_ratio(arguments.pairs)
    few, few_long, many = peak(2, 2), peak(2, 200), peak(200, 2)
    print(
        f"peak memory, MiB: 2 participants {few:.0f}; 200 participants {many:.0f}, ratio "
        f"{many / few:.3f} (target ≤ 1.1)"
    )
    print(
        f"  at equal work (2 participants, 100 times the rounds: {few_long:.0f}): ratio "
        f"{many / few_long:.3f}"
    )


if __name__ == "__main__":
    main()
