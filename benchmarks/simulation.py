"""What does simulating a federation cost beside the loop everybody writes? 20 participants × 5
rounds × 4 steps of 4 × 64 tokens, a Llama
of ten million parameters, LoRA of rank 8, factors averaged (FedIT): wall time and peak memory ÷
those of a plain float32 loop.

The plain loop: transformers and peft, one model, factors in and out for each participant,
everybody's validation after each round. Both read the same files through Tequio's own splits, make
the same steps with the same rates, and print the last validation loss. Each arm is a process of its
own; wall time begins when everything is imported. Targets: time ≤ .6, memory ≤ 1.2, loss within .5
%. Processor time is of the process from then on: all rounds with their validation, and loading.

With adapters on all seven linear layers, and an arm in which oneDNN keeps another number of
prepared products: python -m benchmarks.simulation --threads 1 --modules q_proj k_proj v_proj o_proj
gate_proj up_proj down_proj --cached 16

Run: python -m benchmarks.simulation [--pairs 5] [--threads 2] [--modules q_proj v_proj] [--cached
16] [--arms plain tequio]
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
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tequio.cli.environment import prepare_process

prepare_process()

import torch
from torch import Tensor

from benchmarks.common.memory import peak_bytes
from benchmarks.study.base import base_text, byte_tokenizer
from tequio.app.assembly.algorithm import resolve_algorithm
from tequio.app.assembly.build import build
from tequio.app.simulation.parallelism import choose_workers, side_by_side
from tequio.config import Federation, load_federation
from tequio.config.templates import write_federation
from tequio.coordinator.federate import federate, star
from tequio.core.seeds import derive
from tequio.ledger.record import Ledger
from tequio.participant.base import PRODUCT_CACHE
from tequio.participant.text_tasks import batches, by_length, pad
from tequio.runtimes.embedded import Embedded

PEOPLE, ROUNDS, STEPS, BATCH, LENGTH, RANK, RATE = 20, 5, 4, 4, 64, 8, 3e-3


def prepare(folder: Path, modules: Sequence[str]) -> Path:
    """Write the model with random weights, the texts and the configuration with LoRA on
    `modules`.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer()
    sizes = {
        "hidden_size": 320,
        "num_hidden_layers": 8,
        "intermediate_size": 864,
        "max_position_embeddings": 128,
    }
    heads = {"num_attention_heads": 5, "num_key_value_heads": 5, "tie_word_embeddings": True}
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
        **sizes,
        **heads,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    text, people = base_text(), []
    for i in range(PEOPLE):
        own = text[i * 8000 : (i + 1) * 8000]
        rows = [{"text": own[k : k + 400]} for k in range(0, len(own), 400)]
        path = folder / f"p{i}.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        data = {"path": str(path), "max_validation": 1}
        people.append({"name": f"p{i}", "data": data, "hardware": {"max_rank": RANK}})
    train = {
        "rounds": ROUNDS,
        "batch_size": BATCH,
        "max_steps": STEPS,
        "learning_rate": RATE,
        "final_rate": 1.0,
    }
    sections: dict[str, Any] = {
        "name": "simulation",
        "base": {"model": str(folder / "model")},
        "task": {"kind": "causal", "max_tokens": LENGTH},
        "adapter": {"modules": list(modules), "ranks": [RANK], "scale": 2.0},
        "train": {**train, "patience": 99},
        "algorithm": {"reduce": "fedit", "weights": "uniform"},
    }
    return write_federation(folder, sections, people)


def tequio(config: Federation, folder: Path, lockstep: int = 1) -> float:
    """Through the embedded runtime, workers chosen, with a ledger."""
    count = choose_workers(config, resolve_algorithm(config), 0)
    w = build(config)
    places = side_by_side(w, count)
    others = tuple(place.nodes for place in places[1:])
    runtime = Embedded(places[0].nodes, None, others, lockstep)
    loss = float("nan")
    with Ledger.create(folder / f"ledger-{os.getpid()}.sqlite", dict(w.header)) as ledger:
        for state, _body in federate(star(w.run_spec, runtime), ledger, w.meter):
            loss = statistics.fmean(state.losses.values())
    return loss


def plain(config: Federation, folder: Path) -> float:
    """What one writes by hand."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from tequio.app.assembly.build import read_participants
    from tequio.app.assembly.context import build_task

    loaded = AutoModelForCausalLM.from_pretrained(config.base.model, dtype=torch.float32)
    tokenizer = byte_tokenizer()
    task = build_task(config, type("Base", (), {"tokenizer": tokenizer})())
    splits = [splits for _, splits in read_participants(config).values()]
    data = [(task.encode(s.train, "x")[0], task.encode(s.validation, "x")[0]) for s in splits]
    settings = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=config.adapter.modules)
    model: Any = get_peft_model(loaded, settings)
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    held = {name: p.detach().clone() for name, p in own.items()}
    cpu = torch.device("cpu")

    def loss_of(items: list[Any]) -> Tensor:
        ids, mask = pad([i.ids for i in items], 0, cpu)
        labels = ids.masked_fill(mask == 0, -100)
        loss: Tensor = model(
            input_ids=ids, attention_mask=mask, labels=labels, use_cache=False
        ).loss
        return loss

    def validate() -> float:
        losses = []
        model.eval()
        with torch.inference_mode():
            for _, items in data:
                total = count = 0.0
                for where in by_length(items, 1024):
                    targets = sum(len(items[i].ids) - 1 for i in where)
                    total += float(loss_of([items[i] for i in where])) * targets
                    count += targets
                losses.append(total / count)
        return statistics.fmean(losses)

    loss = validate()
    for round_ in range(1, ROUNDS + 1):
        mean = {name: torch.zeros_like(t) for name, t in held.items()}
        for i, (items, _) in enumerate(data):
            with torch.no_grad():
                for name, p in own.items():
                    p.copy_(held[name])
            model.train()
            optimizer = torch.optim.AdamW(own.values(), lr=RATE, weight_decay=0.0)
            stream = batches(items, BATCH, derive(config.seed, "train", round_, i + 1))
            for _ in range(STEPS):
                loss_of(next(stream)).backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(own.values(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
            for name, p in own.items():
                mean[name] += p.detach() / PEOPLE
        held = mean
        with torch.no_grad():
            for name, p in own.items():
                p.copy_(held[name])
        loss = validate()
    return loss


ARMS: dict[str, Callable[[Federation, Path], float]] = {
    "plain": plain,
    "tequio": tequio,
    "lock-step": partial(tequio, lockstep=4),
}


def one(arm: str, path: Path, threads: int) -> None:
    import peft  # noqa: F401  both arms import the same
    import transformers  # noqa: F401

    torch.set_num_threads(threads)
    config = load_federation(path)
    begin, cpu = time.perf_counter(), time.process_time()
    loss = ARMS[arm](config, path.parent)
    wall, processor = time.perf_counter() - begin, time.process_time() - cpu
    print(json.dumps({"wall": wall, "cpu": processor, "peak": peak_bytes() / 2**20, "loss": loss}))


def measured(arm: str, path: Path, threads: int, cached: str | None) -> dict[str, float]:
    """Run an arm in a process of its own, in which oneDNN keeps `cached` products;

    None leaves the number to the arm.
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.simulation",
        "--one",
        arm,
        str(path),
        "--threads",
        str(threads),
    ]
    environment = os.environ if cached is None else {**os.environ, PRODUCT_CACHE: cached}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--modules", nargs="+", default=["q_proj", "v_proj"])
    parser.add_argument(
        "--cached",
        nargs="+",
        default=[],
        help="one more arm per number: tequio with so many products cached",
    )
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--one", nargs=2, default=None)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one[0], Path(arguments.one[1]), arguments.threads)
        return
    arms: dict[str, tuple[str, str | None]] = {arm: (arm, None) for arm in arguments.arms}
    arms |= {f"tequio, {cached} products": ("tequio", cached) for cached in arguments.cached}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in arms}
    with tempfile.TemporaryDirectory() as folder:
        path = prepare(Path(folder), arguments.modules)
        for turn in range(arguments.pairs):
            for name, runs in found.items():
                runs.append(measured(arms[name][0], path, arguments.threads, arms[name][1]))
                shown = ", ".join(f"{key} {value:.4g}" for key, value in runs[-1].items())
                print(f"turn {turn + 1}, {name}: {shown}", flush=True)
    first, *others = found
    for name in others:
        pairs = list(zip(found[first], found[name], strict=True))
        keys = pairs[0][0].keys()
        medians = ", ".join(
            f"{key} {statistics.median(b[key] / a[key] for a, b in pairs):.3f}" for key in keys
        )
        print(f"{name} ÷ {first}, medians of {len(pairs)}, {arguments.threads} threads: {medians}")


if __name__ == "__main__":
    main()
