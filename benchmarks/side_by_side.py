"""What do participants cost that are trained in lock-step over one frozen base, beside one after
the other?

Random weights in the shape of a Llama of a billion parameters (`common/made.py`), made-up texts, N
participants with LoRA of unequal ranks on the products of attention, S steps each of B × L tokens.
Arms: the loop that everybody writes (transformers, peft and AdamW in bf16, adapters loaded one
after the other), Tequio one after the other in layers of transformers and in its own, and Tequio in
lock-step. All from the task to the update, on the best device there is; medians of pairs in one
process. Losses and updates of the last two are compared. Run: python -m benchmarks.side_by_side
[--people 16] [--steps 5] [--pairs 5] [--shape llama1b-32k]
"""

from __future__ import annotations

from tequio.cli.environment import prepare_process

prepare_process()

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.made import SHAPES, make_base, words
from tequio.app.assembly.build import build
from tequio.app.assembly.setup import RunSetup
from tequio.config import load_federation
from tequio.config.templates import write_federation
from tequio.core.types import Reply, TrainRequest
from tequio.core.update import zero
from tequio.participant.fused.select import Path as Layers
from tequio.participant.text_tasks import batches, pad
from tequio.runtimes.embedded import Embedded

MODULES = ["q_proj", "k_proj", "v_proj", "o_proj"]
RANKS, RATE = (4, 8, 16), 1e-3


def prepare(folder: Path, shape: str, people: int, batch: int, length: int, steps: int) -> Path:
    """Model, texts and configuration."""
    model, rows = make_base(shape, folder), batch * (steps + 2) + 8
    members = []
    for i in range(people):
        texts = [words(length, 1000 * i + k) for k in range(rows)]
        path = folder / f"p{i}.jsonl"
        path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
        data = {"path": str(path), "max_validation": 1, "max_test": 1}
        members.append(
            {"name": f"p{i}", "data": data, "hardware": {"max_rank": RANKS[i % len(RANKS)]}}
        )
    sections: dict[str, Any] = {
        "name": "side-by-side",
        "base": {"model": str(model), "dtype": "bfloat16"},
        "task": {"kind": "causal", "max_tokens": length},
        "adapter": {"modules": MODULES, "ranks": list(RANKS), "scale": 2.0},
        "train": {"rounds": 1, "batch_size": batch, "max_steps": steps, "learning_rate": RATE},
    }
    return write_federation(folder, sections, members)


def tasks_of(w: RunSetup, steps: int) -> list[TrainRequest]:
    nothing = zero(w.adapted.spec)
    return [
        TrainRequest(1, m.index, m.name, "product", m.rank, steps, RATE, 40 + m.index, nothing)
        for m in w.run_spec.members
    ]


def plain(w: RunSetup, steps: int) -> Callable[[], list[float]]:
    """The loop that everybody writes; everybody's last loss."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    device = w.adapted.device
    loaded = AutoModelForCausalLM.from_pretrained(w.config.base.model, dtype=torch.bfloat16).to(
        device
    )
    settings = LoraConfig(r=max(RANKS), lora_alpha=2 * max(RANKS), target_modules=MODULES)
    model: Any = get_peft_model(loaded, settings, autocast_adapter_dtype=False).train()
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    start = {name: p.detach().clone() for name, p in own.items()}

    def run() -> list[float]:
        last = []
        for index, node in w.nodes.items():
            with torch.no_grad():
                for name, p in own.items():
                    p.copy_(start[name])
            optimizer = torch.optim.AdamW(own.values(), lr=RATE, weight_decay=0.0)
            stream = batches(node.data.train, node.batch_size, 40 + index)
            for _ in range(steps):
                ids, mask = pad([item.ids for item in next(stream)], 0, device)
                labels = ids.masked_fill(mask == 0, -100)
                loss = model(
                    input_ids=ids, attention_mask=mask, labels=labels, use_cache=False
                ).loss
                loss.backward()
                torch.nn.utils.clip_grad_norm_(own.values(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            last.append(float(loss.detach()))
            for p in own.values():
                p.detach().cpu()
        return last

    return run


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds, peak GiB on the card (0 without one), and what came."""
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    found = work()
    if gpu:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0
    return time.perf_counter() - begin, peak, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--shape", choices=SHAPES, default="llama1b-32k")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as folder:
        toml = prepare(
            Path(folder), asked.shape, asked.people, asked.batch, asked.length, asked.steps
        )
        w = build(load_federation(toml))
        own, tasks = w.adapted.path, tasks_of(w, asked.steps)
        print(
            f"{w.adapted.device}, {asked.shape}, {asked.people} participants, {asked.steps} steps; "
            f"{own.why}"
        )

        def ours(layers: Layers, lockstep: int) -> Callable[[], Any]:
            def run() -> list[Any]:
                w.adapted.path = layers
                return list(Embedded(w.nodes, lockstep=lockstep).exchange(tasks))

            return run

        arms: dict[str, Callable[[], Any]] = {
            "plain loop": plain(w, asked.steps),
            "one by one, transformers": ours(replace(own, layers=None), 1),
            "one by one": ours(own, 1),
            "lock-step": ours(own, asked.people),
        }
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        peaks: dict[str, float] = {}
        last: dict[str, Any] = {}
        for pair in range(asked.pairs + 1):  # the first warms up
            for name, work in arms.items():
                took, peaks[name], last[name] = timed(work)
                seconds[name] += [took] if pair else []
        compare(last["one by one"], last["lock-step"])
        together = seconds["lock-step"]
        for name, all_of in seconds.items():
            times = statistics.median(a / b for a, b in zip(all_of, together, strict=True))
            each = 1000 * statistics.median(all_of) / asked.steps / asked.people
            print(
                f"{name:26} {each:8.2f} ms a step and participant, {times:5.2f} × lock-step, "
                f"{peaks[name]:.1f} GiB"
            )


def compare(alone: list[Any], together: list[Any]) -> None:
    """How far updates and losses are from each other."""
    gaps, losses = [], []
    for one, other in zip(alone, together, strict=True):
        assert isinstance(one, Reply), one
        assert isinstance(other, Reply), other
        assert one.update is not None
        assert other.update is not None
        gaps.append(float(one.update.minus(other.update).norm() / one.update.norm()))
        losses.append(abs(one.metrics["loss_last"] / other.metrics["loss_last"] - 1.0))
    print(
        f"lock-step beside one by one: updates differ by {max(gaps):.1e} of their norm, losses by "
        f"{max(losses):.1e}"
    )


if __name__ == "__main__":
    main()
