"""Local steps on MiniLM: how many per round, and made by which optimiser?

Every arm makes the same steps in all: fewer rounds of more steps, or more of fewer. Muon (MuLoCo,
arXiv 2505.23725) and steps that train B and A in turn (LA-LoRA, arXiv 2602.19926) replace AdamW
inside this file: neither is a part of Tequio. Run: python -m benchmarks.study.real_steps [WORLD]
[--seeds 0 1 2] [--only FAMILY…] [--out runs/real]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.study.coding import coded
from benchmarks.study.picture import Curve, picture
from benchmarks.study.real import Arm, Json, Made, compared, played, table, with_pieces, with_steps
from tequio.app.assembly.setup import RunSetup
from tequio.participant import loop

WORLDS = ("excavators",)
RATES = (6e-3,)  # the best of three for the average of 5 rounds
DEFAULT = "5 rounds"
NESTEROV = {"server": "nesterov", "server_settings": {"learning_rate": 0.7, "momentum": 0.6}}
HEAD = 2  # the last parameters: weight and bias of the head
HEAD_RATE = 6e-3  # of AdamW on the head, at the first round, beside Muon on the factors
MOMENTUM, SIZE = (
    0.95,
    0.2,
)  # of Muon; root mean square of a step over the rate, as AdamW's (Liu et al., arXiv 2502.16982)
SERIES = (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration (Jordan 2024)


def orthogonal(matrix: Tensor, iterations: int = 5) -> Tensor:
    """The nearest matrix with singular values of about 1, by Newton-Schulz; zeros stay zeros."""
    first, third, fifth = SERIES
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        square = x @ x.T
        x = first * x + (third * square + fifth * square @ square) @ x
    out: Tensor = x.T if tall else x
    return out


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum on each factor, and AdamW on the head, whose rate follows in
    proportion.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], rate: float) -> None:
        super().__init__(list(parameters[:-HEAD]), {"lr": rate})
        self.rate = rate
        self.head = torch.optim.AdamW(list(parameters[-HEAD:]), weight_decay=0.0)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step at the rate of the group."""
        rate = self.param_groups[0]["lr"]
        for p in self.param_groups[0]["params"]:
            if p.grad is None:
                continue
            momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
            momentum.mul_(MOMENTUM).add_(p.grad)
            p.add_(
                orthogonal(p.grad + MOMENTUM * momentum), alpha=-rate * SIZE * max(p.shape) ** 0.5
            )
        self.head.param_groups[0]["lr"] = HEAD_RATE * rate / self.rate
        self.head.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of factors and head."""
        super().zero_grad(set_to_none)
        self.head.zero_grad(set_to_none)


class Alternating(torch.optim.AdamW):
    """AdamW that moves B in odd steps and A in even ones, and the head in all; a factor at rest has
    no gradient.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__(list(parameters), weight_decay=0.0)
        factors = parameters[:-HEAD]
        self.parts, self.made = (factors[0::2], factors[1::2]), 0  # A, B

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of the factor whose turn it is."""
        for p in self.parts[self.made % 2]:
            p.grad = None
        super().step()
        self.made += 1


@contextmanager
def locally(optimizer: Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer]) -> Iterator[None]:
    """Inside, participants train with another optimiser than AdamW."""
    before = loop.adamw
    loop.adamw = optimizer  # type: ignore[assignment]
    try:
        yield
    finally:
        loop.adamw = before


def paced(rounds: int, **pieces: Any) -> Callable[[RunSetup, float], Made]:
    """Return what makes this many rounds; a participant makes as many steps in all as in the
    world's own federation.
    """

    def make(setup: RunSetup, rate: float) -> Made:
        plan = with_pieces(replace(setup.run_spec, learning_rate=rate), **pieces)
        return played(setup, replace(with_steps(plan, plan.rounds / rounds), rounds=rounds))

    return make


def muon(**pieces: Any) -> Callable[[RunSetup, float], Made]:
    """Make the world's rounds with Muon at home."""

    def make(setup: RunSetup, rate: float) -> Made:
        def optimizer(parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
            return Muon(parameters, rate)

        with locally(optimizer):
            return played(setup, with_pieces(replace(setup.run_spec, learning_rate=rate), **pieces))

    return make


def alternating(setup: RunSetup, rate: float) -> Made:
    """Make the world's rounds with B and A in turn."""
    with locally(Alternating):
        return played(setup, replace(setup.run_spec, learning_rate=rate))


CODED = coded(4, 8)
ARMS = [
    Arm("average", paced(5), RATES, DEFAULT),
    Arm("2 rounds", paced(2), (3e-3, 6e-3)),
    *(Arm(f"{rounds} rounds", paced(rounds), (6e-3, 1.2e-2)) for rounds in (10, 20)),
    Arm("alternating", alternating, (6e-3, 1.2e-2)),
    Arm("muon", muon(), (1.2e-2, 2.4e-2)),
    *(Arm(f"{rounds} rounds, coded", paced(rounds, **CODED), RATES) for rounds in (2, 5, 20)),
    Arm("20 rounds, nesterov", paced(20, **NESTEROV), RATES),
]


def drawn(found: Mapping[str, Sequence[Json]]) -> str:
    """Validation loss of the first seed against bytes so far, both ways; labels have the joules of
    the rounds.
    """
    curves = []
    for name, rows in found.items():
        row = rows[0]
        total, count = row["bytes_up"] + row["bytes_down"], len(row["curve"])
        points = tuple((total * (k + 1) / count, loss) for k, loss in enumerate(row["curve"]))
        curves.append(Curve(f"{name}, {row['joules']:.0f} J", points))
    return picture(
        "Validation loss against bytes, both ways and of all participants, first seed",
        "bytes",
        curves,
    )


def main() -> None:
    """Run what is missing, print a table per world, and draw it."""
    for out, world, found in compared(
        __doc__, WORLDS, ARMS, DEFAULT, lambda found: table(found, DEFAULT)
    ):
        steps = {name: rows for name, rows in found.items() if "rounds" in name}
        (out / f"{world}-steps.svg").write_text(drawn(steps), encoding="utf-8")
        each = {
            name: statistics.fmean(row["joules_evaluation"] for row in rows)
            for name, rows in steps.items()
        }
        print(
            "J of the looks at validation data: "
            + ", ".join(f"{name} {x:.0f}" for name, x in each.items())
        )


if __name__ == "__main__":
    main()
