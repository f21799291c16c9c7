"""Floating-point operations a token that a plan counts from a model's shape, against those that
torch counts, on whatever device is here.

    python -m benchmarks.operations [--models minilm,smollm2,llama1b] [--length 256]

Random bases in known shapes, transformers with plain attention and peft's adapters: torch's counter
does not see all that the layers of Tequio's own do, which make the same products. Target: within 2
%.
"""

from __future__ import annotations

import argparse
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tequio.cli.environment import prepare_process

prepare_process()

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.made import SHAPES, make_base, make_model
from tequio.participant.base import best_device, best_dtype, model_shape
from tequio.planning.flops import forward, training

RANK, ROWS = 16, 4


def counted(run: Callable[[], Tensor]) -> tuple[float, float]:
    """Operations of a loss, and of it and its backward pass."""
    with FlopCounterMode(display=False) as first:
        loss = run()
    with FlopCounterMode(display=False) as second:
        loss.backward()  # type: ignore[no-untyped-call]
    ahead = float(first.get_total_flops())
    return ahead, ahead + float(second.get_total_flops())


def plain(name: str, length: int) -> tuple[float, float]:
    """Transformers, eager attention, peft."""
    from peft import LoraConfig, get_peft_model

    shape = SHAPES[name]
    settings = LoraConfig(r=RANK, target_modules=shape.modules)
    model: Any = get_peft_model(
        make_model(name, attn_implementation="eager"), settings, autocast_adapter_dtype=False
    )
    ids = torch.randint(5, shape.tokens, (ROWS, length), device=best_device())

    def loss() -> Tensor:
        out = model(input_ids=ids)
        whole: Tensor = (
            (out.logits if shape.kind == "causal" else out.last_hidden_state)
            .float()
            .square()
            .mean()
        )
        return whole

    return counted(loss)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="minilm,smollm2,llama1b")
    parser.add_argument("--length", type=int, default=256)
    given = parser.parse_args()
    print(
        f"{best_device()}, torch {torch.__version__}; a token, in MFLOP; torch's count ÷ the "
        "plan's (target 0.98 to 1.02)"
    )
    print(
        "| model | forward, plan | torch ÷ plan | a step, plan | torch ÷ plan "
        "|\n|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in given.models.split(","):
            try:
                home, shape = str(make_base(name, Path(folder))), SHAPES[name]
                sizes = model_shape(home, shape.kind, shape.modules, best_dtype(), Path(folder))
            except Exception:
                traceback.print_exc()
                continue
            said = [f(sizes, given.length, RANK) for f in (forward, training)]
            cells = [x / ROWS / given.length for x in plain(name, given.length)]
            print(
                f"| {name} | {said[0] / 1e6:.2f} | {cells[0] / said[0]:.4f} "
                f"| {said[1] / 1e6:.2f} | {cells[1] / said[1]:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
