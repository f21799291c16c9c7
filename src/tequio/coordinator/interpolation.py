"""How much of the shared change to keep: points between base and shared model (WiSE-FT, Wortsman et
al., arXiv 2109.01903).

Base + α·G for α from 0 to 1; of the points that the gate passes, the one of least mean validation
loss is kept. α = 0 is the base itself and always passes.
"""

import math
from dataclasses import dataclass
from typing import Any

from tequio.coordinator.gate import judge, verdict
from tequio.coordinator.round import evaluate
from tequio.coordinator.run_spec import RunSpec
from tequio.core.protocols import Runtime
from tequio.core.types import State
from tequio.core.update import Update


@dataclass(frozen=True)
class Point:
    """One α: mean validation loss over participants, mean harm of each public slice, and whether
    the gate passes it.
    """

    alpha: float
    loss: float
    slices: dict[str, float]
    passes: bool


def points(
    model: Update, count: int, state: State, run_spec: RunSpec, runtime: Runtime
) -> list[Point]:
    """Try `count` points, 0 and 1 among them (count ≥ 2)."""
    out = []
    for k in range(count):
        alpha = k / (count - 1)
        evaluation = evaluate(run_spec.rounds + 1 + k, model.scaled(alpha), run_spec, runtime)
        slices = judge(state.base_slices, evaluation.slices, run_spec.gate_margin, run_spec.seed)
        passes = verdict(slices)[0] if alpha > 0.0 else True
        out.append(
            Point(alpha, evaluation.mean_loss, {n: s.candidate for n, s in slices.items()}, passes)
        )
    return out


def best(tried: list[Point]) -> Point:
    """Of the points that pass, the one of least loss; of equals, the one nearest to the base.

    Where nobody looked, the farthest.
    """
    if not any(math.isfinite(p.loss) for p in tried):
        return max((p for p in tried if p.passes), key=lambda p: p.alpha)
    return min((p for p in tried if p.passes), key=lambda p: (p.loss, p.alpha))


def record(tried: list[Point]) -> list[dict[str, Any]]:
    """The points as the ledger keeps them; what is not finite becomes null."""
    return [
        {
            "alpha": p.alpha,
            "loss": p.loss if math.isfinite(p.loss) else None,
            "slices": {n: x if math.isfinite(x) else None for n, x in p.slices.items()},
            "passes": p.passes,
        }
        for p in tried
    ]
