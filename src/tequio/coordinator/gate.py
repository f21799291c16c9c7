"""The gate: a candidate that makes the general model worse on public text is rolled back.

Harm is wrong answers for classification and loss for language models. Per slice, the paired
bootstrap of (candidate − base) over examples; rejected where the increase is beyond the margin and
its 95 % interval lies above zero. Slices are public, so their per-example values may be seen here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tequio.core.reason import Reason
from tequio.core.seeds import derive
from tequio.measure.statistics import paired_bootstrap


@dataclass(frozen=True)
class Slice:
    """One public slice at the gate: mean harm, 95 % interval of candidate − base, and the allowed
    increase.
    """

    base: float
    candidate: float
    low: float
    high: float
    limit: float

    @property
    def passes(self) -> bool:
        """False where the harm surely rose, and by more than the limit."""
        return not (self.low > 0.0 and self.candidate - self.base > self.limit)


def judge(
    base: Mapping[str, tuple[float, ...]],
    candidate: Mapping[str, tuple[float, ...]],
    margin: float,
    seed: int,
) -> dict[str, Slice]:
    """Judge every slice; `margin` is relative to the base's harm.

    A slice the candidate lacks fails (infinite harm).
    """
    out: dict[str, Slice] = {}
    for name, before in base.items():
        after = candidate.get(name)
        mean = float(np.mean(before))
        if after is None or len(after) != len(before) or not np.isfinite(after).all():
            out[name] = Slice(mean, float("inf"), float("inf"), float("inf"), margin * mean)
            continue
        interval = paired_bootstrap(np.array(after), np.array(before), derive(seed, "gate", name))
        out[name] = Slice(mean, float(np.mean(after)), interval.low, interval.high, margin * mean)
    return out


def verdict(slices: Mapping[str, Slice]) -> tuple[bool, Reason]:
    """Whether the candidate may be accepted, and why."""
    failed = {name: s for name, s in slices.items() if not s.passes}
    if failed:
        rows = [
            {
                "name": name,
                "base": s.base,
                "candidate": s.candidate if math.isfinite(s.candidate) else None,
            }
            for name, s in failed.items()
        ]
        return False, Reason("general-worse", {"slices": rows})
    return True, Reason("general-kept" if slices else "no-public-slice")
