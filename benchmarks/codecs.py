"""What does each codec cost and save?

Bytes, relative error and MB/s on a rank-16 update of SmolLM2-135M's query and value projections
(30 layers; query 576 × 576, value 192 × 576), one thread. Made-up numbers: normal, with rank
vectors of unequal length, as SVDs leave them.

Run: python benchmarks/codecs.py [--repeats 5]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from typing import Any

import torch

from tequio.algorithms.compress.codec import Codec
from tequio.algorithms.registry import COMPRESS
from tequio.core.canonical import to_tensors
from tequio.core.seeds import derive
from tequio.core.update import Factored, Update

LAYERS, WIDTH, RANK, OUTPUTS = 30, 576, 16, {"q_proj": 576, "v_proj": 192}
CODECS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("plain", {}),
    ("half", {}),
    ("half", {"form": "bf16"}),
    ("quantise", {"bits": 8}),
    ("quantise", {"bits": 4}),
    ("quantise", {"bits": 4, "rotate": True}),
    ("quantise", {"bits": 2}),
    ("quantise", {"bits": 2, "rotate": True}),
    ("eden", {"bits": 4}),
    ("eden", {"bits": 2}),
    ("eden", {"bits": 1}),
    ("topk", {"density": 0.1, "bits": 4}),
    ("topk", {"density": 0.03, "bits": 2}),
    ("topk", {"density": 0.01, "bits": 2}),
)


def smollm2(seed: int = 0) -> Update:
    """B falls off as 1/√k over its columns k = 1 … 16; A has unit rows times .02."""
    g = torch.Generator().manual_seed(seed)
    fall = torch.arange(1, RANK + 1).float().rsqrt() * 1e-3
    entries = {
        f"model.layers.{layer}.self_attn.{part}": Factored(
            torch.randn(outputs, RANK, generator=g) * fall,
            torch.randn(RANK, WIDTH, generator=g) * 0.02,
        )
        for layer in range(LAYERS)
        for part, outputs in OUTPUTS.items()
    }
    return Update(entries, f"{derive(seed, 'spec'):064x}")


def error_of_factors(update: Update, arrived: Update) -> float:
    """Root of the mean over A's and B's of ‖x̂ − x‖² / ‖x‖²."""
    theirs = to_tensors(arrived)
    squares = [
        float(((theirs[n] - x).norm() / x.norm()) ** 2) for n, x in to_tensors(update).items()
    ]
    return math.sqrt(statistics.mean(squares))


def measured(codec: Codec, update: Update, repeats: int) -> tuple[int, float, float, float, float]:
    """(bytes, error of the factors, error of the product, float32 MB/s to encode, to decode);
    medians.
    """
    coding, decoding = [], []
    for seed in range(repeats):
        start = time.perf_counter()
        data = codec.encode(update, seed)
        middle = time.perf_counter()
        arrived = codec.decode(data, "own bytes")
        coding.append(middle - start)
        decoding.append(time.perf_counter() - middle)
    size = update.nbytes() / 1e6
    product = arrived.minus(update).norm() / update.norm()
    rates = size / statistics.median(coding), size / statistics.median(decoding)
    return len(data), error_of_factors(update, arrived), product, *rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    update = smollm2()
    print(f"{update.nbytes():,} bytes of float32, {2 * len(update.entries)} tensors")
    head = f"{'codec':<34}{'bytes':>10}{'÷':>8}{'error A, B':>12}{'error BA':>10}{'encode MB/s':>13}{'decode MB/s':>13}"
    print(head)
    for name, settings in CODECS:
        size, factors, product, coding, decoding = measured(
            COMPRESS[name](**settings), update, repeats
        )
        label = f"{name} {' '.join(f'{k}={v}' for k, v in settings.items())}"
        ratio = update.nbytes() / size
        print(
            f"{label:<34}{size:>10,}{ratio:>8.1f}{factors:>12.4f}{product:>10.4f}{coding:>13.0f}{decoding:>13.0f}"
        )


if __name__ == "__main__":
    main()
