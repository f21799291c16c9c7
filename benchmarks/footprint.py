"""How much memory does a LoRA step take?

Peak of a process of its own that loads a random Llama of a billion parameters and makes two steps
of 4 × 128 tokens: the plain bfloat16 loop of transformers and peft, and Tequio's.

Run: python -m benchmarks.footprint [--batch 4] [--length 128] [--threads 2]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tequio.cli.environment import prepare_process

prepare_process()

import torch

from benchmarks.common.memory import peak_bytes
from benchmarks.roofline import Work, our_arm, plain_arm, work_of
from tequio.participant.text_tasks import Item

SIZES = {
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "intermediate_size": 8192,
    "max_position_embeddings": 2048,
}
HEADS = {"num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True}
ARMS = ("plain bfloat16", "tequio")


def prepare(folder: Path) -> int:
    """Random weights in bfloat16, and SmolLM2's tokenizer; returns the number of parameters."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(work_of("smollm2", None, 1).folder)
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES, **HEADS))
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def one(arm: str, folder: str, batch: int, length: int) -> None:
    draw = torch.Generator().manual_seed(0)
    rows = [
        tuple(torch.randint(0, 40_000, (length,), generator=draw).tolist()) for _ in range(batch)
    ]
    work = Work(
        "1B",
        "causal",
        folder,
        ["q_proj", "v_proj"],
        batch,
        length,
        [[Item(row, row) for row in rows]],
    )
    step = (
        plain_arm(work, torch.bfloat16)[0]
        if arm == "plain bfloat16"
        else our_arm(work, torch.bfloat16)[0]
    )
    loaded = peak_bytes()
    losses = [step(0), step(0)]
    print(
        f"{arm}: {loaded / 2**30:.2f} GiB when loaded, peak {peak_bytes() / 2**30:.2f} GiB, losses "
        f"{losses}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", nargs=2, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.one:
        one(arguments.one[0], arguments.one[1], arguments.batch, arguments.length)
        return
    sizes = [
        "--batch",
        str(arguments.batch),
        "--length",
        str(arguments.length),
        "--threads",
        str(arguments.threads),
    ]
    with tempfile.TemporaryDirectory() as name:
        print(
            f"{prepare(Path(name)) / 1e9:.2f} billion parameters, {arguments.batch} × "
            f"{arguments.length} tokens",
            flush=True,
        )
        for arm in ARMS:
            command = [sys.executable, "-m", "benchmarks.footprint", "--one", arm, name, *sizes]
            subprocess.run(command, check=True, env=os.environ)


if __name__ == "__main__":
    main()
