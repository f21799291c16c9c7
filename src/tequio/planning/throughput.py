"""How fast a machine is: a straight line through real steps on this one, or peak, bandwidth and
utilisation of a device of the catalogue.

Device: time = max(FLOPs / (peak · MFU), bytes / bandwidth, launching of kernels). MFU, the share of
the peak that training reaches, is .28 for adapters and .40 for full training (assumptions: .2 to
.35, .35 to .45), until a factor from a real run corrects it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tequio.planning.allocation import RANK_COST
from tequio.planning.devices import Device
from tequio.planning.flops import forward, training
from tequio.planning.memory import ModelShape
from tequio.planning.workload import Work

MFU_ADAPTERS = (0.20, 0.28, 0.35)
MFU_FULL = (0.35, 0.40, 0.45)
LAUNCH_SECONDS = 6e-4
"""A layer takes so long at least: about a hundred kernels of some microseconds each.

An assumption; it decides where a model is small
for a device."""
PASSES = 3  # over the weights in a step: forward, backward, and reading them for the next product


@dataclass(frozen=True)
class Line:
    """seconds = fixed + slope · tokens, both at least 0."""

    fixed: float
    slope: float

    def at(self, tokens: float) -> float:
        """Seconds."""
        return self.fixed + self.slope * tokens


def line(tokens: Sequence[float], seconds: Sequence[float]) -> Line:
    """Least squares; through the origin where the fixed part would be negative, flat where the
    slope would be.

    Relative errors count, so that a long batch does not drown the short ones. Raises ValueError
    without points.
    """
    x, y = np.asarray(tokens, float), np.asarray(seconds, float)
    if not len(x):
        raise ValueError("no step was timed")
    weight = 1.0 / np.maximum(y, 1e-9)
    origin = Line(0.0, float((weight**2 * x * y).sum() / max((weight**2 * x * x).sum(), 1e-12)))
    if len(x) < 3 or np.ptp(x) < 0.05 * x.mean():
        return origin
    a = np.stack([weight, weight * x], axis=1)
    fixed, slope = np.linalg.lstsq(a, weight * y, rcond=None)[0]
    if slope < 0:
        return Line(float(np.median(y)), 0.0)
    return origin if fixed < 0 else Line(float(fixed), float(slope))


@dataclass(frozen=True)
class Probed:
    """This machine: lines for a step at rank `rank` and for an evaluation, seconds of a turn, mean
    power;

    `factor` from earlier runs.

    start: seconds until a graphics card got going, once a process, which no forecast counts.
    """

    steps: Line
    evaluations: Line
    turn: float
    watts: float
    rank: int
    batch_tokens: float
    factor: float = 1.0
    start: float = 0.0

    def step(self, work: Work, rank: int) -> float:
        """Seconds of a step at this rank."""
        ranks = 1.0 if work.full else (1.0 + RANK_COST * rank) / (1.0 + RANK_COST * self.rank)
        return self.factor * self.steps.at(work.step_tokens) * ranks

    def evaluation(self, work: Work, tokens: float) -> float:
        """Seconds for so many tokens, in batches as the probe had them."""
        batches = max(1.0, tokens / self.batch_tokens)
        return self.factor * batches * self.evaluations.at(tokens / batches)


@dataclass(frozen=True)
class OnDevice:
    """A device of the catalogue.

    `which`: 0 the lowest utilisation, 1 the middle one, 2 the highest.
    """

    device: Device
    shape: ModelShape
    factor: float = 1.0
    which: int = 1
    turn: float = 0.0

    @property
    def watts(self) -> float:
        """Rated power: an upper estimate."""
        return self.device.watts

    def step(self, work: Work, rank: int) -> float:
        """Seconds of a step."""
        share = (MFU_FULL if work.full else MFU_ADAPTERS)[self.which]
        flops = training(self.shape, work.length, rank, work.full) * work.step_tokens
        return self._seconds(flops / share, PASSES)

    def evaluation(self, work: Work, tokens: float) -> float:
        """Seconds for so many tokens."""
        share = (MFU_FULL if work.full else MFU_ADAPTERS)[self.which]
        batches = max(1.0, tokens / max(work.step_tokens, 1.0))
        return self._seconds(forward(self.shape, work.length, work.rank) * tokens / share, batches)

    def _seconds(self, flops: float, passes: float) -> float:
        moved = passes * self.shape.parameters * self.shape.bytes_per_parameter
        computed, read = flops / (self.device.bf16 * 1e12), moved / (self.device.bandwidth * 1e9)
        launched = passes / PASSES * self.shape.layers * LAUNCH_SECONDS
        return self.factor * max(computed, read, launched)
