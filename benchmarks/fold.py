"""How fast does the coordinator add up? 100 updates of rank 16 of SmolLM2's query and value layers,
stacked and folded, beside reading
their bytes from memory once, and beside the products that an exact sum needs. Processor time, one
thread, least of three.

Run: python -m benchmarks.fold [--updates 100] [--rank 16]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from tequio.cli.environment import prepare_process

prepare_process()

import torch

from tequio.algorithms.registry import reduce_by_name
from tequio.core.canonical import pack, unpack
from tequio.core.update import Factored, Update

SHAPES = {
    f"{layer}.{name}": (rows, 576)
    for layer in range(30)
    for name, rows in (("q_proj", 576), ("v_proj", 192))
}


def least(run: Callable[[], Any]) -> float:
    found = []
    for _ in range(3):
        begin = time.process_time()
        run()
        found.append(time.process_time() - begin)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--rank", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)

    def made() -> Update:
        r = arguments.rank
        sizes = SHAPES.items()
        return Update(
            {
                k: Factored(torch.randn(m, r, generator=draw), torch.randn(r, n, generator=draw))
                for k, (m, n) in sizes
            }
        )

    updates = [made() for _ in range(arguments.updates)]
    factors = [e for u in updates for e in u.entries.values() if isinstance(e, Factored)]
    messages = [pack(update) for update in updates]
    reduce = reduce_by_name("stack")

    def folded() -> None:
        total = reduce.init("")
        for update in updates:
            total = reduce.add(total, update, 0.01)

    def products() -> None:
        stacks = [
            (
                torch.ones(m, arguments.rank * arguments.updates),
                torch.ones(arguments.rank * arguments.updates, n),
            )
            for m, n in SHAPES.values()
        ]
        for b, a in stacks:
            torch.mm(b, a)

    reading = least(lambda: [(f.b.sum(), f.a.sum()) for f in factors])
    print(f"{sum(map(len, messages)) / 1e6:.0f} MB; read once: {reading:.3f} s")
    for name, run in (
        ("decode", lambda: [unpack(message, "a message") for message in messages]),
        ("norm", lambda: [update.norm() for update in updates]),
        ("fold", folded),
        ("all ranks in one product a layer", products),
    ):
        took = least(run)
        print(f"{name}: {took:.3f} s, {took / reading:.1f} times reading")


if __name__ == "__main__":
    main()
