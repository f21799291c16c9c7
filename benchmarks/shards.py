"""What does a base in shards save each of two processes, and what does it cost?

Peak memory over the start, and seconds a step.

A random Llama (float32) is trained with LoRA on q_proj and v_proj by two CPU processes (gloo), the
base whole in each, then in shards; the arms take turns. Printed of the first process: memory beyond
its start when the base is loaded, its peak while that was loaded and while it trained and looked at
validation data, resident and anonymous (whole weights are mapped files, which two processes of one
machine share).

Run: python -m benchmarks.shards [--turns 3] [--layers 16] [--hidden 1024] [--length 64]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tequio.cli.environment import prepare_process

prepare_process()

import torch

from benchmarks.common.memory import Watch
from tequio.participant.adapted_model import AdaptedModel
from tequio.participant.base import load_base
from tequio.participant.evaluation import evaluate_losses
from tequio.participant.loop import train
from tequio.participant.process_group import ALONE, join_process_group
from tequio.participant.text_tasks import Causal, Item, batches

ARMS = ("whole", "shards")
WORDS, BATCH, STEPS = 16_000, 4, 6


def prepare(folder: Path, layers: int, hidden: int) -> int:
    """Random weights in float32, and a tokenizer of five words; returns the number of
    parameters.
    """
    from tokenizers import Tokenizer, models
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    sizes = {
        "hidden_size": hidden,
        "intermediate_size": 11 * hidden // 4,
        "num_hidden_layers": layers,
    }
    heads = {"num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 128}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, **sizes, **heads))
    model.save_pretrained(folder)
    words = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", "a", "b"])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def one(arm: str, folder: str, length: int) -> None:
    """One process's part of an arm."""
    torch.set_num_threads(1)
    with join_process_group() as together:
        loading = Watch()
        base = load_base(
            folder, "causal", torch.float32, Path(folder), together if arm == "shards" else ALONE
        )
        adapted = AdaptedModel(base, ["q_proj", "v_proj"], 2.0)
        task = Causal(base.tokenizer, length)
        draw = torch.Generator().manual_seed(0)
        rows = [
            tuple(torch.randint(0, WORDS, (length,), generator=draw).tolist())
            for _ in range(8 * BATCH)
        ]
        items = [Item(row, row) for row in rows]
        time.sleep(0.1)
        begun, loaded = loading.start, loading.end()
        working = Watch()
        parameters, stream, seconds = adapted.attach(8, 0), batches(items, BATCH, 0), []
        for _ in range(STEPS):
            start = time.perf_counter()
            made = train(adapted, task, parameters, stream, [1e-3], "one", together=together)
            seconds.append(time.perf_counter() - start)
        loss = evaluate_losses(task, adapted, items, together).scores().loss
        now, more = working.start, working.end()
        row = {"seconds": median(seconds[1:]), "loss": loss, "last": made.loss_last}
        for i, kind in enumerate(("anonymous", "resident")):
            row |= {
                f"loaded {kind}": (now[i] - begun[i]) / 2**20,
                f"loading {kind}": loaded[i] / 2**20,
            }
            row |= {f"training {kind}": (now[i] - begun[i] + more[i]) / 2**20}
        if together.rank == 0:
            print("ROW " + json.dumps(row), flush=True)


def run(arm: str, folder: str, length: int) -> dict[str, float]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [
        sys.executable,
        *launcher,
        "-m",
        "benchmarks.shards",
        "--one",
        arm,
        folder,
        "--length",
        str(length),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    row: dict[str, float] = json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith("ROW "))[4:]
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--one", nargs=2, default=None)
    a = parser.parse_args()
    if a.one:
        one(a.one[0], a.one[1], a.length)
        return
    with tempfile.TemporaryDirectory() as name:
        print(
            f"{prepare(Path(name), a.layers, a.hidden) / 1e6:.0f} million parameters, {BATCH} × "
            f"{a.length} tokens"
        )
        found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
        for _ in range(a.turns):
            for arm in ARMS:
                found[arm].append(run(arm, name, a.length))
    for key in found["whole"][0]:
        whole, shards = (median(row[key] for row in found[arm]) for arm in ARMS)
        print(f"{key:20} whole {whole:9.3f}  shards {shards:9.3f}  ratio {shards / whole:.2f}")


if __name__ == "__main__":
    main()
